package agent

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"funoffshore.bench/k3s/internal/paths"
	"sigs.k8s.io/yaml"
)

// registries is /etc/rancher/k3s/registries.yaml, as far as containerd is told of it here.
type registries struct {
	Mirrors map[string]struct {
		Endpoints []string `json:"endpoint"`
	} `json:"mirrors"`
}

// registries reads the file; one that is absent says nothing.
func (a *Agent) registries() (registries, error) {
	var found registries
	path := a.Settings.Text("private-registry", a.Paths.Root+"/etc/rancher/k3s/registries.yaml")
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return found, nil
	}
	if err == nil {
		err = yaml.Unmarshal(content, &found)
	}
	if err != nil {
		return found, fmt.Errorf("failed to read %s: %w", path, err)
	}
	return found, nil
}

// writeRegistries tells containerd, one folder for each registry, where to ask first.
func (a *Agent) writeRegistries() error {
	told, err := a.registries()
	if err != nil {
		return err
	}
	folder := a.Paths.Agent("etc", "containerd", "certs.d")
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := paths.Folder(folder, 0o755); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(told.Mirrors)) {
		var text bytes.Buffer
		text.WriteString("# Written by funoffshore's bench stand-in for K3s.\n")
		if name != "*" {
			fmt.Fprintf(&text, "server = %q\n", "https://"+strings.Replace(name, "docker.io", "registry-1.docker.io", 1))
		}
		for _, endpoint := range told.Mirrors[name].Endpoints {
			if !strings.Contains(endpoint, "://") {
				endpoint = "https://" + endpoint
			}
			fmt.Fprintf(&text, "\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", endpoint)
		}
		own := filepath.Join(folder, strings.Replace(name, "*", "_default", 1))
		if err := paths.Folder(own, 0o755); err != nil {
			return err
		}
		if err := paths.Write(filepath.Join(own, "hosts.toml"), text.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return nil
}
