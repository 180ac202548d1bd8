// Package paths knows where K3s keeps its files, and with which modes.
package paths

import (
	"io/fs"
	"os"
	"path/filepath"
)

// DefaultData is K3s' --data-dir.
const DefaultData = "/var/lib/rancher/k3s"

// Paths of one node.
type Paths struct {
	// Root is prefixed to everything that no flag moves; empty but in tests.
	Root string
	// Data is the folder that --data-dir names.
	Data string
	// Bin holds the servers that this program starts.
	Bin string
}

// FromEnvironment takes the data folder ("" for the default) and what the environment overrides.
func FromEnvironment(data string) Paths {
	bin := os.Getenv("K3S_BENCH_BIN")
	if bin == "" {
		bin = "/opt/bench/bin"
	}
	if data == "" {
		data = DefaultData
	}
	return Paths{Root: os.Getenv("K3S_BENCH_ROOT"), Data: data, Bin: bin}
}

// Server is a path below server/.
func (p Paths) Server(parts ...string) string {
	return filepath.Join(append([]string{p.Data, "server"}, parts...)...)
}

// TLS is a path below server/tls.
func (p Paths) TLS(parts ...string) string {
	return filepath.Join(append([]string{p.Data, "server", "tls"}, parts...)...)
}

// Agent is a path below agent/.
func (p Paths) Agent(parts ...string) string {
	return filepath.Join(append([]string{p.Data, "agent"}, parts...)...)
}

// Config is where config.yaml lies unless told otherwise.
func (p Paths) Config() string { return p.Root + "/etc/rancher/k3s/config.yaml" }

// Kubeconfig is where k3s.yaml is written unless told otherwise.
func (p Paths) Kubeconfig() string { return p.Root + "/etc/rancher/k3s/k3s.yaml" }

// NodePassword is what a node proves its name with.
func (p Paths) NodePassword() string { return p.Root + "/etc/rancher/node/password" }

// Socket is containerd's.
func (p Paths) Socket() string { return p.Root + "/run/k3s/containerd/containerd.sock" }

// Folder makes path and its parents (those with 0755) and gives it mode.
func Folder(path string, mode os.FileMode) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// Write replaces the file whole; its mode is right from its first byte on.
func Write(path string, content []byte, mode os.FileMode) error {
	fresh := path + ".tmp"
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err = file.Write(content); err == nil {
		err = file.Chmod(mode)
	}
	if err == nil {
		err = file.Sync()
	}
	if shut := file.Close(); err == nil {
		err = shut
	}
	if err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// CopyFolder copies the files in a folder and below it, with their modes, to a folder that is not there yet.
func CopyFolder(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		there, _ := filepath.Rel(from, path)
		if entry.IsDir() {
			return Folder(filepath.Join(to, there), info.Mode().Perm())
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return Write(filepath.Join(to, there), content, info.Mode().Perm())
	})
}

// Exists is whether anything lies at path.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
