// Package server is "k3s server": etcd, the control plane and the supervisor on port 6443.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"funoffshore.bench/k3s/internal/agent"
	"funoffshore.bench/k3s/internal/child"
	"funoffshore.bench/k3s/internal/etcd"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
	"funoffshore.bench/k3s/internal/settings"
	"funoffshore.bench/k3s/internal/token"
)

// Stages of port 6443, in order of life.
const (
	starting int32 = iota
	pinging
	proxying
)

// apiserver is where the real API server listens: port 6443 like the supervisor, so that the endpoints of the Service
// "kubernetes" name a port that leads from everywhere else to the supervisor.
const apiserver = "127.0.0.2"

// Server is one server.
type Server struct {
	set     settings.Settings
	paths   paths.Paths
	say     *journal.Journal
	version string
	kids    *child.Group
	now     func() time.Time

	node, address string
	critical      Critical
	passwords     passwords
	// rotating and snapshotting let one such request work at a time.
	rotating, snapshotting sync.Mutex

	// mirrored is the key of the bootstrap data that lies beside the datastore.
	mirrored atomic.Pointer[string]
	// shown is whether the API has been told of all snapshots.
	shown   atomic.Bool
	stage   atomic.Int32
	core    atomic.Bool
	serving atomic.Pointer[tls.Certificate]
	// clients are the authorities of client certificates.
	clients *x509.CertPool

	local etcd.Local
	// member is the running etcd.
	member atomic.Pointer[child.Child]
	etcd   *etcd.Client
	kube   *kube.Client
}

// New makes a server of settings. Fails with journal.Fatal.
func New(set settings.Settings, p paths.Paths, j *journal.Journal, version string) (*Server, error) {
	s := &Server{set: set, paths: p, say: j, version: version, kids: child.NewGroup(j), now: time.Now}
	var err error
	if s.node, s.address, err = agent.Identity(set); err != nil {
		return nil, err
	}
	s.critical, err = criticalOf(set)
	return s, err
}

// Run starts everything and runs until ctx ends (nil), a child ends or something fails.
func (s *Server) Run(ctx context.Context, ready func()) error {
	for _, key := range s.set.Skipped {
		s.say.Warn("Unknown flag --%s found in config.yaml, skipping", key)
	}
	s.say.Info("Starting k3s %s", s.version)
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.live(inner, ready) }()
	var why error
	select {
	case <-ctx.Done():
	case why = <-ended:
	case why = <-s.kids.Failed():
		why = s.explain(why)
	}
	cancel()
	if s.core.Load() {
		last, done := context.WithTimeout(context.Background(), 200*time.Millisecond)
		s.mirrorOnce(last)
		done()
	}
	s.kids.Kill(300*time.Millisecond, "etcd")
	return why
}

// live is the whole of a server's life; returns only with an error, or when ctx ends.
func (s *Server) live(ctx context.Context, ready func()) error {
	if err := agent.Unpack(s.paths, s.version); err != nil {
		return err
	}
	if s.set.Bool("cluster-reset") {
		return s.reset(ctx)
	}
	founds, err := s.enter(ctx)
	if err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return journal.Fatalf("Error: preparing server: %v", err)
	}
	wasReset := paths.Exists(s.resetFlag())
	_ = os.Remove(s.resetFlag())
	if err := s.listen(ctx); err != nil {
		return err
	}
	if err := s.startEtcd(ctx, founds); err != nil {
		return err
	}
	if err := s.startPlane(ctx); err != nil {
		return err
	}
	if wasReset {
		s.forgetOwnPassword(ctx)
	}
	s.say.Info("k3s is up and running")
	ready()
	failed := make(chan error, 1)
	s.control(ctx)
	if !s.set.Bool("disable-agent") {
		go func() { failed <- s.runAgent(ctx) }()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// control begins the loops that every server runs.
func (s *Server) control(ctx context.Context) {
	go s.deploy(ctx)
	go s.followNodes(ctx)
	go s.growServing(ctx)
	go s.reportMember(ctx)
	go s.mirrorBootstrap(ctx)
	go s.followSnapshots(ctx)
	go s.scheduleSnapshots(ctx)
}

func (s *Server) runAgent(ctx context.Context) error {
	ca, err := os.ReadFile(s.paths.TLS("server-ca.crt"))
	if err != nil {
		return err
	}
	_, node := s.passwords.both()
	return agent.Run(ctx, agent.Config{
		Settings: s.set, Paths: s.paths, Journal: s.say, Children: s.kids, Node: s.node, Address: s.address,
		Version: s.version, URL: "https://127.0.0.1:6443", Token: token.Full(ca, "node", node), OnServer: true,
	})
}

// explain knows why etcd ends by itself once its member was removed; whether it does so with an error is a matter of
// luck.
func (s *Server) explain(why error) error {
	removed := func(line string) bool { return strings.Contains(line, "permanently removed from the cluster") }
	member := s.member.Load()
	if !strings.HasPrefix(why.Error(), "etcd exited: ") || member == nil || !slices.ContainsFunc(member.Tail(), removed) {
		return why
	}
	return journal.Shutdownf("this server has been removed from the cluster, its etcd member is gone")
}

// names are what the serving certificate must be good for.
func (s *Server) names() []string {
	found := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + s.critical.ClusterDomain, "localhost", "127.0.0.1", "::1",
		s.critical.firstService(), s.node, s.address,
	}
	return append(found, s.set.Many("tls-san")...)
}

func (s *Server) issue(path string, ca pki.Pair, leaf pki.Leaf) error {
	_, err := pki.Ensure(s.paths.TLS(path), ca, leaf, s.now())
	return err
}

// waitFor tries until it works; what went wrong last is said every ten seconds.
func (s *Server) waitFor(ctx context.Context, what string, try func(context.Context) error) error {
	said := s.now()
	for {
		once, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := try(once)
		cancel()
		if err == nil || isShutdown(err) {
			return err
		}
		if now := s.now(); now.Sub(said) > 10*time.Second {
			said = now
			s.say.Info("Waiting for %s: %v", what, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// open is nil once something accepts connections at address.
func open(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: time.Second}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s is not open", address)
	}
	return connection.Close()
}
