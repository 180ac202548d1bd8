// Package command is the k3s command other than its long-running halves.
package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"funoffshore.bench/k3s/internal/client"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
	"sigs.k8s.io/yaml"
)

// Console is where a command talks.
type Console struct {
	Out     io.Writer
	Journal *journal.Journal
	// Environment are this process' K3S_ variables.
	Environment map[string]string
}

// option is the value of --name in words, or fallback.
func option(words []string, name, fallback string) string {
	for i, word := range words {
		key, value, given := strings.Cut(word, "=")
		if !strings.HasPrefix(word, "-") || strings.TrimLeft(key, "-") != name {
			continue
		}
		if given {
			return value
		}
		if i+1 < len(words) {
			return words[i+1]
		}
	}
	return fallback
}

// supervisor asks the local server as a server.
func supervisor(ctx context.Context, p paths.Paths, method, path string, request, answer any) error {
	content, err := os.ReadFile(p.Server("token"))
	if err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	door, err := client.Open(ctx, "https://127.0.0.1:6443", strings.TrimSpace(string(content)), "server")
	if err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	found, err := door.Send(ctx, method, path, body, nil)
	if err != nil {
		return journal.Fatalf("Error: see server log for details: %v", err)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(found, answer)
}

// admin is the API of the local server, through its k3s.yaml.
func admin(ctx context.Context, p paths.Paths) (*kube.Client, error) {
	if _, err := os.Stat(p.Server("token")); err != nil {
		return nil, journal.Fatalf("Error: %v", err)
	}
	content, err := os.ReadFile(p.Kubeconfig())
	if err != nil {
		return nil, journal.Fatalf("Error: %v", err)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(content, &config); err != nil || len(config.Clusters) == 0 || len(config.Users) == 0 {
		return nil, journal.Fatalf("Error: %s is no kubeconfig", p.Kubeconfig())
	}
	api, err := kube.New(config.Clusters[0].Cluster.Server, config.Clusters[0].Cluster.CA,
		config.Users[0].User.Certificate, config.Users[0].User.Key)
	if err == nil {
		_, err = api.Get(ctx, "/version")
	}
	if err != nil {
		return nil, journal.Fatalf("Error: %v", err)
	}
	return api, nil
}

// Kubectl becomes kubectl, with k3s.yaml unless another kubeconfig is set.
func Kubectl(p paths.Paths, words []string) error {
	environment := os.Environ()
	if os.Getenv("KUBECONFIG") == "" {
		environment = append(environment, "KUBECONFIG="+p.Kubeconfig())
	}
	return become(filepath.Join(p.Bin, "kube"), append([]string{"kubectl"}, words...), environment)
}

// Ctr becomes ctr, on K3s' own socket.
func Ctr(p paths.Paths, words []string) error {
	argv := append([]string{"ctr", "--address", p.Socket(), "--namespace", "k8s.io"}, words...)
	return become(filepath.Join(p.Bin, "ctr"), argv, os.Environ())
}

func become(path string, argv, environment []string) error {
	if err := syscall.Exec(path, argv, environment); err != nil {
		return journal.Fatalf("Error: %s: %v", path, err)
	}
	return nil
}

// left is a time span in its biggest unit, as kubectl writes ages.
func left(span time.Duration) string {
	switch hours := int(span.Hours()); {
	case hours >= 24*365*2:
		return fmt.Sprintf("%dy", hours/(24*365))
	case hours >= 48:
		return fmt.Sprintf("%dd", hours/24)
	case hours >= 1:
		return fmt.Sprintf("%dh", hours)
	}
	return fmt.Sprintf("%dm", max(int(span.Minutes()), 0))
}

// Encryption is "k3s secrets-encrypt status".
func Encryption(ctx context.Context, console Console, p paths.Paths, words []string) error {
	if len(words) == 0 || words[0] != "status" {
		return journal.Fatalf("Error: the bench's stand-in knows only k3s secrets-encrypt status")
	}
	var status struct {
		Enable           *bool
		Stage, ActiveKey string
		HashMatch        bool
	}
	if err := supervisor(ctx, p, http.MethodGet, "/v1-k3s/encrypt/status", nil, &status); err != nil {
		return err
	}
	if status.Enable == nil {
		_, err := fmt.Fprintln(console.Out, "Encryption Status: Disabled, no configuration file found")
		return err
	}
	hashes := "All hashes match"
	if !status.HashMatch {
		hashes = "hash does not match between servers"
	}
	_, err := fmt.Fprintf(console.Out, "Encryption Status: Enabled\nCurrent Rotation Stage: %s\n"+
		"Server Encryption Hashes: %s\n\n"+
		"Active  Key Type  Name\n------  --------  ----\n *      AES-CBC   %s\n", status.Stage, hashes, status.ActiveKey)
	return err
}
