// The life of a machine, driven by go-proxmox: what it answers is printed as JSON, and whatever it cannot take ends it.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"time"

	"github.com/luthermonson/go-proxmox"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// got takes a value that came with an error.
func got[T any](value T, err error) T {
	must(err)
	return value
}

var ctx = context.Background()

// end waits for a task, and must see it succeed.
func end(task *proxmox.Task, err error) {
	must(err)
	must(task.Wait(ctx, 5*time.Millisecond, time.Minute))
	if !task.IsSuccessful {
		log.Fatalf("%s ended with %s", task.UPID, task.ExitStatus)
	}
}

func option(name string, value any) proxmox.VirtualMachineOption {
	return proxmox.VirtualMachineOption{Name: name, Value: value}
}

func main() {
	url, password, iso, certificate := os.Args[1], os.Args[2], os.Args[3], proxmox.WithRootCAFile(os.Args[4])
	person := &proxmox.Credentials{Username: "root@pam", Password: password}
	root := proxmox.NewClient(url, proxmox.WithCredentials(person), certificate, proxmox.WithEagerAuth())
	client := proxmox.NewClient(url, proxmox.WithAPIToken(robot(root)), certificate)
	said := map[string]any{"release": got(client.Version(ctx)).Release}
	said["nodes"] = len(got(client.Nodes(ctx)))
	cluster := got(client.Cluster(ctx))
	must(client.NewPool(ctx, "go", "of Go"))

	node := got(client.Node(ctx, "pve"))
	said["memory"] = node.Memory.Total > 0
	store := got(node.Storage(ctx, "local"))
	end(store.Upload("iso", iso))
	said["storages"] = len(got(node.Storages(ctx)))
	said["clusterStorages"] = len(got(client.ClusterStorages(ctx)))

	vmid := got(cluster.NextID(ctx))
	end(node.NewVirtualMachine(ctx, vmid, option("name", "go-1"), option("memory", 2048), option("cores", 2),
		option("scsi0", "vmstore:2,format=qcow2"), option("net0", "virtio,bridge=vmbr0"), option("pool", "go"),
		option("agent", "enabled=1"), option("ostype", "l26"), option("scsihw", "virtio-scsi-single")))
	vm := got(node.VirtualMachine(ctx, vmid))
	end(vm.Config(ctx, option("cores", 4), option("description", "of Go")))
	end(vm.ResizeDisk(ctx, "scsi0", "+1G"))
	end(vm.NewSnapshot(ctx, "before"))
	end(vm.Snapshot("before").Rollback(ctx))
	end(vm.Snapshot("before").Delete(ctx))
	end(vm.AddTag(ctx, "golang"))
	end(vm.Start(ctx))
	must(vm.Ping(ctx))
	said["running"] = vm.IsRunning()
	must(vm.WaitForAgent(ctx, 5))
	said["agent"] = len(got(vm.AgentGetNetworkIFaces(ctx)))
	end(vm.Reboot(ctx))
	end(vm.Stop(ctx))
	must(vm.Ping(ctx))
	said["stopped"] = vm.IsStopped()
	said["tagged"] = vm.HasTag("golang")
	said["cores"] = vm.VirtualMachineConfig.Cores
	said["scsi0"] = vm.VirtualMachineConfig.SCSIs["scsi0"]
	said["pending"] = len(*got(vm.Pending(ctx)))

	newid, task, err := vm.Clone(ctx, &proxmox.VirtualMachineCloneOptions{Name: "go-2", Full: true})
	end(task, err)
	twin := got(node.VirtualMachine(ctx, newid))
	end(twin.ConvertToTemplate(ctx))
	said["machines"] = len(got(cluster.Resources(ctx, "vm")))
	said["members"] = len(got(client.Pool(ctx, "go")).Members)
	end(twin.Delete(ctx, nil))
	end(vm.Delete(ctx, &proxmox.VirtualMachineDeleteOptions{Purge: true, DestroyUnreferencedDisks: true}))
	end(got(store.ISO(ctx, "small.iso")).Delete(ctx))
	must(got(client.Pool(ctx, "go")).Delete(ctx))
	said["tasks"] = len(got(cluster.Tasks(ctx)))
	must(got(root.User(ctx, "robot@pve")).Delete(ctx))
	_, err = client.Version(ctx)
	said["refused"] = proxmox.IsNotAuthorized(err)
	must(json.NewEncoder(os.Stdout).Encode(said))
}

// robot makes a user, gives it a role, and returns the name and the secret of a token that may do the same.
func robot(root *proxmox.Client) (string, string) {
	must(root.NewRole(ctx, "Robot", "VM.Allocate,VM.Audit,VM.Snapshot,Pool.Allocate,Pool.Audit"))
	must(root.NewUser(ctx, &proxmox.NewUser{UserID: "robot@pve", Enable: true, Comment: "of Go"}))
	for _, role := range []string{"Robot", "PVEAdmin"} {
		must(root.UpdateACL(ctx, proxmox.ACLOptions{Path: "/", Users: "robot@pve", Roles: role, Propagate: true}))
	}
	user := got(root.User(ctx, "robot@pve"))
	token := got(user.NewAPIToken(ctx, proxmox.Token{TokenID: "life", Privsep: false}))
	return token.FullTokenID, token.Value
}
