package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
)

// controller logs in as system:k3s-controller, which may change Nodes.
func (a *Agent) controller() (*kube.Client, error) {
	ca, err := os.ReadFile(a.Paths.Agent("server-ca.crt"))
	if err != nil {
		return nil, err
	}
	pair := pki.Load(a.Paths.Agent("client-k3s-controller"))
	return kube.New(a.api, ca, pair.Certificate, pair.Key)
}

// followNodes keeps this node's labels, its pod network and its routes to the others' true to what the API says.
func (a *Agent) followNodes(ctx context.Context, api *kube.Client) {
	var mutex sync.Mutex
	var nodes []kube.Object
	said := ""
	attend := func() {
		mutex.Lock()
		defer mutex.Unlock()
		if err := a.attend(ctx, api, nodes); err != nil && ctx.Err() == nil && said != err.Error() {
			said = err.Error()
			a.Journal.Error("Failed to set up this node: %v", err)
		}
	}
	go func() {
		for sleep(ctx, 15*time.Second) == nil {
			attend()
		}
	}()
	api.Follow(ctx, "/api/v1/nodes", func(found []kube.Object) {
		mutex.Lock()
		nodes = found
		mutex.Unlock()
		attend()
	})
}

func (a *Agent) attend(ctx context.Context, api *kube.Client, nodes []kube.Object) error {
	i := slices.IndexFunc(nodes, func(node kube.Object) bool { return kube.Text(node, "metadata", "name") == a.Node })
	if i < 0 {
		return nil
	}
	if err := a.describe(ctx, api, nodes[i]); err != nil {
		return err
	}
	if a.cluster.FlannelBackend == "none" {
		return nil
	}
	own := kube.Text(nodes[i], "spec", "podCIDR")
	if own == "" {
		return nil
	}
	if err := a.connect(ctx, own); err != nil {
		return err
	}
	return a.route(ctx, nodes)
}

// describe writes labels and annotations where they differ.
func (a *Agent) describe(ctx context.Context, api *kube.Client, node kube.Object) error {
	arguments, _ := json.Marshal(a.Settings.Arguments(true))
	variables, _ := json.Marshal(a.Settings.Variables(true))
	host, _ := os.Hostname()
	annotations := map[string]string{
		"alpha.kubernetes.io/provided-node-ip": a.Address,
		"k3s.io/hostname":                      host,
		"k3s.io/internal-ip":                   a.Address,
		"k3s.io/node-args":                     string(arguments),
		"k3s.io/node-config-hash":              a.Settings.Hash(),
		"k3s.io/node-env":                      string(variables),
	}
	if a.cluster.FlannelBackend != "none" {
		annotations["flannel.alpha.coreos.com/backend-data"] = "null"
		annotations["flannel.alpha.coreos.com/backend-type"] = "host-gw"
		annotations["flannel.alpha.coreos.com/kube-subnet-manager"] = "true"
		annotations["flannel.alpha.coreos.com/public-ip"] = a.Address
	}
	labels := map[string]string{
		"beta.kubernetes.io/instance-type": "k3s", "node.kubernetes.io/instance-type": "k3s",
	}
	for _, text := range a.Settings.List("node-label") {
		key, value, _ := strings.Cut(text, "=")
		labels[key] = value
	}
	if same(node, "labels", labels) && same(node, "annotations", annotations) {
		return nil
	}
	patch := kube.Object{"metadata": kube.Object{"labels": labels, "annotations": annotations}}
	return api.Patch(ctx, "/api/v1/nodes/"+a.Node, kube.Merge, patch)
}

func same(node kube.Object, what string, wanted map[string]string) bool {
	for key, value := range wanted {
		there, ok := kube.At(node, "metadata", what, key).(string)
		if !ok || there != value {
			return false
		}
	}
	return true
}

