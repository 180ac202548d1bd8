package server

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
)

const servingSecret = "/api/v1/namespaces/kube-system/secrets/k3s-serving"

func (s *Server) servingFile() string { return s.paths.TLS("dynamic-cert.json") }

// loadServing takes the certificate of the last start, with what names were added since; another one with the same names
// if "k3s certificate rotate" has asked for that.
func (s *Server) loadServing() error {
	kept, names := s.keptServing(), s.names()
	if err := os.Remove(s.paths.TLS(pki.Regenerate)); err == nil {
		kept, names = pki.Pair{}, append(names, pki.Names(kept.Certificate)...)
	}
	return s.serve(kept, names)
}

// keptServing is the certificate on the disk; empty when there is none.
func (s *Server) keptServing() (kept pki.Pair) {
	if content, err := os.ReadFile(s.servingFile()); err == nil {
		_ = json.Unmarshal(content, &kept)
	}
	return kept
}

// serve uses pair if it is good for all names, else a new one for its names and these: names only ever grow.
func (s *Server) serve(pair pki.Pair, names []string) error {
	ca := pki.Load(s.paths.TLS("server-ca"))
	if !pki.Good(pair, ca, names, s.now()) {
		all := append(slices.Clone(names), pki.Names(pair.Certificate)...)
		slices.Sort(all)
		leaf := pki.Leaf{Name: "k3s", Organizations: []string{"k3s"}, Server: true, Names: slices.Compact(all)}
		var err error
		if pair, err = pki.Issue(ca, leaf, s.now()); err != nil {
			return err
		}
	}
	loaded, err := tls.X509KeyPair(append(slices.Clone(pair.Certificate), ca.Certificate...), pair.Key)
	if err != nil {
		return err
	}
	content, err := json.Marshal(pair)
	if err != nil {
		return err
	}
	s.serving.Store(&loaded)
	return paths.Write(s.servingFile(), content, 0o600)
}

// growServing shares the serving certificate with the other servers through a Secret, so that it is good for the names
// of all of them.
func (s *Server) growServing(ctx context.Context) {
	for {
		if err := s.growOnce(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, kube.Conflict()) {
			s.say.Error("Failed to share the serving certificate: %v", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(15 * time.Second):
		}
	}
}

func (s *Server) growOnce(ctx context.Context) error {
	secret, err := s.kube.Get(ctx, servingSecret)
	absent := errors.Is(err, kube.NotFound())
	if err != nil && !absent {
		return err
	}
	own := s.keptServing()
	shared := pki.Pair{Certificate: []byte(kube.Secret(secret, "tls.crt")), Key: []byte(kube.Secret(secret, "tls.key"))}
	if absent || pki.Newer(own.Certificate, shared.Certificate) {
		shared = own
	} else if string(shared.Certificate) == string(own.Certificate) {
		return nil
	}
	names := append(s.names(), pki.Names(own.Certificate)...)
	names = append(names, pki.Names([]byte(kube.Secret(secret, "tls.crt")))...)
	if err := s.serve(shared, names); err != nil {
		return err
	}
	own = s.keptServing()
	if !absent && string(own.Certificate) == kube.Secret(secret, "tls.crt") {
		return nil
	}
	data := kube.Object{
		"tls.crt": base64.StdEncoding.EncodeToString(own.Certificate),
		"tls.key": base64.StdEncoding.EncodeToString(own.Key),
	}
	if absent {
		_, err = s.kube.Create(ctx, "/api/v1/namespaces/kube-system/secrets", kube.Object{
			"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": data,
			"metadata": kube.Object{"name": "k3s-serving", "namespace": "kube-system"},
		})
		return err
	}
	secret["data"] = data
	return s.kube.Put(ctx, servingSecret, secret)
}
