package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"funoffshore.bench/k3s/internal/child"
	"funoffshore.bench/k3s/internal/etcd"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
	"funoffshore.bench/k3s/internal/settings"
	"funoffshore.bench/k3s/internal/token"
)

// founded is a server whose files are written and whose children are not started.
func founded(t *testing.T, flags ...settings.Flag) *Server {
	t.Helper()
	root := t.TempDir()
	flags = append([]settings.Flag{{Key: "node-name", Value: "n1"}, {Key: "node-ip", Value: "10.0.0.1"}}, flags...)
	p := paths.Paths{Root: root, Data: root + "/data"}
	s, err := New(settings.Settings{Role: "server", Flags: flags}, p, journal.New(io.Discard, time.Now), "v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.found("sesame"); err != nil {
		t.Fatal(err)
	}
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
	return s
}

// asker asks port 6443 and returns the code with the body, or with a Status' message.
func asker(t *testing.T, s *Server) func(path, user, password string) (int, string) {
	t.Helper()
	handler, err := s.handler()
	if err != nil {
		t.Fatal(err)
	}
	return func(path, user, password string) (int, string) {
		request := httptest.NewRequest(http.MethodGet, path, nil)
		if user != "" {
			request.SetBasicAuth(user, password)
		}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		var status struct{ Message string }
		body := recorder.Body.String()
		if json.Unmarshal([]byte(body), &status) == nil && status.Message != "" {
			body = status.Message
		}
		return recorder.Code, body
	}
}

func TestPort6443InOrderOfLife(t *testing.T) {
	s := founded(t, settings.Flag{Key: "agent-token", Value: "worker"})
	ask := asker(t, s)
	for _, one := range []struct {
		stage                int32
		core                 bool
		path, user, password string
		code                 int
		body                 string
	}{
		{starting, false, "/ping", "", "", 503, "starting"},
		{pinging, false, "/ping", "", "", 200, "pong"},
		{pinging, false, "/cacerts", "", "", 200, string(s.ca())},
		{pinging, false, "/readyz", "", "", 503, "apiserver not ready"},
		{pinging, false, "/v1-k3s/readyz", "node", "worker", 503, "runtime core not ready"},
		{proxying, false, "/readyz", "", "", 401, "Unauthorized"},
		{proxying, true, "/v1-k3s/readyz", "node", "worker", 200, "ok"},
		{proxying, true, "/v1-k3s/readyz", "server", "sesame", 403, "forbidden"},
		{proxying, true, "/v1-k3s/readyz", "node", "sesame", 401, "not authorized"},
		{proxying, true, "/v1-k3s/readyz", "", "", 403, "forbidden"},
		{proxying, true, "/v1-k3s/server-bootstrap", "node", "worker", 403, "forbidden"},
		{proxying, true, "/v1-k3s/server-ca.crt", "node", "worker", 200, string(s.ca())},
		{proxying, true, "/readyz", "node", "worker", 401, "Unauthorized"},
	} {
		s.stage.Store(one.stage)
		s.core.Store(one.core)
		if code, body := ask(one.path, one.user, one.password); code != one.code || body != one.body {
			t.Errorf("%d %s as %q: %d %q", one.stage, one.path, one.user, code, body)
		}
	}
	if _, body := ask("/v1-k3s/server-bootstrap", "server", "sesame"); !strings.Contains(body, "ETCDPeerCAKey") {
		t.Error("the bootstrap data has no keys")
	}
	if _, body := ask("/v1-k3s/config", "node", "worker"); !strings.Contains(body, `{"IP":"10.42.0.0","Mask":"//8AAA=="}`) {
		t.Errorf("the configuration is %s", body)
	}
}

