package server

import (
	"fmt"
	"net"
	"slices"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/settings"
)

// Critical are the settings that all servers of a cluster must share; /v1-k3s/config shows them.
type Critical struct {
	ClusterIPRange       *net.IPNet
	ClusterIPRanges      []*net.IPNet
	ServiceIPRange       *net.IPNet
	ServiceIPRanges      []*net.IPNet
	ClusterDNS           net.IP
	ClusterDNSs          []net.IP
	ClusterDomain        string
	FlannelBackend       string
	FlannelIPv6Masq      bool
	FlannelExternalIP    bool
	EgressSelectorMode   string
	DisableCCM           bool
	DisableHelmControl   bool `json:"DisableHelmController"`
	DisableNPC           bool
	DisableServiceLB     bool
	EncryptSecrets       bool
	EncryptProvider      string
	EmbeddedRegistry     bool
	SupervisorMetrics    bool
	DisableKubeProxy     bool
	ServiceNodePortRange string
}

func criticalOf(set settings.Settings) (Critical, error) {
	found := Critical{
		ClusterDomain:        set.Text("cluster-domain", "cluster.local"),
		FlannelBackend:       set.Text("flannel-backend", "vxlan"),
		FlannelIPv6Masq:      set.Bool("flannel-ipv6-masq"),
		FlannelExternalIP:    set.Bool("flannel-external-ip"),
		EgressSelectorMode:   set.Text("egress-selector-mode", "agent"),
		DisableCCM:           set.Bool("disable-cloud-controller"),
		DisableHelmControl:   set.Bool("disable-helm-controller"),
		DisableNPC:           set.Bool("disable-network-policy"),
		DisableServiceLB:     slices.Contains(set.Many("disable"), "servicelb"),
		EncryptSecrets:       set.Bool("secrets-encryption"),
		EncryptProvider:      set.Text("secrets-encryption-provider", "aescbc"),
		EmbeddedRegistry:     set.Bool("embedded-registry"),
		SupervisorMetrics:    set.Bool("supervisor-metrics"),
		DisableKubeProxy:     set.Bool("disable-kube-proxy"),
		ServiceNodePortRange: set.Text("service-node-port-range", "30000-32767"),
	}
	for _, text := range set.Many("cluster-cidr", "10.42.0.0/16") {
		_, cidr, _ := net.ParseCIDR(text)
		found.ClusterIPRanges = append(found.ClusterIPRanges, cidr)
	}
	for _, text := range set.Many("service-cidr", "10.43.0.0/16") {
		_, cidr, _ := net.ParseCIDR(text)
		found.ServiceIPRanges = append(found.ServiceIPRanges, cidr)
	}
	found.ClusterIPRange, found.ServiceIPRange = found.ClusterIPRanges[0], found.ServiceIPRanges[0]
	for _, text := range set.Many("cluster-dns", nth(found.ServiceIPRange, 10).String()) {
		address := net.ParseIP(text)
		if address == nil {
			return found, journal.Fatalf("Error: invalid cluster-dns address %s", text)
		}
		found.ClusterDNSs = append(found.ClusterDNSs, address)
	}
	found.ClusterDNS = found.ClusterDNSs[0]
	return found, nil
}

// differences names what is not as theirs, as K3s does: settings by their flag, ranges by a field.
func (c Critical) differences(theirs Critical) []string {
	var found []string
	add := func(name string, differs bool) {
		if differs {
			found = append(found, name)
		}
	}
	add(byteOf("ClusterIPRanges", c.ClusterIPRanges, theirs.ClusterIPRanges))
	add(byteOf("ServiceIPRanges", c.ServiceIPRanges, theirs.ServiceIPRanges))
	add("cluster-dns", !c.ClusterDNS.Equal(theirs.ClusterDNS))
	add("cluster-domain", c.ClusterDomain != theirs.ClusterDomain)
	add("flannel-backend", c.FlannelBackend != theirs.FlannelBackend)
	add("flannel-ipv6-masq", c.FlannelIPv6Masq != theirs.FlannelIPv6Masq)
	add("flannel-external-ip", c.FlannelExternalIP != theirs.FlannelExternalIP)
	add("egress-selector-mode", c.EgressSelectorMode != theirs.EgressSelectorMode)
	add("disable-cloud-controller", c.DisableCCM != theirs.DisableCCM)
	add("disable-helm-controller", c.DisableHelmControl != theirs.DisableHelmControl)
	add("disable-network-policy", c.DisableNPC != theirs.DisableNPC)
	add("disable-servicelb", c.DisableServiceLB != theirs.DisableServiceLB)
	add("secrets-encryption", c.EncryptSecrets != theirs.EncryptSecrets)
	add("secrets-encryption-provider", c.EncryptProvider != theirs.EncryptProvider)
	add("embedded-registry", c.EmbeddedRegistry != theirs.EmbeddedRegistry)
	add("supervisor-metrics", c.SupervisorMetrics != theirs.SupervisorMetrics)
	return found
}

// byteOf names the first differing byte of an address in its 16-byte form: ClusterIPRanges.slice[0].IP.slice[13].
func byteOf(field string, mine, theirs []*net.IPNet) (string, bool) {
	for i, cidr := range mine {
		if i >= len(theirs) || cidr.Mask.String() != theirs[i].Mask.String() {
			return fmt.Sprintf("%s.slice[%d].Mask", field, i), true
		}
		own, other := cidr.IP.To16(), theirs[i].IP.To16()
		for j := range own {
			if own[j] != other[j] {
				return fmt.Sprintf("%s.slice[%d].IP.slice[%d]", field, i, j), true
			}
		}
	}
	return field, len(mine) != len(theirs)
}

func (c Critical) firstService() string { return nth(c.ServiceIPRange, 1).String() }

// nth is the n-th address of a range.
func nth(cidr *net.IPNet, n byte) net.IP {
	address := slices.Clone(cidr.IP)
	address[len(address)-1] += n
	return address
}

func join(ranges []*net.IPNet) string {
	text := ""
	for i, one := range ranges {
		if i > 0 {
			text += ","
		}
		text += one.String()
	}
	return text
}
