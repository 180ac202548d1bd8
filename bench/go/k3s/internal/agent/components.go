package agent

import (
	"funoffshore.bench/k3s/internal/paths"
	"sigs.k8s.io/yaml"
)

// writeKubelet writes what the kubelet is told; flags of kubelet-arg win over it.
func (a *Agent) writeKubelet() (string, error) {
	taints, err := a.taints()
	if err != nil {
		return "", err
	}
	path := a.Paths.Agent("etc", "kubelet.conf.d", "00-k3s-defaults.conf")
	return path, write(path, map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": "0.0.0.0",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true, "cacheTTL": "2m0s"},
			"x509":      map[string]any{"clientCAFile": a.Paths.Agent("client-ca.crt")},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"cgroupDriver":             "cgroupfs",
		"clusterDNS":               a.cluster.ClusterDNSs,
		"clusterDomain":            a.cluster.ClusterDomain,
		"containerRuntimeEndpoint": "unix://" + a.Paths.Socket(),
		"evictionHard":             map[string]any{"imagefs.available": "5%", "nodefs.available": "5%"},
		"evictionMinimumReclaim":   map[string]any{"imagefs.available": "10%", "nodefs.available": "10%"},
		"failSwapOn":               false,
		"healthzBindAddress":       "127.0.0.1",
		"imageMinimumGCAge":        "10m",
		"oomScoreAdj":              0,
		"protectKernelDefaults":    a.Settings.Bool("protect-kernel-defaults"),
		"providerID":               "k3s://" + a.Node,
		"registerWithTaints":       taints,
		"resolvConf":               a.resolver(),
		"rotateCertificates":       false,
		"serializeImagePulls":      false,
		"staticPodPath":            a.Paths.Agent("pod-manifests"),
		"tlsCertFile":              a.Paths.Agent("serving-kubelet.crt"),
		"tlsPrivateKeyFile":        a.Paths.Agent("serving-kubelet.key"),
	})
}

// writeProxy writes what kube-proxy is told. Limits of connection tracking belong to the machine, not to a container
// on it, so they are left as they are.
func (a *Agent) writeProxy() (string, error) {
	path := a.Paths.Agent("etc", "kube-proxy.yaml")
	return path, write(path, map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"bindAddress":      "0.0.0.0",
		"clientConnection": map[string]any{"kubeconfig": a.Paths.Agent("kubeproxy.kubeconfig")},
		"clusterCIDR":      a.cluster.ClusterRange,
		"conntrack": map[string]any{
			"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
		},
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		"mode":               "iptables",
		"oomScoreAdj":        0,
	})
}

func write(path string, settings map[string]any) error {
	content, err := yaml.Marshal(settings)
	if err != nil {
		return err
	}
	return paths.Write(path, content, 0o600)
}
