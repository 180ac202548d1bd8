package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"
)

const (
	volumesPath  = "/api/v1/persistentvolumes"
	claimsPath   = "/api/v1/persistentvolumeclaims"
	classesPath  = "/apis/storage.k8s.io/v1/storageclasses"
	selectedNode = "volume.kubernetes.io/selected-node"
	provisioned  = "pv.kubernetes.io/provisioned-by"
	localConfig  = "/etc/config/config.json"
	localFolder  = "/var/lib/rancher/k3s/storage"
)

// provisioner makes a volume for every claim of its driver's classes, and removes those that nobody claims any more.
type provisioner struct {
	c      *client
	driver string
	// source gives the part of a PersistentVolume's spec that says where it is.
	source func(name string, claim, class object, node string) object
}

// localPath is K3s' provisioner of folders on the nodes.
func localPath(ctx context.Context, c *client) error {
	folder, err := localPlace(localConfig)
	if err != nil {
		return err
	}
	p := &provisioner{c, "rancher.io/local-path", localSource(folder)}
	repeat(ctx, time.Second, func() error { return p.once(ctx) })
	return nil
}

// localPlace is the first folder that the provisioner's own configuration names, whatever the node.
func localPlace(file string) (string, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return localFolder, nil
	}
	if err != nil {
		return "", err
	}
	var config struct{ NodePathMap []struct{ Paths []string } }
	if err := json.Unmarshal(content, &config); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	for _, node := range config.NodePathMap {
		for _, folder := range node.Paths {
			return folder, nil
		}
	}
	return localFolder, nil
}

func localSource(root string) func(string, object, object, string) object {
	return func(name string, claim, _ object, node string) object {
		folder := fmt.Sprintf("%s_%s_%s", name, str(claim, "metadata", "namespace"), str(claim, "metadata", "name"))
		term := object{"matchExpressions": []object{
			{"key": "kubernetes.io/hostname", "operator": "In", "values": []string{node}},
		}}
		return object{
			"hostPath":     object{"path": path.Join(root, folder), "type": "DirectoryOrCreate"},
			"nodeAffinity": object{"required": object{"nodeSelectorTerms": []object{term}}},
		}
	}
}

// nfsController is the half of csi-driver-nfs that makes volumes.
func nfsController(ctx context.Context, c *client) error {
	p := &provisioner{c, nfsDriver, nfsSource}
	repeat(ctx, time.Second, func() error { return p.once(ctx) })
	return nil
}

func nfsSource(name string, claim, class object, _ string) object {
	folder := str(class, "parameters", "subDir")
	if folder == "" {
		folder = name
	}
	for key, value := range map[string]string{
		"${pvc.metadata.namespace}": str(claim, "metadata", "namespace"),
		"${pvc.metadata.name}":      str(claim, "metadata", "name"),
		"${pv.metadata.name}":       name,
	} {
		folder = strings.ReplaceAll(folder, key, value)
	}
	server, share := str(class, "parameters", "server"), str(class, "parameters", "share")
	onDelete := str(class, "parameters", "onDelete")
	return object{"csi": object{
		"driver":           nfsDriver,
		"volumeHandle":     strings.Join([]string{server, strings.Trim(share, "/"), folder, name, onDelete}, "#"),
		"volumeAttributes": object{"server": server, "share": share, "subdir": folder},
	}}
}

// once looks at every claim and every volume.
func (p *provisioner) once(ctx context.Context) error {
	all, err := p.c.list(ctx, classesPath)
	if err != nil {
		return err
	}
	classes := map[string]object{}
	for _, class := range all {
		if str(class, "provisioner") == p.driver {
			classes[str(class, "metadata", "name")] = class
		}
	}
	claims, err := p.c.list(ctx, claimsPath)
	if err != nil {
		return err
	}
	for _, claim := range claims {
		if class := classes[str(claim, "spec", "storageClassName")]; class != nil {
			if err := p.serve(ctx, claim, class); err != nil {
				return err
			}
		}
	}
	return p.reclaim(ctx)
}

// serve makes the volume of a claim that has none yet. Binding the two is the control plane's work.
func (p *provisioner) serve(ctx context.Context, claim, class object) error {
	node := str(claim, "metadata", "annotations", selectedNode)
	waits := str(class, "volumeBindingMode") == "WaitForFirstConsumer"
	if str(claim, "spec", "volumeName") != "" || dig(claim, "metadata", "deletionTimestamp") != nil || waits && node == "" {
		return nil
	}
	err := p.c.create(ctx, volumesPath, p.volume(claim, class, node))
	if hasCode(err, 409) { // made before, not bound yet
		return nil
	}
	return err
}

func (p *provisioner) volume(claim, class object, node string) object {
	name := "pvc-" + str(claim, "metadata", "uid")
	reclaim := str(class, "reclaimPolicy")
	if reclaim == "" {
		reclaim = "Delete"
	}
	spec := p.source(name, claim, class, node)
	spec["accessModes"] = dig(claim, "spec", "accessModes")
	spec["capacity"] = object{"storage": dig(claim, "spec", "resources", "requests", "storage")}
	spec["persistentVolumeReclaimPolicy"] = reclaim
	spec["storageClassName"] = str(class, "metadata", "name")
	if mode := str(claim, "spec", "volumeMode"); mode != "" {
		spec["volumeMode"] = mode
	}
	if options := dig(class, "mountOptions"); options != nil {
		spec["mountOptions"] = options
	}
	spec["claimRef"] = object{
		"apiVersion": "v1",
		"kind":       "PersistentVolumeClaim",
		"namespace":  str(claim, "metadata", "namespace"),
		"name":       str(claim, "metadata", "name"),
		"uid":        str(claim, "metadata", "uid"),
	}
	return object{
		"apiVersion": "v1",
		"kind":       "PersistentVolume",
		"metadata":   object{"name": name, "annotations": object{provisioned: p.driver}},
		"spec":       spec,
	}
}

// reclaim removes volumes of its own that were released and are not to be kept. Their files stay where they are.
func (p *provisioner) reclaim(ctx context.Context) error {
	volumes, err := p.c.list(ctx, volumesPath)
	if err != nil {
		return err
	}
	for _, volume := range volumes {
		ours := str(volume, "metadata", "annotations", provisioned) == p.driver
		kept := str(volume, "spec", "persistentVolumeReclaimPolicy") != "Delete"
		if !ours || kept || str(volume, "status", "phase") != "Released" {
			continue
		}
		err := p.c.remove(ctx, volumesPath+"/"+str(volume, "metadata", "name"))
		if err != nil && !hasCode(err, 404) {
			return err
		}
	}
	return nil
}
