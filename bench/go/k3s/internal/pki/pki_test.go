package pki

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"
)

func TestLeavesAreGoodForTheirNamesOnly(t *testing.T) {
	now := time.Now()
	ca, err := Authority("server-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	leaf := Leaf{Name: "k3s", Server: true, Names: []string{"node1", "10.0.0.1"}}
	pair, err := Issue(ca, leaf, now)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(Names(pair.Certificate), []string{"10.0.0.1", "node1"}) {
		t.Fatalf("names are %v", Names(pair.Certificate))
	}
	other, _ := Authority("server-ca", now)
	switch {
	case !Good(pair, ca, []string{"node1"}, now):
		t.Error("it is no good for its own name")
	case Good(pair, ca, []string{"node2"}, now):
		t.Error("it is good for another name")
	case Good(pair, other, nil, now):
		t.Error("it is good for another authority")
	case Good(pair, ca, nil, now.Add(300*24*time.Hour)):
		t.Error("it is good shortly before its end")
	}
}

func TestSigningTakesTheKeyAndNothingElse(t *testing.T) {
	now := time.Now()
	ca, _ := Authority("client-ca", now)
	_, request, err := Request("system:masters")
	if err != nil {
		t.Fatal(err)
	}
	leaf := Leaf{Name: "system:node:n1", Organizations: []string{"system:nodes"}, Client: true}
	signed, err := Sign(ca, request, leaf, now)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := Parse(signed)
	if err != nil || certificate.Subject.String() != "CN=system:node:n1,O=system:nodes" {
		t.Fatalf("%v, %v", certificate.Subject, err)
	}
	if !slices.Equal(certificate.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Fatalf("usages are %v", certificate.ExtKeyUsage)
	}
}

func TestEnsureKeepsWhatIsGood(t *testing.T) {
	now, path := time.Now(), t.TempDir()+"/leaf"
	ca, _ := Authority("server-ca", now)
	first, err := Ensure(path, ca, Leaf{Name: "a", Names: []string{"x"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Ensure(path, ca, Leaf{Name: "a", Names: []string{"x"}}, now)
	grown, _ := Ensure(path, ca, Leaf{Name: "a", Names: []string{"x", "y"}}, now)
	if string(first.Certificate) != string(again.Certificate) || string(first.Certificate) == string(grown.Certificate) {
		t.Fatal("kept or renewed wrongly")
	}
}
