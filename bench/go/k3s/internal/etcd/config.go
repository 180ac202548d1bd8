package etcd

import (
	"os"
	"path/filepath"
	"strings"

	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/token"
	"sigs.k8s.io/yaml"
)

// Local is the one member of this node.
type Local struct {
	Name    string
	Address string
	// Folder is db/etcd.
	Folder string
	// TLS is tls/etcd.
	TLS string
	// Extra are the values of etcd-arg: "key=value".
	Extra []string
}

// Open finds the member in folder, with a new name when there is none yet.
func Open(p paths.Paths, node, address string, extra []string) (Local, error) {
	folder := p.Server("db", "etcd")
	for _, path := range []string{p.Server("db"), folder, p.Server("db", "snapshots")} {
		if err := paths.Folder(path, 0o700); err != nil {
			return Local{}, err
		}
	}
	local := Local{Address: address, Folder: folder, TLS: p.TLS("etcd"), Extra: extra}
	if kept, err := os.ReadFile(filepath.Join(folder, "name")); err == nil && len(kept) > 0 {
		local.Name = strings.TrimSpace(string(kept))
		return local, nil
	}
	local.Name = node + "-" + token.Hex(4)
	return local, paths.Write(filepath.Join(folder, "name"), []byte(local.Name), 0o600)
}

// Exists is whether a member's data lies on this node.
func Exists(p paths.Paths) bool { return paths.Exists(p.Server("db", "etcd", "member", "wal")) }

// Forget drops the member's name, so that the next start takes another.
func (l Local) Forget() { _ = os.Remove(filepath.Join(l.Folder, "name")) }

// Peer is the member as --initial-cluster names it.
func (l Local) Peer() string { return l.Name + "=" + l.PeerURL() }

// PeerURL is where its peers find it.
func (l Local) PeerURL() string { return "https://" + l.Address + ":2380" }

// ClientURL is where this node's own servers find it.
func (l Local) ClientURL() string { return "https://127.0.0.1:2379" }

// Write stores the settings for a start: cluster is --initial-cluster, fresh whether it founds, reset whether it
// forgets all other members. Returns the file.
func (l Local) Write(cluster []string, fresh, reset bool) (string, error) {
	state := "existing"
	if fresh {
		state = "new"
	}
	settings := map[string]any{
		"name":                        l.Name,
		"data-dir":                    l.Folder,
		"listen-client-urls":          "https://127.0.0.1:2379,https://" + l.Address + ":2379",
		"advertise-client-urls":       "https://" + l.Address + ":2379",
		"listen-metrics-urls":         "http://127.0.0.1:2381",
		"listen-peer-urls":            "https://127.0.0.1:2380,https://" + l.Address + ":2380",
		"initial-advertise-peer-urls": l.PeerURL(),
		"initial-cluster":             strings.Join(cluster, ","),
		"initial-cluster-state":       state,
		"force-new-cluster":           reset,
		"heartbeat-interval":          500,
		"election-timeout":            5000,
		"snapshot-count":              10000,
		"log-level":                   "warn",
		"logger":                      "zap",
		"log-outputs":                 []string{"stderr"},
		"client-transport-security": map[string]any{
			"cert-file": l.TLS + "/server-client.crt", "key-file": l.TLS + "/server-client.key",
			"client-cert-auth": true, "trusted-ca-file": l.TLS + "/server-ca.crt",
		},
		"peer-transport-security": map[string]any{
			"cert-file": l.TLS + "/peer-server-client.crt", "key-file": l.TLS + "/peer-server-client.key",
			"client-cert-auth": true, "trusted-ca-file": l.TLS + "/peer-ca.crt",
		},
	}
	for _, pair := range l.Extra {
		key, value, _ := strings.Cut(strings.TrimLeft(pair, "-"), "=")
		var parsed any
		if yaml.Unmarshal([]byte(value), &parsed) != nil || parsed == nil {
			parsed = value
		}
		settings[key] = parsed
	}
	content, err := yaml.Marshal(settings)
	if err != nil {
		return "", err
	}
	path := filepath.Join(l.Folder, "config")
	return path, paths.Write(path, content, 0o600)
}

// Cluster is --initial-cluster of the last start, or this member alone.
func (l Local) Cluster() []string {
	var kept struct {
		Cluster string `json:"initial-cluster"`
	}
	content, err := os.ReadFile(filepath.Join(l.Folder, "config"))
	if err != nil || yaml.Unmarshal(content, &kept) != nil || !strings.Contains(kept.Cluster, l.Name+"=") {
		return []string{l.Peer()}
	}
	return strings.Split(kept.Cluster, ",")
}

// Clients are where the members of --initial-cluster can be asked, but for one.
func Clients(cluster []string, but string) []string {
	var found []string
	for _, peer := range cluster {
		if name, url, _ := strings.Cut(peer, "="); name != but {
			found = append(found, strings.TrimSuffix(url, ":2380")+":2379")
		}
	}
	return found
}
