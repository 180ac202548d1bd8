package agent

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
	"funoffshore.bench/k3s/internal/settings"
	"funoffshore.bench/k3s/internal/token"
	"sigs.k8s.io/yaml"
)

// Identity is the node's name and its first address.
func Identity(set settings.Settings) (string, string, error) {
	name := set.Text("node-name", "")
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", "", err
		}
		name = host
	}
	name = strings.ToLower(name)
	if told := set.Many("node-ip"); len(told) > 0 {
		return name, told[0], nil
	}
	// Nothing is sent: the kernel only says which address it would use.
	probe, err := net.Dial("udp4", "192.0.2.1:9")
	if err == nil {
		defer func() { _ = probe.Close() }()
		host, _, _ := net.SplitHostPort(probe.LocalAddr().String())
		return name, host, nil
	}
	addresses, err := net.InterfaceAddrs()
	for _, address := range addresses {
		if cidr, ok := address.(*net.IPNet); ok && cidr.IP.To4() != nil && cidr.IP.IsGlobalUnicast() {
			return name, cidr.IP.String(), nil
		}
	}
	return "", "", journal.Fatalf("Error: this host has no address: %v", errors.Join(err))
}

// NodePassword is what the node proves its name with; made when absent.
func NodePassword(p paths.Paths) (string, error) {
	path := p.NodePassword()
	if content, err := os.ReadFile(path); err == nil {
		return strings.TrimSpace(string(content)), nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	password := token.Hex(16)
	return password, paths.Write(path, []byte(password+"\n"), 0o600)
}

// Unpack leaves data/<sha256> and data/current, which a real K3s fills with its programs.
func Unpack(p paths.Paths, version string) error {
	sum := sha256.Sum256([]byte(version))
	digest := hex.EncodeToString(sum[:])
	folder := filepath.Join(p.Data, "data", digest)
	for _, path := range []string{p.Data, filepath.Dir(folder), folder} {
		if err := paths.Folder(path, 0o755); err != nil {
			return journal.Fatalf("Error: %v", err)
		}
	}
	text := "funoffshore's bench stand-in for K3s unpacks nothing; its servers lie in " + p.Bin + "\n"
	if err := paths.Write(filepath.Join(folder, "README"), []byte(text), 0o644); err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	if err := paths.Write(filepath.Join(p.Data, "data", ".lock"), nil, 0o600); err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	current := filepath.Join(p.Data, "data", "current")
	if there, _ := os.Readlink(current); there == digest {
		return nil
	}
	_ = os.Remove(current)
	return os.Symlink(digest, current)
}

// shim is what keeps a container alive without K3s. Like K3s' own it is started from below data/, by which whoever cleans
// up knows it.
const shim = "containerd-shim-runc-v2"

// unpackShim copies the shim to data/current/bin and returns that folder.
func unpackShim(p paths.Paths) (string, error) {
	folder, err := filepath.EvalSymlinks(filepath.Join(p.Data, "data", "current"))
	if err != nil {
		return "", err
	}
	folder = filepath.Join(folder, "bin")
	if paths.Exists(filepath.Join(folder, shim)) {
		return folder, nil
	}
	content, err := os.ReadFile(filepath.Join(p.Bin, shim))
	if err != nil {
		return "", err
	}
	if err := paths.Folder(folder, 0o755); err != nil {
		return "", err
	}
	return folder, paths.Write(filepath.Join(folder, shim), content, 0o755)
}

// Kubeconfig is one with everything called name.
func Kubeconfig(server, name string, ca []byte, pair pki.Pair) []byte {
	encode := base64.StdEncoding.EncodeToString
	content, _ := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": name,
		"clusters": []any{map[string]any{"name": name, "cluster": map[string]any{
			"server": server, "certificate-authority-data": encode(ca),
		}}},
		"contexts": []any{map[string]any{"name": name, "context": map[string]any{"cluster": name, "user": name}}},
		"users": []any{map[string]any{"name": name, "user": map[string]any{
			"client-certificate-data": encode(pair.Certificate), "client-key-data": encode(pair.Key),
		}}},
	})
	return content
}

// writeKubeconfigs lets kubelet, kube-proxy and this program log in.
func (a *Agent) writeKubeconfigs() error {
	ca, err := os.ReadFile(a.Paths.Agent("server-ca.crt"))
	if err != nil {
		return err
	}
	for name, certificate := range map[string]string{
		"kubelet": "client-kubelet", "kubeproxy": "client-kube-proxy", "k3scontroller": "client-k3s-controller",
	} {
		text := Kubeconfig(a.api, "local", ca, pki.Load(a.Paths.Agent(certificate)))
		if err := paths.Write(a.Paths.Agent(name+".kubeconfig"), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// prefix is an address with the length of its mask.
func prefix(address string, mask []byte) string {
	parsed, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	ones, _ := net.IPMask(mask).Size()
	return netip.PrefixFrom(parsed, ones).String()
}
