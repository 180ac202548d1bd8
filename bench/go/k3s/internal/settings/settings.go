// Package settings folds config.yaml, its drop-ins, the command line and the environment into one list of flags.
//
// Rules, recorded from a real run: later files replace a key, "key+" appends, the command line comes last; an unknown
// key of a file is skipped by a server and kills an agent; an unknown flag on the command line kills both.
package settings

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"os"
	"slices"
	"strings"
)

// Flag is one value of one flag.
type Flag struct{ Key, Value string }

// Settings are the flags of one process, in the order in which they were unfolded.
type Settings struct {
	// Role is server, agent or etcd-snapshot.
	Role  string
	Flags []Flag
	// Skipped holds unknown keys of config.yaml, once per value, for which a server only warns.
	Skipped []string
	// Words are arguments that are no flags (of etcd-snapshot only).
	Words []string
	// Environment holds the variables that begin with K3S_.
	Environment map[string]string
}

// Text is the last value of key, else what the environment says, else fallback.
func (s Settings) Text(key, fallback string) string {
	for _, flag := range slices.Backward(s.Flags) {
		if flag.Key == key {
			return flag.Value
		}
	}
	for name, stands := range environment() {
		if value := s.Environment[name]; stands == key && value != "" {
			return value
		}
	}
	return fallback
}

// Bool is whether key is switched on.
func (s Settings) Bool(key string) bool {
	switch strings.ToLower(s.Text(key, "")) {
	case "true", "1", "t":
		return true
	}
	return false
}

// List is every value of key, as it was given.
func (s Settings) List(key string) []string {
	var found []string
	for _, flag := range s.Flags {
		if flag.Key == key && flag.Value != "" {
			found = append(found, flag.Value)
		}
	}
	return found
}

// Many is every value of key with commas split.
func (s Settings) Many(key string, fallback ...string) []string {
	var found []string
	for _, value := range s.List(key) {
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				found = append(found, part)
			}
		}
	}
	if found == nil {
		return fallback
	}
	return found
}

// Arguments are as the annotation k3s.io/node-args shows them: ["server", "--cluster-init", "true", ...].
func (s Settings) Arguments(masked bool) []string {
	hidden := secrets()
	words := []string{s.Role}
	for _, flag := range s.Flags {
		value := flag.Value
		if masked && hidden[flag.Key] {
			value = "********"
		}
		words = append(words, "--"+flag.Key, value)
	}
	return words
}

// Variables are as the annotation k3s.io/node-env shows them.
func (s Settings) Variables(masked bool) map[string]string {
	hidden := secrets()
	found := map[string]string{}
	for name, value := range s.Environment {
		if masked && hidden[name] {
			value = "********"
		}
		found[name] = value
	}
	return found
}

// Hash is the annotation k3s.io/node-config-hash: it changes with any argument.
func (s Settings) Hash() string {
	arguments, _ := json.Marshal(s.Arguments(false))
	variables, _ := json.Marshal(s.Variables(false))
	sum := sha256.Sum256(append(arguments, variables...))
	return base32.StdEncoding.EncodeToString(sum[:])
}

// Environment of this process, reduced to K3s' own variables.
func Environment() map[string]string {
	found := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "K3S_") && !strings.HasPrefix(name, "K3S_BENCH_") {
			found[name] = value
		}
	}
	return found
}
