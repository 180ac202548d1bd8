package server

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"funoffshore.bench/k3s/internal/kube"
)

const (
	nodeFinalizer = "wrangler.cattle.io/node"
	etcdFinalizer = "wrangler.cattle.io/managed-etcd-controller"
	etcdRole      = "node-role.kubernetes.io/etcd"
)

// again is when what failed is tried anew: etcd refuses to change its members for seconds after one of them came back.
const again = 2 * time.Second

// followNodes is the part of a server that watches Nodes and Services.
func (s *Server) followNodes(ctx context.Context) {
	var mutex sync.Mutex
	var nodes, services []kube.Object
	owned, failed := map[string]bool{}, map[string]bool{}
	attend := func(all bool) {
		for _, node := range nodes {
			if uid := kube.Text(node, "metadata", "uid"); all || failed[uid] {
				failed[uid] = !s.attend(ctx, node, owned)
			}
		}
	}
	go func() {
		for tick := time.Tick(again); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick:
			}
			mutex.Lock()
			attend(false)
			mutex.Unlock()
		}
	}()
	go s.kube.Follow(ctx, "/api/v1/services", func(found []kube.Object) {
		mutex.Lock()
		defer mutex.Unlock()
		services = found
		s.balance(ctx, services, nodes)
	})
	s.kube.Follow(ctx, "/api/v1/nodes", func(found []kube.Object) {
		mutex.Lock()
		defer mutex.Unlock()
		nodes = found
		attend(true)
		s.balance(ctx, services, nodes)
	})
}

// attend does for one Node what is missing, and says whether that worked. owned remembers the Nodes (by UID) whose
// password secret is theirs.
func (s *Server) attend(ctx context.Context, node kube.Object, owned map[string]bool) bool {
	name := kube.Text(node, "metadata", "name")
	var err error
	switch {
	case kube.Text(node, "metadata", "deletionTimestamp") != "":
		err = s.forget(ctx, node)
	case name == s.node:
		err = s.describe(ctx, node)
	default:
		err = s.hold(ctx, node)
	}
	if uid := kube.Text(node, "metadata", "uid"); err == nil && !owned[uid] {
		if err = s.adopt(ctx, name, uid); err == nil {
			owned[uid] = true
		}
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, kube.Conflict()) {
		s.say.Error("Failed to attend to node %s: %v", name, err)
	}
	return err == nil
}

// describe writes the labels and annotations of this server's own Node.
func (s *Server) describe(ctx context.Context, node kube.Object) error {
	labels := map[string]string{"node-role.kubernetes.io/control-plane": "true", etcdRole: "true"}
	annotations := map[string]string{
		"etcd.k3s.cattle.io/node-name": s.local.Name, "etcd.k3s.cattle.io/node-address": s.address,
	}
	if hash := s.encryptionHash(); hash != "" {
		annotations[hashAnnotation] = hash
	}
	same := true
	for key, value := range labels {
		same = same && kube.Text(node, "metadata", "labels", key) == value
	}
	for key, value := range annotations {
		same = same && kube.Text(node, "metadata", "annotations", key) == value
	}
	if !same {
		patch := kube.Object{"metadata": kube.Object{"labels": labels, "annotations": annotations}}
		if err := s.kube.Patch(ctx, "/api/v1/nodes/"+s.node, kube.Merge, patch); err != nil {
			return err
		}
	}
	return s.hold(ctx, node)
}

// hold puts the finalizers on a Node without which its traces would stay behind.
func (s *Server) hold(ctx context.Context, node kube.Object) error {
	finalizers := kube.Strings(node, "metadata", "finalizers")
	wanted := slices.Clone(finalizers)
	if !slices.Contains(wanted, nodeFinalizer) {
		wanted = append(wanted, nodeFinalizer)
	}
	member := kube.Text(node, "metadata", "annotations", "etcd.k3s.cattle.io/node-name") != ""
	if member && !slices.Contains(wanted, etcdFinalizer) {
		wanted = append(wanted, etcdFinalizer)
	}
	if len(wanted) == len(finalizers) {
		return nil
	}
	return s.setFinalizers(ctx, node, wanted)
}