// connect writes the CNI configuration for this node's pods and the rules by which they reach the world.
func (a *Agent) connect(ctx context.Context, own string) error {
	config, err := json.MarshalIndent(map[string]any{
		"name": "cbr0", "cniVersion": "1.0.0",
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "forceAddress": true,
				"ipam": map[string]any{
					"type":   "host-local",
					"ranges": []any{[]any{map[string]any{"subnet": own}}},
					"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	path := a.Paths.Agent("etc", "cni", "net.d", "10-flannel.conflist")
	if there, err := os.ReadFile(path); err == nil && a.connected && string(there) == string(config) {
		return nil
	}
	if err := ensureForwarding(); err != nil {
		return err
	}
	if err := a.masquerade(ctx); err != nil {
		return err
	}
	subnet := fmt.Sprintf("FLANNEL_NETWORK=%s\nFLANNEL_SUBNET=%s\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=true\n",
		a.cluster.ClusterRange, gateway(own))
	if err := paths.Folder(a.Paths.Root+"/run/flannel", 0o755); err != nil {
		return err
	}
	if err := paths.Write(a.Paths.Root+"/run/flannel/subnet.env", []byte(subnet), 0o644); err != nil {
		return err
	}
	a.connected = true
	return paths.Write(path, config, 0o644)
}

// gateway is the first address of a range, with its length.
func gateway(own string) string {
	parsed, err := netip.ParsePrefix(own)
	if err != nil {
		return own
	}
	return netip.PrefixFrom(parsed.Addr().Next(), parsed.Bits()).String()
}

// masquerade hides pods behind the node when they leave the cluster, and lets them be forwarded.
func (a *Agent) masquerade(ctx context.Context) error {
	all := a.cluster.ClusterRange
	rules := "*nat\n:FLANNEL-POSTRTG - [0:0]\n" +
		"-A FLANNEL-POSTRTG -s " + all + " -d " + all + " -j RETURN\n" +
		"-A FLANNEL-POSTRTG -s " + all + " ! -d 224.0.0.0/4 -j MASQUERADE\nCOMMIT\n" +
		"*filter\n:FLANNEL-FWD - [0:0]\n" +
		"-A FLANNEL-FWD -s " + all + " -j ACCEPT\n-A FLANNEL-FWD -d " + all + " -j ACCEPT\nCOMMIT\n"
	if err := command(ctx, rules, "iptables-restore", "-w", "5", "--noflush"); err != nil {
		return err
	}
	for _, jump := range [][]string{{"nat", "POSTROUTING", "FLANNEL-POSTRTG"}, {"filter", "FORWARD", "FLANNEL-FWD"}} {
		rule := []string{jump[1], "-j", jump[2]}
		table := []string{"iptables", "-w", "5", "-t", jump[0]}
		if command(ctx, "", append(append(table, "-C"), rule...)...) == nil {
			continue
		}
		if err := command(ctx, "", append(append(table, "-A"), rule...)...); err != nil {
			return err
		}
	}
	return nil
}

// protocol marks the routes that are ours.
const protocol = "77"

// route leads to the pods of all other nodes through those nodes, and drops routes of nodes that are gone.
func (a *Agent) route(ctx context.Context, nodes []kube.Object) error {
	output, err := exec.CommandContext(ctx, "ip", "-4", "route", "show", "proto", protocol).Output()
	if err != nil {
		return fmt.Errorf("ip route show: %w", err)
	}
	there := map[string]string{}
	for line := range strings.Lines(string(output)) {
		if fields := strings.Fields(line); len(fields) >= 3 && fields[1] == "via" {
			there[fields[0]] = fields[2]
		}
	}
	for _, node := range nodes {
		cidr, address := kube.Text(node, "spec", "podCIDR"), kube.Address(node)
		if kube.Text(node, "metadata", "name") == a.Node || cidr == "" || address == "" {
			continue
		}
		if there[cidr] != address {
			if err := command(ctx, "", "ip", "-4", "route", "replace", cidr, "via", address, "proto", protocol); err != nil {
				return err
			}
		}
		delete(there, cidr)
	}
	for cidr := range there {
		if err := command(ctx, "", "ip", "-4", "route", "del", cidr, "proto", protocol); err != nil {
			return err
		}
	}
	return nil
}

func command(ctx context.Context, input string, argv ...string) error {
	run := exec.CommandContext(ctx, argv[0], argv[1:]...)
	run.Stdin = strings.NewReader(input)
	if output, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}
