package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

// object is any Kubernetes object.
type object = map[string]any

// client talks to the API server with the pod's service account.
type client struct {
	http  *http.Client
	bases []string
	good  atomic.Int32 // index of the base that answered last
	token string       // file
}

// refused is an answer that is not a success.
type refused struct {
	code int
	text string
}

func (r *refused) Error() string { return fmt.Sprintf("%d %s", r.code, r.text) }

// hasCode says whether the server answered with this status.
func hasCode(err error, code int) bool {
	var r *refused
	return errors.As(err, &r) && r.code == code
}

// inCluster runs what needs the API.
func inCluster(ctx context.Context, run func(context.Context, *client) error) error {
	c, err := newClient(account)
	if err != nil {
		return err
	}
	return run(ctx, c)
}

// newClient reads the service account in folder. Where the Service's address leads nowhere, as in a host's network
// before kube-proxy runs, the API server of the same host is asked.
func newClient(folder string) (*client, error) {
	pem, err := os.ReadFile(folder + "ca.crt")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	var bases []string
	if host := os.Getenv("KUBERNETES_SERVICE_HOST"); host != "" {
		bases = append(bases, "https://"+net.JoinHostPort(host, os.Getenv("KUBERNETES_SERVICE_PORT")))
	}
	dialer := net.Dialer{Timeout: 2 * time.Second}
	transport := &http.Transport{
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
		IdleConnTimeout:       30 * time.Second,
	}
	return &client{
		http:  &http.Client{Transport: transport, Timeout: 15 * time.Second},
		bases: append(bases, "https://127.0.0.1:6443"),
		token: folder + "token",
	}, nil
}

// do sends one request; a body that is nil sends none, and into may be nil.
func (c *client) do(ctx context.Context, method, path, kind string, body, into any) error {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	first := int(c.good.Load())
	var last error
	for i := range c.bases {
		at := (first + i) % len(c.bases)
		answer, err := c.send(ctx, method, c.bases[at]+path, kind, content)
		if err != nil {
			last = err
			continue
		}
		c.good.Store(int32(at))
		return read(answer, into)
	}
	return last
}

func (c *client) send(ctx context.Context, method, url, kind string, content []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(c.token)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "funoffshore-bench-standin/"+version)
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	return c.http.Do(request)
}

func read(answer *http.Response, into any) error {
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		var status object
		text := answer.Status
		if json.Unmarshal(content, &status) == nil {
			text = str(status, "message")
		}
		return &refused{answer.StatusCode, text}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(content, into)
}

func (c *client) get(ctx context.Context, path string) (object, error) {
	var found object
	err := c.do(ctx, http.MethodGet, path, "", nil, &found)
	return found, err
}

// list gives the items of a collection, perhaps a little old.
func (c *client) list(ctx context.Context, path string) ([]object, error) {
	var found struct{ Items []object }
	err := c.do(ctx, http.MethodGet, path+"?resourceVersion=0", "", nil, &found)
	return found.Items, err
}

func (c *client) create(ctx context.Context, path string, obj object) error {
	return c.do(ctx, http.MethodPost, path, "application/json", obj, nil)
}

func (c *client) update(ctx context.Context, path string, obj object) error {
	return c.do(ctx, http.MethodPut, path, "application/json", obj, nil)
}

func (c *client) merge(ctx context.Context, path string, patch object) error {
	return c.do(ctx, http.MethodPatch, path, "application/merge-patch+json", patch, nil)
}

func (c *client) remove(ctx context.Context, path string) error {
	return c.do(ctx, http.MethodDelete, path, "", nil, nil)
}

// repeat calls work until ctx ends. What it cannot do now is said once and tried again.
func repeat(ctx context.Context, every time.Duration, work func() error) {
	said := ""
	for ctx.Err() == nil {
		text := ""
		if err := work(); err != nil && ctx.Err() == nil {
			text = err.Error()
		}
		if text != said && text != "" {
			log.Print(text)
		}
		said = text
		wait(ctx, every)
	}
}

// dig gives what is at a path of keys, or nil.
func dig(from any, keys ...string) any {
	for _, key := range keys {
		inner, ok := from.(map[string]any)
		if !ok {
			return nil
		}
		from = inner[key]
	}
	return from
}

// str is dig for texts.
func str(from any, keys ...string) string {
	text, _ := dig(from, keys...).(string)
	return text
}

// number is dig for whole numbers.
func number(from any, keys ...string) int64 {
	value, _ := dig(from, keys...).(float64)
	return int64(value)
}