func TestFilesAndModes(t *testing.T) {
	encrypts := settings.Flag{Key: "secrets-encryption", Value: "true"}
	s := founded(t, settings.Flag{Key: "agent-token", Value: "worker"}, encrypts)
	for path, mode := range map[string]os.FileMode{
		"": 0o700, "token": 0o600, "agent-token": 0o600, "cred": 0o700, "cred/passwd": 0o600, "tls": 0o700,
		"tls/etcd":          0o755,
		"tls/server-ca.crt": 0o644, "tls/server-ca.key": 0o600, "cred/encryption-config.json": 0o600, "manifests": 0o700,
	} {
		if info, err := os.Stat(s.paths.Server(path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	own, _ := os.ReadFile(s.paths.Server("node-token"))
	if string(own) != token.Full(s.ca(), "server", "sesame")+"\n" {
		t.Errorf("node-token is %s", own)
	}
	if info, err := os.Stat(s.paths.Kubeconfig()); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestTheServingCertificateOnlyGrows(t *testing.T) {
	s := founded(t, settings.Flag{Key: "tls-san", Value: "10.0.0.10,old.example"})
	s.set.Flags = append(s.set.Flags[:2], settings.Flag{Key: "tls-san", Value: "new.example"})
	if err := s.loadServing(); err != nil {
		t.Fatal(err)
	}
	names := pki.Names(s.keptServing().Certificate)
	for _, wanted := range []string{"n1", "10.0.0.1", "10.43.0.1", "127.0.0.1", "10.0.0.10", "old.example", "new.example"} {
		if !slices.Contains(names, wanted) {
			t.Errorf("%s is not in %v", wanted, names)
		}
	}
}

func TestBootstrapDataOpensWithItsTokenOnly(t *testing.T) {
	s := founded(t)
	sealed, err := s.remember()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unseal(sealed, "other"); !errors.Is(err, errOtherToken) {
		t.Errorf("another token says %v", err)
	}
	data, err := unseal(sealed, "sesame")
	if err != nil || string(data["ServerCA"]) != string(s.ca()) {
		t.Errorf("its own token says %v", err)
	}
}

func TestCriticalDifferencesAreNamedAsK3sDoes(t *testing.T) {
	flags := func(pairs ...string) Critical {
		set := settings.Settings{}
		for i := 0; i < len(pairs); i += 2 {
			set.Flags = append(set.Flags, settings.Flag{Key: pairs[i], Value: pairs[i+1]})
		}
		found, err := criticalOf(set)
		if err != nil {
			t.Fatal(err)
		}
		content, _ := json.Marshal(found)
		var passed Critical // through JSON, as between servers
		if err := json.Unmarshal(content, &passed); err != nil {
			t.Fatal(err)
		}
		return passed
	}
	mine := flags()
	if found := mine.differences(flags()); len(found) > 0 {
		t.Errorf("the same differ in %v", found)
	}
	found := mine.differences(flags("cluster-cidr", "10.52.0.0/16", "secrets-encryption", "true", "disable", "servicelb"))
	wanted := []string{"ClusterIPRanges.slice[0].IP.slice[13]", "disable-servicelb", "secrets-encryption"}
	if !slices.Equal(found, wanted) {
		t.Errorf("they differ in %v", found)
	}
}

func TestMembersAreRecognised(t *testing.T) {
	s := founded(t)
	s.local = etcd.Local{Name: "n1-aaaa", Address: "10.0.0.1"}
	peer := func(address string) []string { return []string{"https://" + address + ":2380"} }
	for _, one := range []struct {
		member      etcd.Member
		there, twin bool
	}{
		{etcd.Member{Name: "n2-bbbb", PeerURLs: peer("10.0.0.2")}, false, false},
		{etcd.Member{Name: "n1-bbbb", PeerURLs: peer("10.0.0.2")}, false, true},
		{etcd.Member{Name: "n1-bbbb", PeerURLs: peer("10.0.0.1")}, false, true},
		{etcd.Member{Name: "", PeerURLs: peer("10.0.0.1")}, true, false},
		{etcd.Member{Name: "n1-aaaa", PeerURLs: peer("10.0.0.1")}, true, false},
	} {
		if there, twin := s.look([]etcd.Member{one.member}); there != one.there || twin != one.twin {
			t.Errorf("%v: %v, %v", one.member, there, twin)
		}
	}
}

func TestOperatorsFlagsWin(t *testing.T) {
	found := override([]string{"--a=1", "--b=2"}, []string{"b=3", "c=4", "c=5"})
	if !slices.Equal(found, []string{"--a=1", "--b=3", "--c=4", "--c=5"}) {
		t.Error(found)
	}
}

func TestDocuments(t *testing.T) {
	found, err := Documents([]byte("# c\n---\nkind: A\n--- # more\n\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n"))
	if err != nil || len(found) != 3 || found[0]["kind"] != "A" || found[2]["kind"] != "C" {
		t.Fatalf("%v, %v", found, err)
	}
	for _, name := range packagedNames() {
		if objects, err := Documents(founded(t).brought(name)); err != nil || len(objects) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNodePasswordsProveTheirNode(t *testing.T) {
	kept := hashOf("salt", "n1", "pw")
	if !provesHash(kept, "n1", "pw") {
		t.Error("the password is not taken")
	}
	if provesHash(kept, "n1", "other") || provesHash(kept, "n2", "pw") || provesHash("", "n1", "") {
		t.Error("another is taken")
	}
}

func TestARemovedMemberIsNamedHoweverItsEtcdEnds(t *testing.T) {
	for code := range 2 {
		kids := child.NewGroup(journal.New(io.Discard, time.Now))
		s := &Server{kids: kids}
		said := `{"error":"the member has been permanently removed from the cluster"}`
		started, err := kids.Start(child.Spec{
			Name: "etcd", Argv: []string{"/bin/sh", "-c", fmt.Sprintf("echo '%s'; exit %d", said, code)},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.member.Store(started)
		if why := s.explain(<-kids.Failed()); !strings.Contains(why.Error(), "its etcd member is gone") {
			t.Errorf("exit %d: %v", code, why)
		}
	}
}
