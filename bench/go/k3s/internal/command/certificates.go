package command

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
	"sigs.k8s.io/yaml"
)

// listener is the service whose certificate port 6443 shows; it is kept in another way than the others.
const listener = "k3s-server"

// service is what "k3s certificate" calls a part of K3s: its certificates without their ends (.crt and .key).
type service struct {
	name    string
	onAgent bool
	files   []string
}

func services(p paths.Paths) []service {
	return []service{
		{"api-server", false, []string{p.TLS("client-kube-apiserver"), p.TLS("serving-kube-apiserver")}},
		{"admin", false, []string{p.TLS("client-admin")}},
		{"auth-proxy", false, []string{p.TLS("client-auth-proxy")}},
		{"cloud-controller", false, []string{p.TLS("client-k3s-cloud-controller")}},
		{"controller-manager", false, []string{p.TLS("client-controller")}},
		{"etcd", false, []string{
			p.TLS("etcd", "client"), p.TLS("etcd", "server-client"), p.TLS("etcd", "peer-server-client"),
		}},
		{"scheduler", false, []string{p.TLS("client-scheduler")}},
		{"supervisor", false, []string{p.TLS("client-supervisor")}},
		{listener, false, nil},
		{"kube-proxy", true, []string{p.TLS("client-kube-proxy"), p.Agent("client-kube-proxy")}},
		{"kubelet", true, []string{
			p.TLS("client-kubelet"), p.TLS("serving-kubelet"), p.Agent("client-kubelet"), p.Agent("serving-kubelet"),
		}},
		{"k3s-controller", true, []string{p.TLS("client-k3s-controller"), p.Agent("client-k3s-controller")}},
	}
}

// Certificates is "k3s certificate check|rotate".
func Certificates(console Console, p paths.Paths, words []string) error {
	if len(words) == 0 {
		return journal.Fatalf("Error: k3s certificate check|rotate")
	}
	verbs := map[string]string{"check": "checking", "rotate": "rotating"}
	if verbs[words[0]] == "" {
		return journal.Fatalf("Error: the bench's stand-in knows only k3s certificate check|rotate")
	}
	chosen, err := choose(console, p, words, verbs[words[0]])
	if err != nil {
		return err
	}
	if words[0] == "check" {
		return check(console, chosen, option(words, "output", option(words, "o", "text")))
	}
	return rotate(console, p, chosen)
}

// choose is the named services (--service, again and again or with commas), or all that this node has.
func choose(console Console, p paths.Paths, words []string, doing string) ([]service, error) {
	var names []string
	for i := range words {
		if named := option(words[i:min(i+2, len(words))], "service", ""); named != "" && strings.HasPrefix(words[i], "-") {
			names = append(names, strings.Split(named, ",")...)
		}
	}
	all := services(p)
	var found []service
	for _, name := range names {
		i := slices.IndexFunc(all, func(one service) bool { return one.name == name })
		if i < 0 {
			return nil, journal.Fatalf("Error: service %s is not recognized", name)
		}
		found = append(found, all[i])
	}
	switch {
	case len(names) > 0:
		return found, nil
	case !paths.Exists(p.Server()):
		console.Journal.Info("Agent detected, %s agent certificates", doing)
		return slices.DeleteFunc(all, func(one service) bool { return !one.onAgent }), nil
	}
	console.Journal.Info("Server detected, %s agent and server certificates", doing)
	return all, nil
}

// Certificate is one line of "k3s certificate check".
type Certificate struct {
	Filename     string
	Subject      string
	Issuer       string
	Usages       []string
	ExpiryTime   time.Time
	ResidualTime time.Duration
	Status       string
}

func check(console Console, chosen []service, format string) error {
	var found []Certificate
	now := time.Now()
	for _, one := range chosen {
		for _, path := range one.files {
			content, _ := os.ReadFile(path + ".crt")
			for _, certificate := range parseAll(content) {
				found = append(found, describe(filepath.Base(path)+".crt", certificate, now))
			}
		}
	}
	info := map[string][]Certificate{"Certificates": found}
	switch format {
	case "text":
		for _, one := range found {
			tell(console.Journal, one)
		}
		return nil
	case "table":
		return showCertificates(console, found)
	case "json":
		return json.NewEncoder(console.Out).Encode(info)
	case "yaml":
		content, err := yaml.Marshal(info)
		if err == nil {
			_, err = console.Out.Write(content)
		}
		return err
	}
	return journal.Fatalf("Error: invalid output format %s", format)
}

