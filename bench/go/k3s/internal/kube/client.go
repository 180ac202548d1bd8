// Package kube is a small client of the Kubernetes API: objects are plain maps, applied on the server's side.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Object is any Kubernetes object.
type Object = map[string]any

// StatusError is the API's refusal.
type StatusError struct {
	Code    int
	Reason  string
	Message string
}

func (e StatusError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return fmt.Sprintf("the API answers %d", e.Code)
}

// Is compares codes: errors.Is(err, StatusError{Code: 404}).
func (e StatusError) Is(other error) bool {
	wanted, ok := other.(StatusError)
	return ok && wanted.Code == e.Code
}

// NotFound and Conflict are refusals to compare with.
func NotFound() error { return StatusError{Code: http.StatusNotFound} }

// Conflict is the refusal of a write to an object that changed meanwhile, or that exists.
func Conflict() error { return StatusError{Code: http.StatusConflict} }

// Content types of patches.
const (
	Merge     = "application/merge-patch+json"
	Strategic = "application/strategic-merge-patch+json"
	apply     = "application/apply-patch+yaml"
)

// Client of one API server.
type Client struct {
	base  string
	http  *http.Client
	mutex sync.Mutex
	known map[string]map[string]resource
}

type resource struct {
	Name       string
	Namespaced bool
	Kind       string
}

// New logs in with a client certificate (PEM files) at base, "https://127.0.0.1:6443".
func New(base string, ca, certificate, key []byte) (*Client, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
	transport := &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
	return &Client{base: base, http: &http.Client{Transport: transport}, known: map[string]map[string]resource{}}, nil
}

// Do sends one request and decodes the answer into answer unless that is nil.
func (c *Client) Do(ctx context.Context, method, path, contentType string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	reply, err := c.open(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Close() }()
	if answer == nil {
		_, err = io.Copy(io.Discard, reply)
		return err
	}
	return json.NewDecoder(reply).Decode(answer)
}

func (c *Client) open(ctx context.Context, method, path, contentType string, body any) (io.ReadCloser, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, err
	}
	if contentType == "" {
		contentType = "application/json"
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Accept", "application/json")
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < 300 {
		return answer.Body, nil
	}
	defer func() { _ = answer.Body.Close() }()
	refusal := StatusError{}
	content2, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if json.Unmarshal(content2, &refusal) != nil {
		refusal.Message = strings.TrimSpace(string(content2))
	}
	refusal.Code = answer.StatusCode
	return nil, refusal
}

// Get reads an object.
func (c *Client) Get(ctx context.Context, path string) (Object, error) {
	found := Object{}
	return found, c.Do(ctx, http.MethodGet, path, "", nil, &found)
}

// List reads the items of a collection.
func (c *Client) List(ctx context.Context, path string) ([]Object, error) {
	found := struct{ Items []Object }{}
	return found.Items, c.Do(ctx, http.MethodGet, path, "", nil, &found)
}

// Create makes an object in the collection path.
func (c *Client) Create(ctx context.Context, path string, object Object) (Object, error) {
	made := Object{}
	return made, c.Do(ctx, http.MethodPost, path, "", object, &made)
}

// Put replaces an object.
func (c *Client) Put(ctx context.Context, path string, object Object) error {
	return c.Do(ctx, http.MethodPut, path, "", object, nil)
}

// Patch changes an object; kind is Merge or Strategic.
func (c *Client) Patch(ctx context.Context, path, kind string, patch any) error {
	return c.Do(ctx, http.MethodPatch, path, kind, patch, nil)
}

// Delete removes an object; one that is not there is no error.
func (c *Client) Delete(ctx context.Context, path string) error {
	err := c.Do(ctx, http.MethodDelete, path, "", Object{"propagationPolicy": "Background"}, nil)
	if refusal, ok := err.(StatusError); ok && refusal.Code == http.StatusNotFound {
		return nil
	}
	return err
}

// Ready asks /readyz.
func (c *Client) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := c.open(ctx, http.MethodGet, "/readyz", "", nil)
	if err == nil {
		_ = body.Close()
	}
	return err
}

// Apply makes the object as it says, as field manager.
func (c *Client) Apply(ctx context.Context, object Object, manager string) error {
	path, err := c.Path(ctx, object)
	if err != nil {
		return err
	}
	return c.Do(ctx, http.MethodPatch, path+"?force=true&fieldManager="+manager, apply, object, nil)
}

// Path is where an object lives, found by the API's own list of resources.
func (c *Client) Path(ctx context.Context, object Object) (string, error) {
	version, kind := Text(object, "apiVersion"), Text(object, "kind")
	name, namespace := Text(object, "metadata", "name"), Text(object, "metadata", "namespace")
	if version == "" || kind == "" || name == "" {
		return "", fmt.Errorf("an object without apiVersion, kind or name")
	}
	found, err := c.resource(ctx, version, kind)
	if err != nil {
		return "", err
	}
	path := root(version)
	if found.Namespaced {
		if namespace == "" {
			namespace = "default"
		}
		path += "/namespaces/" + namespace
	}
	return path + "/" + found.Name + "/" + name, nil
}

func (c *Client) resource(ctx context.Context, version, kind string) (resource, error) {
	c.mutex.Lock()
	found, ok := c.known[version][kind]
	c.mutex.Unlock()
	if ok {
		return found, nil
	}
	answer := struct{ Resources []resource }{}
	if err := c.Do(ctx, http.MethodGet, root(version), "", nil, &answer); err != nil {
		return found, fmt.Errorf("no matches for kind %q in version %q (%w)", kind, version, err)
	}
	table := map[string]resource{}
	for _, one := range answer.Resources {
		if !strings.Contains(one.Name, "/") {
			table[one.Kind] = one
		}
	}
	c.mutex.Lock()
	c.known[version] = table
	c.mutex.Unlock()
	if found, ok = table[kind]; !ok {
		return found, fmt.Errorf("no matches for kind %q in version %q", kind, version)
	}
	return found, nil
}

func root(version string) string {
	if strings.Contains(version, "/") {
		return "/apis/" + version
	}
	return "/api/" + version
}
