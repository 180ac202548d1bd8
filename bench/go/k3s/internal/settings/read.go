package settings

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"funoffshore.bench/k3s/internal/journal"
	yaml "go.yaml.in/yaml/v2"
)

// Read makes the settings of a role from its command line. fallback is where config.yaml lies unless told otherwise.
// Fails with journal.Fatal.
func Read(role string, words []string, fallback string, environment map[string]string) (Settings, error) {
	known := kinds(role)
	told, rest, err := commandLine(role, words, known)
	if err != nil {
		return Settings{}, err
	}
	main := fallback
	if named := environment["K3S_CONFIG_FILE"]; named != "" {
		main = named
	}
	for _, flag := range told {
		if flag.Key == "config" {
			main = flag.Value
		}
	}
	order, values, err := fold(main)
	if err != nil {
		return Settings{}, err
	}
	found := Settings{Role: role, Words: rest, Environment: environment}
	for _, key := range order {
		name := key
		if full, short := aliases()[key]; short {
			name = full
		}
		_, there := known[key]
		if _, also := known[name]; !there && !also {
			if role == "agent" {
				return Settings{}, journal.Fatalf("Error: flag provided but not defined: -%s", key)
			}
			for range values[key] {
				found.Skipped = append(found.Skipped, key)
			}
			continue
		}
		for _, value := range values[key] {
			found.Flags = append(found.Flags, Flag{name, value})
		}
	}
	found.Flags = append(found.Flags, told...)
	return found, check(found, known)
}

func commandLine(role string, words []string, known map[string]kind) (told []Flag, rest []string, err error) {
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		if !strings.HasPrefix(word, "-") {
			if role != "etcd-snapshot" {
				return nil, nil, journal.Fatalf("Error: unknown argument: %s", word)
			}
			rest = append(rest, word)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if full, short := aliases()[name]; short {
			name = full
		}
		what, there := known[name]
		switch {
		case !there:
			return nil, nil, journal.Fatalf("Error: flag provided but not defined: -%s", name)
		case !given && what == boolean:
			value = "true"
		case !given && len(words) == 0:
			return nil, nil, journal.Fatalf("Error: flag needs an argument: -%s", name)
		case !given:
			value, words = words[0], words[1:]
		}
		told = append(told, Flag{name, value})
	}
	return told, rest, nil
}

// fold reads the file and its drop-ins: keys in the order of their first appearance, with their values.
func fold(main string) ([]string, map[string][]string, error) {
	files, _ := filepath.Glob(filepath.Join(main+".d", "*.y*ml"))
	slices.Sort(files)
	if _, err := os.Stat(main); err == nil {
		files = slices.Insert(files, 0, main)
	}
	var order []string
	values := map[string][]string{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, journal.Fatalf("%v", err)
		}
		var table yaml.MapSlice
		if err := yaml.Unmarshal(content, &table); err != nil {
			return nil, nil, journal.Fatalf("%v", err)
		}
		for _, item := range table {
			order = take(item, order, values)
		}
	}
	return order, values, nil
}

func take(item yaml.MapItem, order []string, values map[string][]string) []string {
	key, appends := strings.CutSuffix(spell(item.Key), "+")
	var fresh []string
	if many, ok := item.Value.([]any); ok {
		for _, one := range many {
			fresh = append(fresh, spell(one))
		}
	} else {
		fresh = []string{spell(item.Value)}
	}
	if _, seen := values[key]; !seen {
		order = append(order, key)
	}
	if appends {
		fresh = append(values[key], fresh...)
	}
	values[key] = fresh
	return order
}

func spell(value any) string {
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

func check(s Settings, known map[string]kind) error {
	for _, flag := range s.Flags {
		if _, err := strconv.ParseBool(flag.Value); known[flag.Key] == boolean && err != nil {
			return journal.Fatalf("Error: invalid boolean value %q for -%s: parse error", flag.Value, flag.Key)
		}
	}
	for _, key := range []string{"cluster-cidr", "service-cidr"} {
		for _, value := range s.Many(key) {
			if _, err := netip.ParsePrefix(value); err != nil {
				return journal.Fatalf("Error: invalid %s %s: invalid CIDR address: %s", key, value, value)
			}
		}
	}
	for _, value := range s.Many("node-ip") {
		if _, err := netip.ParseAddr(value); err != nil {
			return journal.Fatalf("Error: invalid node-ip: invalid ip format '%s'", value)
		}
	}
	if s.Role == "etcd-snapshot" {
		return nil
	}
	if s.Text("cluster-reset-restore-path", "") != "" && !s.Bool("cluster-reset") {
		return journal.Fatalf("Error: invalid flag use; --cluster-reset required with --cluster-reset-restore-path")
	}
	for _, key := range strings.Fields(unsupported) {
		if value := s.Text(key, ""); value != "" && value != "false" {
			return journal.Fatalf("Error: --%s is not supported by the bench's stand-in for K3s", key)
		}
	}
	return nil
}
