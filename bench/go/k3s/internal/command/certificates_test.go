package command

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
)

const day = 24 * time.Hour

// host has a server's folder with certificates of three ages.
func host(t *testing.T) paths.Paths {
	t.Helper()
	p := paths.Paths{Data: t.TempDir()}
	for _, folder := range []string{p.TLS("etcd"), p.Agent()} {
		if err := paths.Folder(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	ca, err := pki.Authority("client-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Store(p.TLS("client-ca"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, made := range map[string]time.Time{
		p.TLS("client-admin"): now, p.TLS("client-scheduler"): now.Add(-300 * day), p.Agent("client-kubelet"): now.Add(-400 * day),
	} {
		pair, err := pki.Issue(ca, pki.Leaf{Name: filepath.Base(path), Client: true}, made)
		if err != nil {
			t.Fatal(err)
		}
		if err := pair.Store(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func run(t *testing.T, p paths.Paths, words ...string) (out, said string, err error) {
	t.Helper()
	var first, second bytes.Buffer
	err = Certificates(Console{Out: &first, Journal: journal.New(&second, time.Now)}, p, words)
	return first.String(), second.String(), err
}

func TestCertificatesThatEndSoonAreWarnedOf(t *testing.T) {
	p := host(t)
	_, said, err := run(t, p, "check")
	if err != nil {
		t.Fatal(err)
	}
	for _, wanted := range []string{
		`level=info msg="client-admin.crt: certificate client-admin (ClientAuth) is ok, expires at `,
		`level=warning msg="client-scheduler.crt: certificate client-scheduler (ClientAuth) will expire within 120 days at `,
		`level=error msg="client-kubelet.crt: certificate client-kubelet (ClientAuth) expired at `,
	} {
		if !strings.Contains(said, wanted) {
			t.Errorf("%s is missing in %s", wanted, said)
		}
	}
	out, _, err := run(t, p, "check", "--output", "json")
	var info struct{ Certificates []Certificate }
	if err != nil || json.Unmarshal([]byte(out), &info) != nil {
		t.Fatalf("%s, %v", out, err)
	}
	found := map[string]string{}
	for _, one := range info.Certificates {
		found[one.Filename] = one.Status
	}
	if len(found) != 3 || found["client-admin.crt"] != "OK" || found["client-scheduler.crt"] != "WARNING" ||
		found["client-kubelet.crt"] != "EXPIRED" {
		t.Fatalf("they are %v", found)
	}
}

func TestRotationKeepsACopyAndTheAuthorities(t *testing.T) {
	p := host(t)
	before, _ := os.ReadFile(p.TLS("client-admin.crt"))
	_, said, err := run(t, p, "rotate", "--service", "admin", "--service=kubelet")
	if err != nil {
		t.Fatal(err)
	}
	asides, _ := filepath.Glob(p.Server("tls-*"))
	if len(asides) != 1 || !strings.Contains(said, "Successfully backed up certificates to "+asides[0]+", please restart") {
		t.Fatalf("%v, %s", asides, said)
	}
	if kept, _ := os.ReadFile(filepath.Join(asides[0], "client-admin.crt")); !bytes.Equal(kept, before) {
		t.Error("the copy is another")
	}
	for path, wanted := range map[string]bool{
		p.TLS("client-admin.key"): false, p.Agent("client-kubelet.crt"): false, p.TLS("client-ca.key"): true,
		p.TLS("client-scheduler.crt"): true, filepath.Join(asides[0], "client-kubelet.key"): true,
		p.TLS(pki.Regenerate): false,
	} {
		if paths.Exists(path) != wanted {
			t.Errorf("%s exists: %v", path, !wanted)
		}
	}
}

func TestPartsThatK3sDoesNotHaveAreRefused(t *testing.T) {
	for _, words := range [][]string{{"check", "--service", "no-such"}, {"frobnicate"}, {}, {"check", "-o", "xml"}} {
		if _, _, err := run(t, host(t), words...); err == nil {
			t.Errorf("%v is taken", words)
		}
	}
}
