// Package client is how a joiner talks to a server's port 6443: first whom it talks to, then with a password.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"funoffshore.bench/k3s/internal/token"
)

// Bare is what K3s warns of when a token names no authority.
const Bare = "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. " +
	"Use the full token from the server's node-token file to enable Cluster CA validation."

// Door is a server whose authority was compared with the token's.
type Door struct {
	URL string
	CA  []byte
	// Bare is whether nothing in the token proved the authority.
	Bare     bool
	user     string
	password string
	http     *http.Client
}

// Refusal is an answer other than 200.
type Refusal struct {
	Code    int
	Message string
}

func (r Refusal) Error() string { return r.Message }

// Open asks base for its authority and compares it. user is server or node; a bootstrap token brings its own.
func Open(ctx context.Context, base, text, user string) (*Door, error) {
	parsed, err := url.Parse(base)
	if err != nil || parsed.Scheme != "https" {
		return nil, fmt.Errorf("only https:// URLs are supported, invalid scheme: %s", base)
	}
	told, err := token.Parse(text)
	if err != nil {
		return nil, err
	}
	base = strings.TrimRight(base, "/")
	unproven := &tls.Config{InsecureSkipVerify: true} // what comes back is compared with the token's hash
	ca, err := get(ctx, plain(unproven), base+"/cacerts")
	if err != nil {
		return nil, fmt.Errorf("failed to get CA certs: %w", err)
	}
	if hash := token.HashOf(ca); told.Hash != "" && told.Hash != hash {
		return nil, fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", told.Hash, hash)
	}
	if told.IsBootstrap() {
		user = told.User
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	door := &Door{URL: base, CA: ca, Bare: told.Hash == "", user: user, password: told.Password}
	door.http = plain(&tls.Config{RootCAs: roots})
	return door, nil
}

// Present logs in with a client certificate beside the password.
func (d *Door) Present(pair tls.Certificate) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(d.CA)
	d.http = plain(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}})
}

// Get reads path.
func (d *Door) Get(ctx context.Context, path string) ([]byte, error) {
	return d.Send(ctx, http.MethodGet, path, nil, nil)
}

// JSON reads path into answer.
func (d *Door) JSON(ctx context.Context, path string, answer any) error {
	content, err := d.Get(ctx, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, answer)
}

// Send sends body with extra headers.
func (d *Door) Send(ctx context.Context, method, path string, body []byte, head map[string]string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, d.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(d.user, d.password)
	for name, value := range head {
		request.Header.Set(name, value)
	}
	return send(d.http, request)
}

func plain(config *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	return &http.Client{Transport: transport, Timeout: 60 * time.Second}
}

func get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return send(client, request)
}

func send(client *http.Client, request *http.Request) ([]byte, error) {
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		return content, nil
	}
	var status struct{ Message string }
	if json.Unmarshal(content, &status) != nil || status.Message == "" {
		status.Message = fmt.Sprintf("%s: %s", request.URL, answer.Status)
	}
	return nil, Refusal{answer.StatusCode, status.Message}
}
