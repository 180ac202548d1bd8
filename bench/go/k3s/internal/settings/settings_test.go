package settings

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// config writes config.yaml and its drop-ins and returns its path.
func config(t *testing.T, main string, parts ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if main != "" {
		write(path, main)
	}
	if err := os.Mkdir(path+".d", 0o755); err != nil {
		t.Fatal(err)
	}
	for i, text := range parts {
		write(filepath.Join(path+".d", string(rune('a'+i))+".yaml"), text)
	}
	return path
}

func TestLaterFilesReplaceAndPlusAppends(t *testing.T) {
	path := config(t, "token: one\ntls-san: [a]\ndisable: [traefik]\n",
		"tls-san: [b]\ndisable+: [servicelb]\n", "token: two\n")
	set, err := Read("server", []string{"--node-name", "n1", "--cluster-init"}, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set.Text("token", "") != "two" || !slices.Equal(set.Many("tls-san"), []string{"b"}) ||
		!slices.Equal(set.Many("disable"), []string{"traefik", "servicelb"}) || !set.Bool("cluster-init") {
		t.Fatalf("folded wrongly: %v", set.Flags)
	}
	words := strings.Join(set.Arguments(true), " ")
	wanted := "server --token ******** --tls-san b --disable traefik --disable servicelb --node-name n1 --cluster-init true"
	if words != wanted {
		t.Fatalf("arguments are %q", words)
	}
}

func TestDropInsAloneAreRead(t *testing.T) {
	set, err := Read("agent", nil, config(t, "", "token: x\n"), nil)
	if err != nil || set.Text("token", "") != "x" {
		t.Fatalf("%v, %v", set, err)
	}
}

func TestUnknownKeysAreSkippedByServersAndKillAgents(t *testing.T) {
	path := config(t, "cluster-init: true\nno-such: [1, 2]\n")
	set, err := Read("server", nil, path, nil)
	if err != nil || !slices.Equal(set.Skipped, []string{"no-such", "no-such"}) {
		t.Fatalf("%v, %v", set.Skipped, err)
	}
	_, err = Read("agent", nil, path, nil)
	if err == nil || err.Error() != "Error: flag provided but not defined: -cluster-init" {
		t.Fatalf("an agent says %v", err)
	}
	if set, err = Read("etcd-snapshot", []string{"ls", "-o", "json"}, path, nil); err != nil ||
		set.Text("output", "") != "json" || !slices.Equal(set.Words, []string{"ls"}) {
		t.Fatalf("%v, %v", set, err)
	}
}

func TestBadInputIsNamed(t *testing.T) {
	for text, wanted := range map[string]string{
		"cluster-cidr: nonsense":           "Error: invalid cluster-cidr nonsense: invalid CIDR address: nonsense",
		"disable-agent: maybe":             `Error: invalid boolean value "maybe" for -disable-agent: parse error`,
		"node-ip: here":                    "Error: invalid node-ip: invalid ip format 'here'",
		"x: 1\na: b: c":                    "yaml: line 2: mapping values are not allowed in this context",
		"datastore-endpoint: postgres://x": "Error: --datastore-endpoint is not supported by the bench's stand-in for K3s",
	} {
		if _, err := Read("server", nil, config(t, text), nil); err == nil || err.Error() != wanted {
			t.Errorf("%q says %v", text, err)
		}
	}
	if _, err := Read("server", []string{"--nosuch"}, "/nowhere", nil); err == nil ||
		err.Error() != "Error: flag provided but not defined: -nosuch" {
		t.Errorf("an unknown flag says %v", err)
	}
}

func TestEnvironmentIsTheWeakest(t *testing.T) {
	environment := map[string]string{"K3S_TOKEN": "from-env", "K3S_URL": "https://a:6443"}
	set, err := Read("agent", nil, config(t, "token: from-file\n"), environment)
	if err != nil || set.Text("token", "") != "from-file" || set.Text("server", "") != "https://a:6443" {
		t.Fatalf("%v, %v", set, err)
	}
	if shown := set.Variables(true); shown["K3S_TOKEN"] != "********" || shown["K3S_URL"] != "https://a:6443" {
		t.Fatalf("variables are shown as %v", shown)
	}
}

func TestHashChangesWithAnyArgument(t *testing.T) {
	one := Settings{Role: "server", Flags: []Flag{{"node-label", "a=b"}}}
	two := Settings{Role: "server", Flags: []Flag{{"node-label", "a=c"}}}
	if one.Hash() == two.Hash() || len(one.Hash()) != 56 {
		t.Fatalf("%s, %s", one.Hash(), two.Hash())
	}
}