func describe(file string, certificate *x509.Certificate, now time.Time) Certificate {
	found := Certificate{
		Filename: file, Subject: certificate.Subject.CommonName, Issuer: certificate.Issuer.CommonName,
		Usages: usages(certificate), ExpiryTime: certificate.NotAfter.UTC(), ResidualTime: certificate.NotAfter.Sub(now),
		Status: "OK",
	}
	switch {
	case now.Before(certificate.NotBefore):
		found.Status, found.ExpiryTime = "NOT YET VALID", certificate.NotBefore.UTC()
	case now.After(certificate.NotAfter):
		found.Status = "EXPIRED"
	case now.Add(pki.Soon).After(certificate.NotAfter):
		found.Status = "WARNING"
	}
	return found
}

func tell(j *journal.Journal, one Certificate) {
	until, uses := one.ExpiryTime.Format(time.RFC3339), strings.Join(one.Usages, ",")
	switch one.Status {
	case "NOT YET VALID":
		j.Error("%s: certificate %s (%s) is not valid before %s", one.Filename, one.Subject, uses, until)
	case "EXPIRED":
		j.Error("%s: certificate %s (%s) expired at %s", one.Filename, one.Subject, uses, until)
	case "WARNING":
		days := int(pki.Soon / (24 * time.Hour))
		j.Warn("%s: certificate %s (%s) will expire within %d days at %s", one.Filename, one.Subject, uses, days, until)
	default:
		j.Info("%s: certificate %s (%s) is ok, expires at %s", one.Filename, one.Subject, uses, until)
	}
}

func showCertificates(console Console, found []Certificate) error {
	table := tabwriter.NewWriter(console.Out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "\nFILENAME\tSUBJECT\tUSAGES\tEXPIRES\tRESIDUAL TIME\tSTATUS")
	_, _ = fmt.Fprintln(table, "--------\t-------\t------\t-------\t-------------\t------")
	for _, one := range found {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", one.Filename, one.Subject, strings.Join(one.Usages, ","),
			one.ExpiryTime.Format("Jan 02, 2006 15:04 MST"), left(one.ResidualTime), one.Status)
	}
	return table.Flush()
}

// rotate removes the certificates, so that the next start makes new ones, and keeps a copy of them.
func rotate(console Console, p paths.Paths, chosen []service) error {
	name := fmt.Sprintf("tls-%d", time.Now().Unix())
	aside := p.Agent(name)
	if paths.Exists(p.TLS()) {
		aside = p.Server(name)
		if err := paths.CopyFolder(p.TLS(), aside); err != nil {
			return journal.Fatalf("Error: %v", err)
		}
	} else if err := paths.Folder(aside, 0o700); err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	for _, one := range chosen {
		if one.name == listener {
			if err := paths.Write(p.TLS(pki.Regenerate), nil, 0o600); err != nil {
				return journal.Fatalf("Error: %v", err)
			}
			console.Journal.Info("Rotating dynamic listener certificate")
			continue
		}
		console.Journal.Info("Rotating certificates for %s", one.name)
		for _, path := range one.files {
			if err := putAside(p, path, aside); err != nil {
				return journal.Fatalf("Error: %v", err)
			}
		}
	}
	console.Journal.Info("Successfully backed up certificates to %s, please restart k3s server or agent to rotate certificates",
		aside)
	return nil
}

// putAside removes a certificate and its key; the copy of server/tls has those of a server already.
func putAside(p paths.Paths, path, aside string) error {
	for _, end := range []string{".crt", ".key"} {
		content, err := os.ReadFile(path + end)
		if err != nil {
			continue
		}
		if strings.HasPrefix(path, p.Agent()) {
			if err := paths.Write(filepath.Join(aside, filepath.Base(path)+end), content, 0o600); err != nil {
				return err
			}
		}
		if err := os.Remove(path + end); err != nil {
			return err
		}
	}
	return nil
}

func parseAll(content []byte) []*x509.Certificate {
	var found []*x509.Certificate
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return found
		}
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = append(found, certificate)
		}
	}
}

func usages(certificate *x509.Certificate) []string {
	var found []string
	if certificate.IsCA {
		found = append(found, "CertSign")
	}
	for _, usage := range certificate.ExtKeyUsage {
		switch usage {
		case x509.ExtKeyUsageClientAuth:
			found = append(found, "ClientAuth")
		case x509.ExtKeyUsageServerAuth:
			found = append(found, "ServerAuth")
		}
	}
	return found
}
