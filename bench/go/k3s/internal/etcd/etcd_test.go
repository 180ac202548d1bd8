package etcd

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"funoffshore.bench/k3s/internal/paths"
)

func TestMembersKnowTheirNode(t *testing.T) {
	member := Member{Name: "node-1-0a1b2c3d", PeerURLs: []string{"https://10.0.0.1:2380"}}
	if member.Node() != "node-1" || !member.At("10.0.0.1") || member.At("10.0.0.2") {
		t.Fatalf("%q", member.Node())
	}
}

func TestALocalMemberKeepsItsNameAndCluster(t *testing.T) {
	p := paths.Paths{Data: t.TempDir()}
	first, err := Open(p, "n1", "10.0.0.1", []string{"quota-backend-bytes=1024"})
	if err != nil {
		t.Fatal(err)
	}
	cluster := []string{"n0-0000=https://10.0.0.9:2380", first.Peer()}
	path, err := first.Write(cluster, false, false)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Open(p, "n1", "10.0.0.1", nil)
	if again.Name != first.Name || !slices.Equal(again.Cluster(), cluster) {
		t.Fatalf("%s, %v", again.Name, again.Cluster())
	}
	if found := Clients(cluster, first.Name); !slices.Equal(found, []string{"https://10.0.0.9:2379"}) {
		t.Fatalf("%v", found)
	}
	content, _ := os.ReadFile(path)
	if !strings.Contains(string(content), "quota-backend-bytes: 1024") {
		t.Fatal("etcd-arg is missing")
	}
}

// gateway answers like etcd's: one blob per line.
func gateway(blobs ...[]byte) http.HandlerFunc {
	return func(response http.ResponseWriter, _ *http.Request) {
		for _, blob := range blobs {
			line := map[string]any{"result": map[string]any{"blob": base64.StdEncoding.EncodeToString(blob)}}
			_ = json.NewEncoder(response).Encode(line)
		}
	}
}

func TestSnapshotsAreWholeOrNotThere(t *testing.T) {
	store := make([]byte, 1024)
	sum := sha256.Sum256(store)
	path := filepath.Join(t.TempDir(), "snapshot")
	for name, blobs := range map[string][][]byte{"broken": {store, make([]byte, 32)}, "cut": {store}} {
		server := httptest.NewServer(gateway(blobs...))
		err := NewClient(&tls.Config{}, server.URL).Snapshot(context.Background(), path)
		server.Close()
		if err == nil || paths.Exists(path) || paths.Exists(path+".part") {
			t.Fatalf("%s: %v", name, err)
		}
	}
	server := httptest.NewServer(gateway(store[:600], store[600:], sum[:]))
	defer server.Close()
	if err := NewClient(&tls.Config{}, server.URL).Snapshot(context.Background(), path); err != nil || !paths.Exists(path) {
		t.Fatal(err)
	}
}

func TestTheNextEndpointIsAskedAndRefusalsAreRead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		response.WriteHeader(http.StatusBadRequest)
		_, _ = response.Write([]byte(`{"code":9,"message":"etcdserver: too many learner members in cluster"}`))
	}))
	defer server.Close()
	_, err := NewClient(&tls.Config{}, "http://127.0.0.1:1", server.URL).AddLearner(context.Background(), "https://x:2380")
	if err == nil || err.Error() != "etcdserver: too many learner members in cluster" {
		t.Fatalf("it says %v", err)
	}
}
