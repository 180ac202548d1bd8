package server

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"funoffshore.bench/k3s/internal/pki"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// newProxy passes requests to the API server: holders of a client certificate by name in headers that only the front
// proxy's own certificate may set, bearers of tokens as they are, and nobody else.
func (s *Server) newProxy() (http.Handler, error) {
	target := &url.URL{Scheme: "https", Host: apiserver + ":6443"}
	pair := pki.Load(s.paths.TLS("client-auth-proxy"))
	front, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, err
	}
	s.clients = x509.NewCertPool()
	s.clients.AppendCertsFromPEM(pki.Load(s.paths.TLS("client-ca")).Certificate)
	named, bearing := s.reverse(target, front), s.reverse(target)
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		for name := range request.Header {
			if strings.HasPrefix(name, "X-Remote-") {
				request.Header.Del(name)
			}
		}
		if peer := s.peer(request); peer != nil {
			request.Header.Del("Authorization")
			request.Header.Set("X-Remote-User", peer.Subject.CommonName)
			for _, group := range peer.Subject.Organization {
				request.Header.Add("X-Remote-Group", group)
			}
			named.ServeHTTP(response, request)
			return
		}
		if !strings.HasPrefix(request.Header.Get("Authorization"), "Bearer ") {
			refuse(response, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
			return
		}
		bearing.ServeHTTP(response, request)
	}), nil
}

// reverse makes a proxy that answers at once (watches) and lets connections be upgraded (exec, port-forward).
func (s *Server) reverse(target *url.URL, pairs ...tls.Certificate) http.Handler {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca())
	many := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: pairs}, ForceAttemptHTTP2: true,
		IdleConnTimeout: time.Minute, DisableCompression: true,
	}
	upgrades := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: pairs, NextProtos: []string{"http/1.1"}},
		TLSNextProto:    map[string]func(string, *tls.Conn) http.RoundTripper{}, DisableCompression: true,
	}
	failed := func(response http.ResponseWriter, request *http.Request, _ error) {
		if request.Context().Err() == nil {
			refuse(response, http.StatusServiceUnavailable, "ServiceUnavailable", "apiserver not ready")
		}
	}
	make := func(transport http.RoundTripper) http.Handler {
		return &httputil.ReverseProxy{
			Rewrite:       func(passed *httputil.ProxyRequest) { passed.SetURL(target); passed.SetXForwarded() },
			FlushInterval: -1, Transport: transport, ErrorHandler: failed, ErrorLog: quiet(),
		}
	}
	plain, upgraded := make(many), make(upgrades)
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if request.Header.Get("Upgrade") != "" {
			upgraded.ServeHTTP(response, request)
			return
		}
		plain.ServeHTTP(response, request)
	})
}

// peer is the caller's certificate, if the cluster's client authority signed it; nil for everybody else.
func (s *Server) peer(request *http.Request) *x509.Certificate {
	if request.TLS == nil || len(request.TLS.PeerCertificates) == 0 {
		return nil
	}
	certificate := request.TLS.PeerCertificates[0]
	_, err := certificate.Verify(x509.VerifyOptions{
		Roots: s.clients, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil
	}
	return certificate
}
