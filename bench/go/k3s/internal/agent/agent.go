// Package agent is "k3s agent", and the half of a server that carries pods: containerd, kubelet, kube-proxy, routes.
package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"time"

	"funoffshore.bench/k3s/internal/child"
	"funoffshore.bench/k3s/internal/client"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
	"funoffshore.bench/k3s/internal/settings"
)

// Headers by which a node says who it is, and the answer to one that the cluster has forgotten.
const (
	HeaderName     = "K3s-Node-Name"
	HeaderPassword = "K3s-Node-Password"
	HeaderAddress  = "K3s-Node-Ip"
	Unauthorized   = "Node authorization rejected"
)

const waiting = "Waiting to retrieve agent configuration; server is not ready: "

// Config is what an agent is told.
type Config struct {
	Settings settings.Settings
	Paths    paths.Paths
	Journal  *journal.Journal
	Children *child.Group
	Node     string
	Address  string
	// Version is the release that this program says it is.
	Version string
	// URL is the server's, Token lets in there.
	URL, Token string
	// OnServer is whether it is part of a server, which needs no balancer.
	OnServer bool
	// Ready is called once the kubelet is up; may be nil.
	Ready func()
}

// cluster is what a server tells its nodes.
type cluster struct {
	ClusterRange   string
	ClusterDNSs    []string
	ClusterDomain  string
	FlannelBackend string
	DisableProxy   bool
}

// Agent is one running agent.
type Agent struct {
	Config
	// api is where kubelet and kube-proxy find an API server.
	api      string
	balancer *Balancer
	cluster  cluster
	// connected is whether this process has set up the pod network: rules do not outlive a reboot.
	connected bool
}

// Run gets in and runs everything until ctx ends (nil) or something cannot go on. It never gives up to get in.
func Run(ctx context.Context, config Config) error {
	a := &Agent{Config: config, api: config.URL}
	if err := a.folders(); err != nil {
		return err
	}
	if !a.OnServer {
		if err := a.balance(ctx); err != nil {
			return err
		}
	}
	if err := a.getIn(ctx); err != nil {
		return ended(ctx, err)
	}
	if err := a.writeKubeconfigs(); err != nil {
		return err
	}
	api, err := a.controller()
	if err != nil {
		return err
	}
	if !a.OnServer {
		go a.learnServers(ctx, api)
	}
	if err := a.startContainerd(ctx); err != nil {
		return ended(ctx, err)
	}
	go a.followNodes(ctx, api)
	if err := a.startKubelet(ctx); err != nil {
		return ended(ctx, err)
	}
	if !a.cluster.DisableProxy {
		if err := a.startProxy(); err != nil {
			return err
		}
	}
	if a.Ready != nil {
		a.Ready()
	}
	<-ctx.Done()
	return nil
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// getIn asks for configuration and certificates until it gets them.
func (a *Agent) getIn(ctx context.Context) error {
	for {
		pause := a.try(ctx)
		if pause == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// try says how long to wait before the next try; 0 means that it is in.
func (a *Agent) try(ctx context.Context) time.Duration {
	door, err := client.Open(ctx, a.api, a.Token, "node")
	if err != nil {
		if !a.OnServer {
			a.Journal.Error("Failed to validate connection to cluster at %s: %v", a.URL, err)
		}
		return 2 * time.Second
	}
	if door.Bare {
		a.Journal.Warn("%s", client.Bare)
	}
	if err := a.askCluster(ctx, door); err != nil {
		a.Journal.Info(waiting+"failed to retrieve configuration from server: %v", err)
		return patience(err)
	}
	_, err = a.registries()
	var password string
	if err == nil {
		password, err = NodePassword(a.Paths)
	}
	if err == nil {
		err = a.fetch(ctx, door, password)
	}
	if err != nil {
		a.Journal.Info(waiting+"%v", err)
		return patience(err)
	}
	return 0
}

// patience is short with servers that are not ready yet, long with those that refuse.
func patience(err error) time.Duration {
	var refusal client.Refusal
	if errors.As(err, &refusal) && refusal.Code == http.StatusServiceUnavailable {
		return time.Second
	}
	return 5 * time.Second
}

func (a *Agent) askCluster(ctx context.Context, door *client.Door) error {
	var told struct {
		ClusterIPRange struct {
			IP   string
			Mask []byte
		}
		ClusterDNSs      []string
		ClusterDomain    string
		FlannelBackend   string
		DisableKubeProxy bool
	}
	if err := door.JSON(ctx, "/v1-k3s/config", &told); err != nil {
		return err
	}
	a.cluster = cluster{
		ClusterRange: prefix(told.ClusterIPRange.IP, told.ClusterIPRange.Mask), ClusterDNSs: told.ClusterDNSs,
		ClusterDomain: told.ClusterDomain, FlannelBackend: told.FlannelBackend, DisableProxy: told.DisableKubeProxy,
	}
	return nil
}

// fetch gets this node's certificates. An agent that was in before shows its old one, and a server that knows no Node
// of that name (any more) refuses it then, for ever: recorded from a real K3s.
func (a *Agent) fetch(ctx context.Context, door *client.Door, password string) error {
	old := pki.Load(a.Paths.Agent("client-kubelet"))
	if pair, err := tls.X509KeyPair(old.Certificate, old.Key); err == nil && !a.OnServer {
		door.Present(pair)
	}
	for _, name := range []string{"serving-kubelet", "client-kubelet", "client-kube-proxy", "client-k3s-controller"} {
		key, request, err := pki.Request(name)
		if err != nil {
			return err
		}
		path := "/v1-k3s/" + name + ".crt"
		certificate, err := door.Send(ctx, http.MethodPost, path, request, map[string]string{
			HeaderName: a.Node, HeaderPassword: password, HeaderAddress: a.Address,
		})
		var refusal client.Refusal
		if errors.As(err, &refusal) && refusal.Message == Unauthorized {
			a.Journal.Info("%s, retrying without client certificate authentication", Unauthorized)
			return errors.New(door.URL + path + ": http: ContentLength=188 with Body length 0")
		}
		if err != nil {
			return err
		}
		if err := (pki.Pair{Certificate: certificate, Key: key}).Store(a.Paths.Agent(name), 0o600); err != nil {
			return err
		}
	}
	for _, name := range []string{"server-ca.crt", "client-ca.crt"} {
		content, err := door.Get(ctx, "/v1-k3s/"+name)
		if err != nil {
			return err
		}
		if err := paths.Write(a.Paths.Agent(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// folders makes what lies below agent/, with the modes of K3s.
func (a *Agent) folders() error {
	for _, folder := range []struct {
		path string
		mode os.FileMode
	}{
		{"", 0o700}, {"etc", 0o755}, {"etc/containerd", 0o755}, {"etc/kubelet.conf.d", 0o755}, {"etc/cni", 0o755},
		{"etc/cni/net.d", 0o755}, {"images", 0o755}, {"pod-manifests", 0o750}, {"containerd", 0o711},
	} {
		if err := paths.Folder(a.Paths.Agent(folder.path), folder.mode); err != nil {
			return err
		}
	}
	return nil
}
