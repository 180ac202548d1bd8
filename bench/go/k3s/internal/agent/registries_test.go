package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"funoffshore.bench/k3s/internal/paths"
)

func TestMirrorsBecomeHostsOfContainerd(t *testing.T) {
	p := paths.Paths{Root: t.TempDir(), Data: t.TempDir()}
	a := &Agent{Config: Config{Paths: p}}
	if err := a.folders(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(p.Root+"/etc/rancher/k3s", 0o755); err != nil {
		t.Fatal(err)
	}
	file := p.Root + "/etc/rancher/k3s/registries.yaml"
	text := "mirrors:\n  docker.io: {endpoint: [mirror.lan]}\n  '*': {endpoint: ['http://all.lan:5000']}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.writeRegistries(); err != nil {
		t.Fatal(err)
	}
	for name, wanted := range map[string][]string{
		"docker.io": {`server = "https://registry-1.docker.io"`, `[host."https://mirror.lan"]`},
		"_default":  {`[host."http://all.lan:5000"]`},
	} {
		content, _ := os.ReadFile(filepath.Join(p.Agent("etc", "containerd", "certs.d"), name, "hosts.toml"))
		for _, line := range wanted {
			if !strings.Contains(string(content), line) {
				t.Errorf("%s is missing in %s", line, content)
			}
		}
	}
	if err := os.WriteFile(file, []byte("mirrors: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.registries(); err == nil || !strings.Contains(err.Error(), "registries.yaml") {
		t.Errorf("nonsense is taken: %v", err)
	}
}
