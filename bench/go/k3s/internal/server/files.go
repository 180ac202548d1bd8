package server

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"funoffshore.bench/k3s/internal/agent"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
	"funoffshore.bench/k3s/internal/token"
)

// write brings everything below server/ but the datastore up to date, and k3s.yaml.
func (s *Server) write() error {
	steps := []func() error{
		s.folders, s.writePasswd, s.writeTokens, s.writeEncryption, s.writeCertificates, s.writeKubeconfigs,
		s.writePackaged, func() error { _, err := agent.NodePassword(s.paths); return err },
		func() error { _, err := s.remember(); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// readPasswd is the passwords by user; empty when there is no such file.
func (s *Server) readPasswd() map[string]string {
	content, _ := os.ReadFile(s.paths.Server("cred", "passwd"))
	found := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Split(strings.TrimSpace(line), ","); len(fields) == 4 {
			found[fields[1]] = fields[0]
		}
	}
	return found
}

func (s *Server) writePasswd() error {
	server, node := s.passwords.both()
	lines := fmt.Sprintf("%s,node,node,k3s:agent\n%s,server,server,k3s:server\n", node, server)
	return paths.Write(s.paths.Server("cred", "passwd"), []byte(lines), 0o600)
}

// writeTokens makes token and its companions: links, or a file of its own for a separate agent token.
func (s *Server) writeTokens() error {
	ca, err := os.ReadFile(s.paths.TLS("server-ca.crt"))
	if err != nil {
		return err
	}
	server, node := s.passwords.both()
	own := token.Full(ca, "server", server) + "\n"
	if err := paths.Write(s.paths.Server("token"), []byte(own), 0o600); err != nil {
		return err
	}
	for _, name := range []string{"node-token", "agent-token"} {
		path := s.paths.Server(name)
		if name == "agent-token" && node != server {
			_ = os.Remove(path)
			if err := paths.Write(path, []byte(token.Full(ca, "node", node)+"\n"), 0o600); err != nil {
				return err
			}
			continue
		}
		if there, _ := os.Readlink(path); there == "token" {
			continue
		}
		_ = os.Remove(path)
		if err := os.Symlink("token", path); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) encryptionFile() string { return s.paths.Server("cred", "encryption-config.json") }

func (s *Server) writeEncryption() error {
	if !s.critical.EncryptSecrets || paths.Exists(s.encryptionFile()) {
		return nil
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	keys := []any{kube.Object{"name": "aescbckey", "secret": base64.StdEncoding.EncodeToString(key)}}
	providers := []any{kube.Object{"aescbc": kube.Object{"keys": keys}}, kube.Object{"identity": kube.Object{}}}
	content, err := json.Marshal(kube.Object{
		"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
		"resources": []any{kube.Object{"resources": []any{"secrets"}, "providers": providers}},
	})
	if err != nil {
		return err
	}
	return paths.Write(s.encryptionFile(), content, 0o600)
}

// encryptionHash is the annotation k3s.io/encryption-config-hash; empty without encryption.
func (s *Server) encryptionHash() string {
	content, err := os.ReadFile(s.encryptionFile())
	if !s.critical.EncryptSecrets || err != nil {
		return ""
	}
	sum := sha256.Sum256(content)
	return "start-" + hex.EncodeToString(sum[:])
}

func (s *Server) writeCertificates() error {
	servers, clients := pki.Load(s.paths.TLS("server-ca")), pki.Load(s.paths.TLS("client-ca"))
	front := pki.Load(s.paths.TLS("request-header-ca"))
	etcds, peers := pki.Load(s.paths.TLS("etcd", "server-ca")), pki.Load(s.paths.TLS("etcd", "peer-ca"))
	masters := []string{"system:masters"}
	api := pki.Leaf{Name: "kube-apiserver", Server: true, Names: append(s.names(), apiserver)}
	local := []string{"localhost", "127.0.0.1", "::1", s.node, s.address}
	for _, one := range []struct {
		path string
		ca   pki.Pair
		leaf pki.Leaf
	}{
		{"client-admin", clients, pki.Leaf{Name: "system:admin", Organizations: masters, Client: true}},
		{"client-supervisor", clients, pki.Leaf{Name: "system:k3s-supervisor", Organizations: masters, Client: true}},
		{"client-controller", clients, pki.Leaf{Name: "system:kube-controller-manager", Client: true}},
		{"client-scheduler", clients, pki.Leaf{Name: "system:kube-scheduler", Client: true}},
		{"client-kube-proxy", clients, pki.Leaf{Name: "system:kube-proxy", Client: true}},
		{"client-k3s-controller", clients, pki.Leaf{Name: "system:k3s-controller", Client: true}},
		{"client-kube-apiserver", clients, pki.Leaf{Name: "system:apiserver", Organizations: masters, Client: true}},
		{"client-auth-proxy", front, pki.Leaf{Name: "system:auth-proxy", Client: true}},
		{"serving-kube-apiserver", servers, api},
		{"etcd/server-client", etcds, pki.Leaf{Name: "etcd-server", Server: true, Client: true, Names: local}},
		{"etcd/peer-server-client", peers, pki.Leaf{Name: "etcd-peer", Server: true, Client: true, Names: local}},
		{"etcd/client", etcds, pki.Leaf{Name: "etcd-client", Client: true}},
	} {
		if err := s.issue(one.path, one.ca, one.leaf); err != nil {
			return err
		}
	}
	return s.loadServing()
}

func (s *Server) writeKubeconfigs() error {
	ca, err := os.ReadFile(s.paths.TLS("server-ca.crt"))
	if err != nil {
		return err
	}
	for name, certificate := range map[string]string{
		"admin": "client-admin", "supervisor": "client-supervisor", "controller": "client-controller",
		"scheduler": "client-scheduler", "api-server": "client-kube-apiserver",
	} {
		text := agent.Kubeconfig("https://"+apiserver+":6443", "local", ca, pki.Load(s.paths.TLS(certificate)))
		if err := paths.Write(s.paths.Server("cred", name+".kubeconfig"), text, 0o600); err != nil {
			return err
		}
	}
	path := s.set.Text("write-kubeconfig", s.paths.Kubeconfig())
	mode, err := strconv.ParseUint(s.set.Text("write-kubeconfig-mode", "0600"), 8, 32)
	if err != nil {
		return journal.Fatalf("Error: invalid write-kubeconfig-mode: %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text := agent.Kubeconfig("https://127.0.0.1:6443", "default", ca, pki.Load(s.paths.TLS("client-admin")))
	return paths.Write(path, text, os.FileMode(mode))
}

// admin makes the client that this server's own controllers use.
func (s *Server) admin() (*kube.Client, error) {
	ca, err := os.ReadFile(s.paths.TLS("server-ca.crt"))
	pair := pki.Load(s.paths.TLS("client-supervisor"))
	made, failure := kube.New("https://"+apiserver+":6443", ca, pair.Certificate, pair.Key)
	return made, errors.Join(err, failure)
}
