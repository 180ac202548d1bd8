package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/settings"
)

// server greets every connection with its name and closes it.
func server(t *testing.T, name string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(connection, name)
			_ = connection.Close()
		}
	}()
	return listener
}

func TestTheBalancerGoesOnToTheNextServer(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	one, two := server(t, "one"), server(t, "two")
	defer func() { _ = two.Close() }()
	free, _ := net.Listen("tcp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(free.Addr().String())
	_ = free.Close()
	p := paths.Paths{Data: t.TempDir()}
	a := &Agent{Config: Config{
		Settings: settings.Settings{Flags: []settings.Flag{{Key: "lb-server-port", Value: port}}},
		Paths:    p, Journal: journal.New(io.Discard, time.Now), URL: "https://" + one.Addr().String(),
	}}
	if err := a.folders(); err != nil {
		t.Fatal(err)
	}
	if err := a.balance(ctx); err != nil {
		t.Fatal(err)
	}
	if err := a.balancer.learn([]string{one.Addr().String(), two.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		connection, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = connection.Close() }()
		content, _ := io.ReadAll(connection)
		return string(content)
	}
	if found := ask(); found != "one" {
		t.Fatalf("at first it is %q", found)
	}
	_ = one.Close()
	if found := ask(); found != "two" {
		t.Fatalf("then it is %q", found)
	}
	content, _ := os.ReadFile(p.Agent("etc", "k3s-agent-load-balancer.json"))
	if !bytes.Contains(content, []byte(`"ServerAddresses":["`+one.Addr().String())) {
		t.Fatalf("the file has %s", content)
	}
}

func TestNodePasswordIsMadeOnce(t *testing.T) {
	p := paths.Paths{Root: t.TempDir()}
	first, err := NodePassword(p)
	if err != nil || len(first) != 32 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, _ := NodePassword(p); again != first {
		t.Fatalf("it is %q, then %q", first, again)
	}
	if info, _ := os.Stat(p.NodePassword()); info.Mode() != 0o600 || info.Size() != 33 {
		t.Fatalf("%v, %d bytes", info.Mode(), info.Size())
	}
}

func TestRanges(t *testing.T) {
	if found := gateway("10.42.3.0/24"); found != "10.42.3.1/24" {
		t.Error(found)
	}
	if found := prefix("10.42.0.0", []byte{255, 255, 0, 0}); found != "10.42.0.0/16" {
		t.Error(found)
	}
}

func TestKubeletIsTold(t *testing.T) {
	p := paths.Paths{Data: t.TempDir()}
	a := &Agent{Config: Config{
		Settings: settings.Settings{Flags: []settings.Flag{{Key: "node-taint", Value: "a=b:NoSchedule"}}},
		Paths:    p, Node: "n1",
	}, cluster: cluster{ClusterDNSs: []string{"10.43.0.10"}, ClusterDomain: "cluster.local"}}
	if err := a.folders(); err != nil {
		t.Fatal(err)
	}
	path, err := a.writeKubelet()
	if err != nil {
		t.Fatal(err)
	}
	content, _ := os.ReadFile(path)
	for _, wanted := range []string{"providerID: k3s://n1", "effect: NoSchedule", "cgroupDriver: cgroupfs", "- 10.43.0.10"} {
		if !strings.Contains(string(content), wanted) {
			t.Errorf("%q is missing in %s", wanted, content)
		}
	}
}
