package server

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"funoffshore.bench/k3s/internal/child"
)

// startPlane runs the API server, then its controllers, and waits until it is ready.
func (s *Server) startPlane(ctx context.Context) error {
	if err := s.saveBootstrap(ctx); err != nil {
		return err
	}
	var err error
	if s.kube, err = s.admin(); err != nil {
		return err
	}
	if err := s.run("kube-apiserver", s.apiserverFlags()); err != nil {
		return err
	}
	up := func(ctx context.Context) error { return open(ctx, apiserver+":6443") }
	if err := s.waitFor(ctx, "the API server to listen", up); err != nil {
		return err
	}
	s.stage.Store(proxying)
	if err := s.waitFor(ctx, "the API server to be ready", s.kube.Ready); err != nil {
		return err
	}
	s.say.Info("Kube API server is now running")
	s.core.Store(true)
	if !s.set.Bool("disable-controller-manager") {
		if err := s.run("kube-controller-manager", s.managerFlags()); err != nil {
			return err
		}
	}
	if s.set.Bool("disable-scheduler") {
		return nil
	}
	return s.run("kube-scheduler", s.schedulerFlags())
}

// run starts one program of the multi-call binary; its *-arg settings win.
func (s *Server) run(name string, flags []string) error {
	flags = override(flags, s.set.List(name+"-arg"))
	if name == "kube-controller-manager" {
		flags = override(flags, s.set.List("kube-controller-arg"))
	}
	s.say.Info("Running %s %s", name, strings.Join(flags, " "))
	_, err := s.kids.Start(child.Spec{
		Name: name, Argv: append([]string{filepath.Join(s.paths.Bin, "kube")}, flags...), Title: name,
		Env:   []string{"GOGC=150", "GOMEMLIMIT=1600MiB", child.KubeVersion + "=" + s.version},
		Noise: child.ChatterUnless(s.set.Bool("debug")),
	})
	return err
}

// override puts the operator's "key=value" in place of the flag of that name, or behind all others.
func override(flags, extra []string) []string {
	told := map[string]bool{}
	for _, pair := range extra {
		key, _, _ := strings.Cut(strings.TrimLeft(pair, "-"), "=")
		told[key] = true
	}
	found := slices.DeleteFunc(slices.Clone(flags), func(flag string) bool {
		key, _, _ := strings.Cut(strings.TrimLeft(flag, "-"), "=")
		return told[key]
	})
	for _, pair := range extra {
		found = append(found, "--"+strings.TrimLeft(pair, "-"))
	}
	return found
}

func (s *Server) apiserverFlags() []string {
	tls := s.paths.TLS
	flags := []string{
		"--advertise-address=" + s.set.Text("advertise-address", s.address),
		"--allow-privileged=true",
		"--anonymous-auth=false",
		"--api-audiences=https://kubernetes.default.svc." + s.critical.ClusterDomain + ",k3s",
		"--authorization-mode=Node,RBAC",
		"--bind-address=" + apiserver,
		"--cert-dir=" + tls("temporary-certs"),
		"--client-ca-file=" + tls("client-ca.crt"),
		"--delete-collection-workers=1",
		"--enable-admission-plugins=NodeRestriction",
		"--enable-aggregator-routing=true",
		"--etcd-cafile=" + tls("etcd", "server-ca.crt"),
		"--etcd-certfile=" + tls("etcd", "client.crt"),
		"--etcd-keyfile=" + tls("etcd", "client.key"),
		"--etcd-servers=" + s.local.ClientURL(),
		"--kubelet-certificate-authority=" + tls("server-ca.crt"),
		"--kubelet-client-certificate=" + tls("client-kube-apiserver.crt"),
		"--kubelet-client-key=" + tls("client-kube-apiserver.key"),
		"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		"--permit-port-sharing=true",
		"--profiling=false",
		"--proxy-client-cert-file=" + tls("client-auth-proxy.crt"),
		"--proxy-client-key-file=" + tls("client-auth-proxy.key"),
		"--requestheader-allowed-names=system:auth-proxy",
		"--requestheader-client-ca-file=" + tls("request-header-ca.crt"),
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--secure-port=6443",
		"--service-account-issuer=https://kubernetes.default.svc." + s.critical.ClusterDomain,
		"--service-account-key-file=" + tls("service.key"),
		"--service-account-signing-key-file=" + tls("service.current.key"),
		"--service-cluster-ip-range=" + join(s.critical.ServiceIPRanges),
		"--service-node-port-range=" + s.critical.ServiceNodePortRange,
		"--tls-cert-file=" + tls("serving-kube-apiserver.crt"),
		"--tls-private-key-file=" + tls("serving-kube-apiserver.key"),
	}
	if s.critical.EncryptSecrets {
		flags = append(flags, "--encryption-provider-config="+s.encryptionFile(),
			"--encryption-provider-config-automatic-reload=true")
	}
	return flags
}

// leases make the leader outlast the pauses of an overloaded machine.
func leases() []string {
	return []string{
		"--leader-elect-lease-duration=30s", "--leader-elect-renew-deadline=20s", "--leader-elect-retry-period=4s",
	}
}

func (s *Server) managerFlags() []string {
	tls, config := s.paths.TLS, s.paths.Server("cred", "controller.kubeconfig")
	flags := []string{
		"--allocate-node-cidrs=true",
		"--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1",
		"--cert-dir=" + tls("temporary-certs"),
		"--cluster-cidr=" + join(s.critical.ClusterIPRanges),
		"--concurrent-deployment-syncs=2",
		"--concurrent-gc-syncs=5",
		"--configure-cloud-routes=false",
		"--controllers=*,tokencleaner",
		"--kubeconfig=" + config,
		"--profiling=false",
		"--root-ca-file=" + tls("server-ca.crt"),
		"--secure-port=10257",
		"--service-account-private-key-file=" + tls("service.current.key"),
		"--service-cluster-ip-range=" + join(s.critical.ServiceIPRanges),
		"--use-service-account-credentials=true",
	}
	for use, ca := range map[string]string{
		"kube-apiserver-client": "client-ca", "kubelet-client": "client-ca",
		"kubelet-serving": "server-ca", "legacy-unknown": "server-ca",
	} {
		flags = append(flags, "--cluster-signing-"+use+"-cert-file="+tls(ca+".crt"),
			"--cluster-signing-"+use+"-key-file="+tls(ca+".key"))
	}
	return append(flags, leases()...)
}

func (s *Server) schedulerFlags() []string {
	config := s.paths.Server("cred", "scheduler.kubeconfig")
	return append([]string{
		"--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1",
		"--cert-dir=" + s.paths.TLS("temporary-certs"),
		"--kubeconfig=" + config,
		"--profiling=false",
		"--secure-port=10259",
	}, leases()...)
}
