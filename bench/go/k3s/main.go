// Program k3s is funoffshore's bench stand-in for K3s. It keeps K3s' contract where fo touches it and runs real
// servers: etcd, the Kubernetes control plane, kubelet, kube-proxy and containerd.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"funoffshore.bench/k3s/internal/agent"
	"funoffshore.bench/k3s/internal/child"
	"funoffshore.bench/k3s/internal/command"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/server"
	"funoffshore.bench/k3s/internal/settings"
)

// version is set by the linker (-X main.version=...).
var version = "v1.36.3+k3s1"

// mark begins the end of a file that is this program under another version: the bench offers a second release so.
const mark = "\nbench-k3s-version="

// labelled is the version at the end of the program's own file, else fallback.
func labelled(fallback string) string {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		return fallback
	}
	defer func() { _ = file.Close() }()
	end := make([]byte, 128)
	if size, err := file.Seek(-int64(len(end)), io.SeekEnd); err != nil || size < 0 {
		return fallback
	}
	_, _ = io.ReadFull(file, end)
	if i := bytes.LastIndex(end, []byte(mark)); i >= 0 {
		return strings.TrimSpace(string(end[i+len(mark):]))
	}
	return fallback
}

// dawdle makes every start of a server or an agent last longer by the seconds in a file beside the programs: for numbers
// about hosts that are slower than these.
func dawdle(ctx context.Context, p paths.Paths) {
	content, _ := os.ReadFile(filepath.Join(p.Bin, "k3s-start-seconds"))
	seconds, _ := strconv.ParseFloat(strings.TrimSpace(string(content)), 64)
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(seconds * float64(time.Second))):
	}
}

func main() {
	version = labelled(version)
	console := command.Console{Out: os.Stdout, Journal: journal.Stderr(), Environment: settings.Environment()}
	os.Exit(console.Journal.End(run(console, os.Args[1:])))
}

func run(console command.Console, words []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(words) == 0 {
		command.Usage()
		return nil
	}
	p := paths.FromEnvironment(console.Environment["K3S_DATA_DIR"])
	switch rest := words[1:]; words[0] {
	case "--version", "-v":
		fmt.Printf("k3s version %s (funoffshore's bench stand-in, not the real K3s)\n", version)
		fmt.Printf("go version %s\n", runtime.Version())
		return nil
	case "--help", "-h", "help":
		command.Usage()
		return nil
	case "server", "agent":
		return serve(ctx, console, words[0], rest, p)
	case "kubectl":
		_ = os.Setenv(child.KubeVersion, version)
		return command.Kubectl(p, rest)
	case "ctr":
		return command.Ctr(p, rest)
	case "token":
		return command.Tokens(ctx, console, p, rest)
	case "etcd-snapshot":
		return command.Snapshots(ctx, console, p, rest)
	case "secrets-encrypt":
		return command.Encryption(ctx, console, p, rest)
	case "certificate":
		return command.Certificates(console, p, rest)
	}
	return journal.Fatalf("Error: No help topic for '%s'", words[0])
}

func serve(ctx context.Context, console command.Console, role string, words []string, p paths.Paths) error {
	set, err := settings.Read(role, words, p.Config(), console.Environment)
	if err != nil {
		return err
	}
	p = paths.FromEnvironment(set.Text("data-dir", ""))
	syscall.Umask(0o022)
	dawdle(ctx, p)
	if role == "server" {
		made, err := server.New(set, p, console.Journal, version)
		if err != nil {
			return err
		}
		return made.Run(ctx, notify)
	}
	return runAgent(ctx, console.Journal, set, p)
}

func runAgent(ctx context.Context, j *journal.Journal, set settings.Settings, p paths.Paths) error {
	node, address, err := agent.Identity(set)
	if err != nil {
		return err
	}
	secret, err := server.Told(set, "token")
	if err != nil {
		return err
	}
	url := set.Text("server", "")
	if secret == "" {
		return journal.Fatalf("Error: --token is required")
	}
	if url == "" {
		return journal.Fatalf("Error: --server is required")
	}
	j.Info("Starting k3s agent %s", version)
	if err := agent.Unpack(p, version); err != nil {
		return err
	}
	if _, err := agent.NodePassword(p); err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	children := child.NewGroup(j)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- agent.Run(ctx, agent.Config{
			Settings: set, Paths: p, Journal: j, Children: children, Node: node, Address: address, Version: version,
			URL: url, Token: secret,
			Ready: func() { j.Info("k3s agent is up and running"); notify() },
		})
	}()
	select {
	case <-ctx.Done():
		return nil
	case err = <-children.Failed():
	case err = <-ended:
	}
	return err
}

// notify tells systemd that the unit is up (Type=notify).
func notify() {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer func() { _ = connection.Close() }()
	_, _ = connection.Write([]byte("READY=1\n"))
}