func (s *Server) setFinalizers(ctx context.Context, node kube.Object, wanted []string) error {
	metadata := kube.Object{"finalizers": wanted, "resourceVersion": kube.Text(node, "metadata", "resourceVersion")}
	path := "/api/v1/nodes/" + kube.Text(node, "metadata", "name")
	return s.kube.Patch(ctx, path, kube.Merge, kube.Object{"metadata": metadata})
}

// adopt makes the Node the owner of its password secret, so that both go together.
func (s *Server) adopt(ctx context.Context, name, uid string) error {
	path := "/api/v1/namespaces/kube-system/secrets/" + name + ".node-password.k3s"
	secret, err := s.kube.Get(ctx, path)
	if errors.Is(err, kube.NotFound()) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, owner := range kube.Objects(secret, "metadata", "ownerReferences") {
		if kube.Text(owner, "uid") == uid {
			return nil
		}
	}
	owner := kube.Object{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
	patch := kube.Object{"metadata": kube.Object{"ownerReferences": []any{owner}}}
	return s.kube.Patch(ctx, path, kube.Merge, patch)
}

// forget takes back what a deleted Node had: its etcd member and its password. A server leaves its own Node to the
// others, as it cannot take itself out of the cluster and live.
func (s *Server) forget(ctx context.Context, node kube.Object) error {
	name := kube.Text(node, "metadata", "name")
	finalizers := kube.Strings(node, "metadata", "finalizers")
	kept := slices.DeleteFunc(slices.Clone(finalizers), func(one string) bool {
		return one == nodeFinalizer || one == etcdFinalizer
	})
	if len(kept) == len(finalizers) {
		return nil
	}
	// Another server may have done this long ago, and a new node of that name may be here already.
	there, err := s.kube.Get(ctx, "/api/v1/nodes/"+name)
	if errors.Is(err, kube.NotFound()) {
		return nil
	}
	if err != nil {
		return err
	}
	if kube.Text(there, "metadata", "uid") != kube.Text(node, "metadata", "uid") {
		return nil
	}
	if slices.Contains(finalizers, etcdFinalizer) {
		members, err := s.etcd.Members(ctx)
		if err != nil || name == s.node && len(members) > 1 {
			return err
		}
		named := kube.Text(node, "metadata", "annotations", "etcd.k3s.cattle.io/node-name")
		address := kube.Text(node, "metadata", "annotations", "etcd.k3s.cattle.io/node-address")
		if err := s.expel(ctx, name, named, address); err != nil {
			return err
		}
	}
	if err := s.kube.Delete(ctx, "/api/v1/namespaces/kube-system/secrets/"+name+".node-password.k3s"); err != nil {
		return err
	}
	return s.setFinalizers(ctx, node, kept)
}

// balance gives every Service of type LoadBalancer the addresses of the Ready nodes; kube-proxy does the rest.
func (s *Server) balance(ctx context.Context, services, nodes []kube.Object) {
	if s.critical.DisableServiceLB {
		return
	}
	var addresses []string
	for _, node := range nodes {
		if address := kube.Address(node); address != "" && kube.Condition(node, "Ready") == "True" {
			addresses = append(addresses, address)
		}
	}
	slices.Sort(addresses)
	for _, service := range services {
		if kube.Text(service, "spec", "type") != "LoadBalancer" || kube.Text(service, "spec", "loadBalancerClass") != "" {
			continue
		}
		var there []string
		for _, ingress := range kube.Objects(service, "status", "loadBalancer", "ingress") {
			there = append(there, kube.Text(ingress, "ip"))
		}
		if slices.Equal(there, addresses) {
			continue
		}
		ingress := []any{}
		for _, address := range addresses {
			ingress = append(ingress, kube.Object{"ip": address, "ipMode": "VIP"})
		}
		path := "/api/v1/namespaces/" + kube.Text(service, "metadata", "namespace") + "/services/" +
			kube.Text(service, "metadata", "name") + "/status"
		patch := kube.Object{"status": kube.Object{"loadBalancer": kube.Object{"ingress": ingress}}}
		if err := s.kube.Patch(ctx, path, kube.Merge, patch); err != nil && ctx.Err() == nil {
			s.say.Error("Failed to give %s its addresses: %v", path, err)
		}
	}
}
