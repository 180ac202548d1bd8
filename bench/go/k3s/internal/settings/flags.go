package settings

import "strings"

type kind int

const (
	text kind = iota
	boolean
	list
)

// Flags of "k3s server" and "k3s agent", by the kind of value they take (k3s --help of a v1.36 release).
const (
	commonBool = `debug disable-apiserver-lb rootless docker prefer-bundled-bin selinux protect-kernel-defaults
		with-node-id disable-default-registry-endpoint enable-pprof`
	commonList = `kubelet-arg kube-proxy-arg node-ip node-external-ip node-internal-dns node-external-dns node-label
		node-taint airgap-extra-registry`
	commonText = `config container-runtime-endpoint data-dir default-runtime flannel-conf flannel-cni-conf
		flannel-iface image-credential-provider-bin-dir image-credential-provider-config image-service-endpoint
		lb-server-port log node-name nonroot-devices pause-image private-registry resolv-conf server snapshotter
		token token-file v vmodule alsologtostderr vpn-auth vpn-auth-file bind-address`
	serverBool = `cluster-init cluster-reset disable-agent disable-apiserver disable-controller-manager disable-etcd
		disable-kube-proxy disable-network-policy disable-helm-controller disable-cloud-controller disable-scheduler
		embedded-registry etcd-disable-snapshots etcd-expose-metrics etcd-s3 etcd-s3-skip-ssl-verify
		etcd-s3-insecure etcd-snapshot-compress kine-tls
		flannel-external-ip flannel-ipv6-masq secrets-encryption supervisor-metrics tls-san-security`
	serverList = `tls-san disable etcd-arg kube-apiserver-arg kube-controller-manager-arg
		kube-cloud-controller-manager-arg kube-scheduler-arg kube-controller-arg service-cidr cluster-cidr cluster-dns`
	serverText = `advertise-address advertise-port agent-token agent-token-file cluster-domain
		cluster-reset-restore-path datastore-cafile datastore-certfile datastore-endpoint datastore-keyfile
		default-local-storage-path egress-selector-mode etcd-s3-access-key etcd-s3-bucket etcd-s3-endpoint
		etcd-s3-folder etcd-s3-region etcd-s3-secret-key etcd-s3-session-token etcd-s3-endpoint-ca
		etcd-s3-config-secret etcd-s3-proxy etcd-s3-timeout etcd-s3-retention etcd-s3-bucket-lookup-type
		etcd-snapshot-dir etcd-snapshot-name etcd-snapshot-retention etcd-snapshot-schedule-cron
		etcd-snapshot-reconcile-interval flannel-backend
		helm-job-image https-listen-port secrets-encryption-provider service-node-port-range servicelb-namespace
		system-default-registry write-kubeconfig write-kubeconfig-mode write-kubeconfig-group
		datastore-max-open-connections datastore-max-idle-connections`
	snapshotFlags = `data-dir node-name log etcd-token token etcd-server name dir
		snapshot-retention etcd-snapshot-dir etcd-snapshot-name etcd-snapshot-retention
		etcd-s3-access-key etcd-s3-bucket etcd-s3-endpoint etcd-s3-folder etcd-s3-region etcd-s3-secret-key
		etcd-s3-session-token etcd-s3-endpoint-ca etcd-s3-config-secret etcd-s3-proxy etcd-s3-timeout etcd-s3-retention
		etcd-s3-bucket-lookup-type output o config`
	snapshotBool = `debug etcd-s3 etcd-s3-skip-ssl-verify etcd-s3-insecure snapshot-compress etcd-snapshot-compress`
)

// unsupported are settings that this stand-in refuses rather than ignores.
const unsupported = `disable-apiserver disable-etcd docker rootless datastore-endpoint vpn-auth vpn-auth-file
	container-runtime-endpoint`

func kinds(role string) map[string]kind {
	found := map[string]kind{}
	add := func(names string, k kind) {
		for _, name := range strings.Fields(names) {
			found[name] = k
		}
	}
	if role == "etcd-snapshot" {
		add(snapshotFlags, text)
		add(snapshotBool, boolean)
		return found
	}
	add(commonBool, boolean)
	add(commonList, list)
	add(commonText, text)
	if role == "server" {
		add(serverBool, boolean)
		add(serverList, list)
		add(serverText, text)
	}
	return found
}

func aliases() map[string]string {
	return map[string]string{
		"t": "token", "s": "server", "c": "config", "d": "data-dir", "i": "node-ip", "l": "log",
		"etcd-token": "token", "dir": "etcd-snapshot-dir", "snapshot-retention": "etcd-snapshot-retention",
		"snapshot-compress": "etcd-snapshot-compress", "o": "output",
	}
}

// environment tells which variable stands for which flag when neither file nor command line has it.
func environment() map[string]string {
	return map[string]string{
		"K3S_TOKEN": "token", "K3S_TOKEN_FILE": "token-file", "K3S_URL": "server", "K3S_NODE_NAME": "node-name",
		"K3S_AGENT_TOKEN": "agent-token", "K3S_AGENT_TOKEN_FILE": "agent-token-file",
		"K3S_CLUSTER_INIT": "cluster-init", "K3S_KUBECONFIG_MODE": "write-kubeconfig-mode",
		"K3S_KUBECONFIG_OUTPUT": "write-kubeconfig", "K3S_DATA_DIR": "data-dir", "K3S_RESOLV_CONF": "resolv-conf",
	}
}

func secrets() map[string]bool {
	return map[string]bool{
		"token": true, "agent-token": true, "datastore-endpoint": true, "etcd-s3-access-key": true,
		"etcd-s3-secret-key": true, "vpn-auth": true, "K3S_TOKEN": true, "K3S_AGENT_TOKEN": true,
		"K3S_DATASTORE_ENDPOINT": true, "AWS_ACCESS_KEY_ID": true, "AWS_SECRET_ACCESS_KEY": true,
	}
}
