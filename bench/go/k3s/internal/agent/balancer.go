package agent

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
)

// Balancer passes TCP connections on to the first server that answers, and cuts them when that one goes silent.
type Balancer struct {
	file  string
	url   string
	first string

	mutex   sync.Mutex
	servers []string
	dead    map[string]bool
	open    map[net.Conn]string
}

type balancerFile struct {
	ServerURL       string
	ServerAddresses []string
}

// balance opens this agent's own door to the servers, 127.0.0.1:6444.
func (a *Agent) balance(ctx context.Context) error {
	parsed, err := url.Parse(a.URL)
	if err != nil || parsed.Scheme != "https" || parsed.Host == "" {
		return journal.Fatalf("Error: only https:// URLs are supported, invalid scheme: %s", a.URL)
	}
	host := parsed.Host
	if parsed.Port() == "" {
		host += ":443"
	}
	b := &Balancer{
		file: a.Paths.Agent("etc", "k3s-agent-load-balancer.json"), url: a.URL, first: host,
		dead: map[string]bool{}, open: map[net.Conn]string{},
	}
	var kept balancerFile
	if content, err := os.ReadFile(b.file); err == nil && json.Unmarshal(content, &kept) == nil && kept.ServerURL == a.URL {
		b.servers = kept.ServerAddresses
	}
	address := "127.0.0.1:" + a.Settings.Text("lb-server-port", "6444")
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	a.Journal.Info("Running load balancer k3s-agent-load-balancer %s -> %v [default: %s]", address, b.servers, host)
	a.balancer, a.api = b, "https://"+address
	go func() { <-ctx.Done(); _ = listener.Close() }()
	go b.probe(ctx)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go b.pass(ctx, connection)
		}
	}()
	return nil
}

// order is whom to try: the known servers that answer, then the one that was configured, then the silent ones.
func (b *Balancer) order() []string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	var alive, silent []string
	for _, server := range b.servers {
		if b.dead[server] {
			silent = append(silent, server)
		} else {
			alive = append(alive, server)
		}
	}
	return slices.Compact(append(append(alive, b.first), silent...))
}

func (b *Balancer) pass(ctx context.Context, inner net.Conn) {
	defer func() { _ = inner.Close() }()
	dialer := net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}
	for _, server := range b.order() {
		outer, err := dialer.DialContext(ctx, "tcp", server)
		if err != nil {
			continue
		}
		b.join(inner, outer, server)
		return
	}
	if tcp, ok := inner.(*net.TCPConn); ok {
		// A reset, as nobody answers; not before the caller waits for an answer, so that it always says the same.
		_ = tcp.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = tcp.Read(make([]byte, 1))
		_ = tcp.SetLinger(0)
	}
}

func (b *Balancer) join(inner, outer net.Conn, server string) {
	b.mutex.Lock()
	b.open[outer] = server
	b.mutex.Unlock()
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(outer, inner); done <- struct{}{} }()
	go func() { _, _ = io.Copy(inner, outer); done <- struct{}{} }()
	<-done
	_ = inner.Close()
	_ = outer.Close()
	b.mutex.Lock()
	delete(b.open, outer)
	b.mutex.Unlock()
}

// probe looks every few seconds which servers take connections, and cuts what leads to those that do not.
func (b *Balancer) probe(ctx context.Context) {
	for {
		b.mutex.Lock()
		servers := slices.Clone(b.servers)
		b.mutex.Unlock()
		for _, server := range servers {
			connection, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", server)
			if err == nil {
				_ = connection.Close()
			}
			b.mark(server, err != nil)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
}

func (b *Balancer) mark(server string, dead bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.dead[server] = dead
	for connection, to := range b.open {
		if dead && to == server {
			_ = connection.Close()
		}
	}
}

// learn remembers the servers, on disk as well.
func (b *Balancer) learn(servers []string) error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if slices.Equal(b.servers, servers) && paths.Exists(b.file) {
		return nil
	}
	b.servers = servers
	content, err := json.Marshal(balancerFile{b.url, servers})
	if err != nil {
		return err
	}
	return paths.Write(b.file, content, 0o600)
}

// learnServers follows where API servers answer: the endpoints of the Service "kubernetes".
func (a *Agent) learnServers(ctx context.Context, api *kube.Client) {
	const slicesOfKubernetes = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices" +
		"?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes"
	api.Follow(ctx, slicesOfKubernetes, func(found []kube.Object) {
		var servers []string
		for _, slice := range found {
			for _, endpoint := range kube.Objects(slice, "endpoints") {
				for _, address := range kube.Strings(endpoint, "addresses") {
					servers = append(servers, address+":6443")
				}
			}
		}
		if len(servers) == 0 {
			return
		}
		slices.Sort(servers)
		if err := a.balancer.learn(servers); err != nil {
			a.Journal.Error("Failed to remember the servers: %v", err)
		}
	})
}
