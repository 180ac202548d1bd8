// Package pki makes certificates as K3s does: ECDSA P-256, authorities for ten years, leaves for one, dated one hour
// back.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"time"

	"funoffshore.bench/k3s/internal/paths"
)

const (
	year = 365 * 24 * time.Hour
	// Soon is how long before its end a certificate is made anew.
	Soon = 120 * 24 * time.Hour
	// Regenerate is the file in server/tls that asks for another certificate on port 6443.
	Regenerate = "dynamic-cert-regenerate"
)

// Pair is a certificate and its key, PEM.
type Pair struct{ Certificate, Key []byte }

// Leaf is what a certificate shall say.
type Leaf struct {
	Name          string
	Organizations []string
	// Names are DNS names and addresses.
	Names  []string
	Server bool
	Client bool
}

// Authority makes a self-signed CA, CN "k3s-<name>@<now>".
func Authority(name string, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template := base(pkix.Name{CommonName: fmt.Sprintf("k3s-%s@%d", name, now.Unix())}, now, 10*year)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign
	template.SubjectKeyId = keyID(&key.PublicKey)
	return finish(template, template, key, key)
}

// Issue makes a key and a certificate signed by ca.
func Issue(ca Pair, leaf Leaf, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	issuer, signer, err := ca.parse()
	if err != nil {
		return Pair{}, err
	}
	return finish(leaf.template(now), issuer, key, signer)
}

// Sign answers a certificate signing request (DER): its key, but only what leaf says.
func Sign(ca Pair, request []byte, leaf Leaf, now time.Time) ([]byte, error) {
	parsed, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, err
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, err
	}
	issuer, signer, err := ca.parse()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf.template(now), issuer, parsed.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	return append(encode("CERTIFICATE", der), ca.Certificate...), nil
}

// Request makes a key (PEM) and a signing request (DER).
func Request(name string) (key, request []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	if request, err = x509.CreateCertificateRequest(rand.Reader, template, private); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(private)
	return encode("EC PRIVATE KEY", der), request, err
}

// NewKey is a private key of its own, PEM, as for service account tokens.
func NewKey() ([]byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(private)
	return encode("EC PRIVATE KEY", der), err
}

// Parse is the first certificate of a PEM file.
func Parse(certificate []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(certificate)
	if block == nil {
		return nil, errors.New("no certificate in it")
	}
	return x509.ParseCertificate(block.Bytes)
}

// Names are the DNS names and addresses that a certificate is good for; none for what is no certificate.
func Names(certificate []byte) []string {
	parsed, err := Parse(certificate)
	if err != nil {
		return nil
	}
	found := slices.Clone(parsed.DNSNames)
	for _, address := range parsed.IPAddresses {
		found = append(found, address.String())
	}
	slices.Sort(found)
	return found
}

// Good is whether the pair was signed by ca, covers names and is valid for a while yet.
func Good(pair, ca Pair, names []string, now time.Time) bool {
	own, err := Parse(pair.Certificate)
	if err != nil || len(pair.Key) == 0 {
		return false
	}
	issuer, err := Parse(ca.Certificate)
	if err != nil || own.CheckSignatureFrom(issuer) != nil || now.Add(Soon).After(own.NotAfter) {
		return false
	}
	there := Names(pair.Certificate)
	return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(there, name) })
}

// Newer is whether a certificate was made later than another; what is no certificate is older than every one.
func Newer(one, other []byte) bool {
	mine, err := Parse(one)
	if err != nil {
		return false
	}
	theirs, err := Parse(other)
	return err != nil || mine.NotBefore.After(theirs.NotBefore)
}

// Load reads path.crt and path.key; what is absent is empty.
func Load(path string) Pair {
	certificate, _ := os.ReadFile(path + ".crt")
	key, _ := os.ReadFile(path + ".key")
	return Pair{certificate, key}
}

// Store writes path.crt with mode and path.key with 0600.
func (p Pair) Store(path string, mode os.FileMode) error {
	if err := paths.Write(path+".key", p.Key, 0o600); err != nil {
		return err
	}
	return paths.Write(path+".crt", p.Certificate, mode)
}

// Ensure loads the pair at path, or makes and stores it when it is absent or no good any more.
func Ensure(path string, ca Pair, leaf Leaf, now time.Time) (Pair, error) {
	pair := Load(path)
	if Good(pair, ca, leaf.Names, now) {
		return pair, nil
	}
	pair, err := Issue(ca, leaf, now)
	if err != nil {
		return pair, err
	}
	pair.Certificate = append(pair.Certificate, ca.Certificate...)
	return pair, pair.Store(path, 0o644)
}

func (l Leaf) template(now time.Time) *x509.Certificate {
	found := base(pkix.Name{CommonName: l.Name, Organization: l.Organizations}, now, year)
	found.BasicConstraintsValid = true
	found.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	if l.Server {
		found.ExtKeyUsage = append(found.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if l.Client {
		found.ExtKeyUsage = append(found.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, name := range l.Names {
		if address := net.ParseIP(name); address != nil {
			found.IPAddresses = append(found.IPAddresses, address)
		} else {
			found.DNSNames = append(found.DNSNames, name)
		}
	}
	return found
}

func base(subject pkix.Name, now time.Time, lifetime time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	start := now.Add(-time.Hour).UTC()
	return &x509.Certificate{Subject: subject, SerialNumber: serial, NotBefore: start, NotAfter: start.Add(lifetime)}
}

func finish(template, issuer *x509.Certificate, key, signer *ecdsa.PrivateKey) (Pair, error) {
	certificate, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		return Pair{}, err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{encode("CERTIFICATE", certificate), encode("EC PRIVATE KEY", private)}, nil
}

func (p Pair) parse() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certificate, err := Parse(p.Certificate)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(p.Key)
	if block == nil {
		return nil, nil, errors.New("no key in it")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	return certificate, key, err
}

func keyID(key *ecdsa.PublicKey) []byte {
	der, _ := x509.MarshalPKIXPublicKey(key)
	sum := sha1.Sum(der)
	return sum[:]
}

func encode(what string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: what, Bytes: der})
}
