package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"time"
)

const certificateLife = 90 * 24 * time.Hour

// certManager plays cert-manager: issuers are ready at once, and certificates are signed by themselves.
type certManager struct {
	c *client
}

func certKind(plural string) collection { return collection{"cert-manager.io", "v1", plural} }

func (m *certManager) once(ctx context.Context) error {
	const reason, words = "ACMEAccountRegistered", "The ACME account was registered with the ACME server"
	for _, plural := range []string{"clusterissuers", "issuers"} {
		if err := (verdict{certKind(plural), "Ready", reason, words}).apply(ctx, m.c); err != nil {
			return err
		}
	}
	all, err := listed(ctx, m.c, certKind("certificates"))
	if err != nil {
		return err
	}
	for _, certificate := range all {
		if conditionAt(certificate, "Ready") == "True" && m.hasSecret(ctx, certificate) {
			continue
		}
		if err := m.issue(ctx, certificate); err != nil {
			return err
		}
	}
	return nil
}

func (m *certManager) hasSecret(ctx context.Context, certificate object) bool {
	_, err := m.c.get(ctx, secretPath(certificate)+"/"+str(certificate, "spec", "secretName"))
	return !hasCode(err, 404)
}

func secretPath(certificate object) string {
	return "/api/v1/namespaces/" + str(certificate, "metadata", "namespace") + "/secrets"
}

// issue makes the Secret once the issuer is ready, and says so.
func (m *certManager) issue(ctx context.Context, certificate object) error {
	kind := certKind("certificates")
	if ready, err := m.issuerReady(ctx, certificate); err != nil {
		return err
	} else if !ready {
		words := "Issuing certificate as Secret does not exist"
		return putStatus(ctx, m.c, kind, certificate, object{"conditions": []object{
			condition(certificate, "Ready", "False", "DoesNotExist", words),
			condition(certificate, "Issuing", "True", "DoesNotExist", words),
		}})
	}
	since := time.Now().Truncate(time.Second)
	until := since.Add(certificateLife)
	chain, key, err := selfSignedFor(namesOf(certificate), since, until)
	if err != nil {
		return err
	}
	if err := m.store(ctx, certificate, chain, key); err != nil {
		return err
	}
	words := "Certificate is up to date and has not expired"
	return putStatus(ctx, m.c, kind, certificate, object{
		"conditions":  []object{condition(certificate, "Ready", "True", "Ready", words)},
		"notBefore":   since.UTC().Format(time.RFC3339),
		"notAfter":    until.UTC().Format(time.RFC3339),
		"renewalTime": until.Add(-certificateLife / 3).UTC().Format(time.RFC3339),
		"revision":    number(certificate, "status", "revision") + 1,
	})
}

func (m *certManager) issuerReady(ctx context.Context, certificate object) (bool, error) {
	kind := either(str(certificate, "spec", "issuerRef", "kind"), "Issuer")
	group := either(str(certificate, "spec", "issuerRef", "group"), "cert-manager.io")
	plurals := map[string]string{
		"Issuer": "issuers", "ClusterIssuer": "clusterissuers",
		"OriginIssuer": "originissuers", "ClusterOriginIssuer": "clusteroriginissuers",
	}
	namespace := str(certificate, "metadata", "namespace")
	if kind == "ClusterIssuer" || kind == "ClusterOriginIssuer" {
		namespace = ""
	}
	name := str(certificate, "spec", "issuerRef", "name")
	issuer, err := m.c.get(ctx, pathIn(group, "v1", namespace, plurals[kind])+"/"+name)
	if hasCode(err, 404) {
		return false, nil
	}
	return conditionAt(issuer, "Ready") == "True", err
}

func (m *certManager) store(ctx context.Context, certificate object, chain, key []byte) error {
	name := str(certificate, "spec", "secretName")
	issuer := str(certificate, "spec", "issuerRef", "name")
	secret := object{
		"apiVersion": "v1",
		"kind":       "Secret",
		"type":       "kubernetes.io/tls",
		"metadata": object{
			"name":   name,
			"labels": object{"controller.cert-manager.io/fao": "true"},
			"annotations": object{
				"cert-manager.io/certificate-name": str(certificate, "metadata", "name"),
				"cert-manager.io/issuer-name":      issuer,
			},
		},
		"data": object{
			"tls.crt": base64.StdEncoding.EncodeToString(chain),
			"tls.key": base64.StdEncoding.EncodeToString(key),
			"ca.crt":  base64.StdEncoding.EncodeToString(chain),
		},
	}
	path := secretPath(certificate)
	err := m.c.do(ctx, http.MethodPost, path, "application/json", secret, nil)
	if hasCode(err, 409) {
		return m.c.merge(ctx, path+"/"+name, object{"metadata": secret["metadata"], "data": secret["data"]})
	}
	return err
}

func namesOf(certificate object) []string {
	var names []string
	listed, _ := dig(certificate, "spec", "dnsNames").([]any)
	for _, name := range listed {
		names = append(names, fmt.Sprint(name))
	}
	if len(names) == 0 {
		names = append(names, either(str(certificate, "spec", "commonName"), str(certificate, "metadata", "name")))
	}
	return names
}

// selfSignedFor gives a certificate and its key, PEM.
func selfSignedFor(names []string, since, until time.Time) ([]byte, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "signed by nobody", Organization: []string{says}},
		DNSNames:              names,
		NotBefore:             since,
		NotAfter:              until,
		IsCA:                  true,
		BasicConstraintsValid: true,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}
