package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"testing"
	"time"
)

const leasePath = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/lock"

func candidate(c *client, name string) *election {
	return &election{c: c, namespace: "kube-system", name: "lock", identity: name, duration: 50 * time.Millisecond}
}

func leads(t *testing.T, e *election) bool {
	t.Helper()
	won, err := e.try(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return won
}

func TestOneLeadsUntilItFallsSilent(t *testing.T) {
	fake, c := newFake(t, map[string]object{})
	first, second := candidate(c, "a"), candidate(c, "b")
	if !leads(t, first) || leads(t, second) || !leads(t, first) {
		t.Fatal("the first to ask must lead, and go on leading")
	}
	leads(t, second) // sees the renewal now
	time.Sleep(60 * time.Millisecond)
	if !leads(t, second) || leads(t, first) {
		t.Fatal("a silent leader must be replaced")
	}
	if turns := number(fake.objects[leasePath], "spec", "leaseTransitions"); turns != 1 {
		t.Errorf("one transition, not %d", turns)
	}
}

func TestAReleasedLeaseIsTakenAtOnce(t *testing.T) {
	_, c := newFake(t, map[string]object{})
	first, second := candidate(c, "a"), candidate(c, "b")
	first.duration, second.duration = time.Hour, time.Hour
	leads(t, first)
	if err := first.release(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !leads(t, second) {
		t.Fatal("nobody holds it")
	}
}

func claim(name string, annotations object) object {
	return object{
		"metadata": object{"namespace": "media", "name": name, "uid": name + "-uid", "annotations": annotations},
		"spec": object{
			"storageClassName": "local-path", "accessModes": []any{"ReadWriteOnce"},
			"resources": object{"requests": object{"storage": "5Gi"}},
		},
	}
}

func TestVolumesAreMadeForClaimsWithANode(t *testing.T) {
	fake, c := newFake(t, map[string]object{
		classesPath + "/local-path": {
			"metadata": object{"name": "local-path"}, "provisioner": "rancher.io/local-path",
			"volumeBindingMode": "WaitForFirstConsumer",
		},
		"/api/v1/namespaces/media/persistentvolumeclaims/waits": claim("waits", nil),
		"/api/v1/namespaces/media/persistentvolumeclaims/ready": claim("ready", object{selectedNode: "w1"}),
		volumesPath + "/left": {
			"metadata": object{"name": "left", "annotations": object{provisioned: "rancher.io/local-path"}},
			"spec":     object{"persistentVolumeReclaimPolicy": "Delete"}, "status": object{"phase": "Released"},
		},
		volumesPath + "/foreign": {
			"metadata": object{"name": "foreign"},
			"spec":     object{"persistentVolumeReclaimPolicy": "Delete"}, "status": object{"phase": "Released"},
		},
	})
	p := &provisioner{c, "rancher.io/local-path", localSource("/data")}
	for range 2 { // a second look changes nothing
		if err := p.once(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	volume := fake.objects[volumesPath+"/pvc-ready-uid"]
	if str(volume, "spec", "hostPath", "path") != "/data/pvc-ready-uid_media_ready" {
		t.Errorf("wrong folder: %v", volume)
	}
	if str(volume, "spec", "claimRef", "uid") != "ready-uid" || str(volume, "spec", "capacity", "storage") != "5Gi" {
		t.Errorf("not the claim's volume: %v", volume)
	}
	if fake.objects[volumesPath+"/pvc-waits-uid"] != nil {
		t.Error("a claim without a node got a volume")
	}
	if fake.objects[volumesPath+"/left"] != nil || fake.objects[volumesPath+"/foreign"] == nil {
		t.Error("only its own released volumes are to be removed")
	}
}

func TestNfsVolumesLieWhereTheClassSays(t *testing.T) {
	class := object{"parameters": object{
		"server": "10.77.0.1", "share": "/volume1/kubernetes", "subDir": "${pvc.metadata.namespace}/${pvc.metadata.name}",
	}}
	csi := nfsSource("pvc-1", claim("backup", nil), class, "")["csi"]
	if str(csi, "volumeAttributes", "subdir") != "media/backup" {
		t.Errorf("wrong folder: %v", csi)
	}
	if str(csi, "volumeHandle") != "10.77.0.1#volume1/kubernetes#media/backup#pvc-1#" {
		t.Errorf("wrong handle: %v", csi)
	}
}

func TestACertificateWaitsForItsIssuer(t *testing.T) {
	const path = "/apis/cert-manager.io/v1/namespaces/traefik/certificates/wildcard"
	const issuer = "/apis/cert-manager.io/v1/clusterissuers/letsencrypt"
	fake, c := newFake(t, map[string]object{path: {
		"metadata": object{"name": "wildcard", "namespace": "traefik", "generation": 1.0},
		"spec": object{
			"secretName": "tls", "dnsNames": []any{"example.org", "*.example.org"},
			"issuerRef": object{"kind": "ClusterIssuer", "name": "letsencrypt"},
		},
	}})
	manager := &certManager{c: c}
	look := func() {
		t.Helper()
		if err := manager.once(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if conditionAt(fake.objects[path], "Ready") != "False" {
		t.Fatal("ready without an issuer")
	}
	fake.objects[issuer] = object{"metadata": object{"name": "letsencrypt", "generation": 1.0}}
	look()
	secret := fake.objects["/api/v1/namespaces/traefik/secrets/tls"]
	if conditionAt(fake.objects[path], "Ready") != "True" || secret == nil {
		t.Fatal("not issued")
	}
	chain, _ := base64.StdEncoding.DecodeString(str(secret, "data", "tls.crt"))
	key, _ := base64.StdEncoding.DecodeString(str(secret, "data", "tls.key"))
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil || pair.Leaf.VerifyHostname("app.example.org") != nil {
		t.Fatalf("not a pair for the names: %v", err)
	}
	before := len(fake.writes)
	if look(); len(fake.writes) != before {
		t.Errorf("nothing was to be done: %v", fake.writes[before:])
	}
}

func TestPrometheusBecomesAStatefulSetAndThenAvailable(t *testing.T) {
	const path = "/apis/monitoring.coreos.com/v1/namespaces/monitoring/prometheuses/stack"
	const set = "/apis/apps/v1/namespaces/monitoring/statefulsets/prometheus-stack"
	fake, c := newFake(t, map[string]object{path: {
		"metadata": object{"name": "stack", "namespace": "monitoring", "generation": 1.0, "uid": "u"},
		"spec":     object{"storage": object{"volumeClaimTemplate": object{"spec": object{"storageClassName": "local-path"}}}},
	}})
	operator := &prometheus{c, "image:1"}
	for range 2 {
		if err := operator.once(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	made := fake.objects[set]
	if number(made, "spec", "replicas") != 1 || dig(made, "spec", "volumeClaimTemplates") == nil {
		t.Fatalf("wrong StatefulSet: %v", made)
	}
	if conditionAt(fake.objects[path], "Available") != "False" {
		t.Error("available without pods")
	}
	made["status"] = object{"availableReplicas": 1.0}
	if err := operator.once(context.Background()); err != nil {
		t.Fatal(err)
	}
	if conditionAt(fake.objects[path], "Available") != "True" {
		t.Error("not available with its pods")
	}
}
