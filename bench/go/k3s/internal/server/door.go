package server

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/kube"
)

const soReusePort = 15 // SO_REUSEPORT of Linux, which package syscall does not name

// listen opens port 6443 beside the API server's own, which has another address.
func (s *Server) listen(ctx context.Context) error {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failure error
		err := raw.Control(func(handle uintptr) {
			failure = syscall.SetsockoptInt(int(handle), syscall.SOL_SOCKET, soReusePort, 1)
		})
		return errors.Join(err, failure)
	}}
	listener, err := config.Listen(ctx, "tcp", s.set.Text("bind-address", "")+":"+s.set.Text("https-listen-port", "6443"))
	if err != nil {
		return journal.Fatalf("Error: starting tls server: %v", err)
	}
	handler, err := s.handler()
	if err != nil {
		return err
	}
	web := &http.Server{
		Handler: handler, ReadHeaderTimeout: 30 * time.Second, ErrorLog: quiet(),
		TLSConfig: &tls.Config{
			ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.serving.Load(), nil },
		},
	}
	go func() { _ = web.ServeTLS(listener, "", "") }()
	go func() { <-ctx.Done(); _ = web.Close() }()
	return nil
}

// handler answers everything on port 6443, according to the stage of the server's life.
func (s *Server) handler() (http.Handler, error) {
	proxy, err := s.newProxy()
	if err != nil {
		return nil, err
	}
	supervisor := s.supervisor()
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		path := request.URL.Path
		switch stage := s.stage.Load(); {
		case stage == starting:
			refuse(response, http.StatusServiceUnavailable, "ServiceUnavailable", "starting")
		case path == "/ping":
			answerText(response, []byte("pong"))
		case path == "/cacerts":
			answerText(response, s.ca())
		case path == "/static" || strings.HasPrefix(path, "/static/"):
			response.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = response.Write([]byte("<pre>\n</pre>\n"))
		case strings.HasPrefix(path, "/v1-k3s/") || strings.HasPrefix(path, "/db/"):
			supervisor.ServeHTTP(response, request)
		case stage == pinging:
			refuse(response, http.StatusServiceUnavailable, "ServiceUnavailable", "apiserver not ready")
		default:
			proxy.ServeHTTP(response, request)
		}
	}), nil
}

// route is a path of the supervisor: who may ask, and whether that has to wait for the API server.
type route struct {
	role   string
	early  bool
	answer http.HandlerFunc
}

func (s *Server) supervisor() http.Handler {
	routes := map[string]route{
		"/v1-k3s/readyz":                    {"node", false, s.ready},
		"/v1-k3s/config":                    {"node", true, s.config},
		"/v1-k3s/apiservers":                {"node", false, s.apiservers},
		"/v1-k3s/server-ca.crt":             {"node", true, s.file("server-ca.crt")},
		"/v1-k3s/client-ca.crt":             {"node", true, s.file("client-ca.crt")},
		"/v1-k3s/serving-kubelet.crt":       {"node", false, s.signKubelet},
		"/v1-k3s/client-kubelet.crt":        {"node", false, s.signKubelet},
		"/v1-k3s/client-kube-proxy.crt":     {"node", false, s.signClient},
		"/v1-k3s/client-k3s-controller.crt": {"node", false, s.signClient},
		"/v1-k3s/server-bootstrap":          {"server", false, s.bootstrapData},
		"/v1-k3s/token":                     {"server", false, s.tokenRequest},
		"/v1-k3s/encrypt/status":            {"server", false, s.encryptionStatus},
		"/db/info":                          {"server", false, s.dbInfo},
		"/db/snapshot":                      {"server", false, s.snapshotRequest},
	}
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		role := s.role(request)
		if role == "" {
			refuse(response, http.StatusUnauthorized, "Unauthorized", "not authorized")
			return
		}
		found, known := routes[request.URL.Path]
		switch {
		case !known && (role == "node" || role == "server"):
			refuse(response, http.StatusNotFound, "NotFound", "404 page not found")
		case !known || found.role != role:
			refuse(response, http.StatusForbidden, "Forbidden", "forbidden")
		case !found.early && !s.core.Load():
			refuse(response, http.StatusServiceUnavailable, "ServiceUnavailable", "runtime core not ready")
		default:
			found.answer(response, request)
		}
	})
}

// role is node, server, anonymous, cert (another client certificate), or empty for a wrong password.
func (s *Server) role(request *http.Request) string {
	user, password, given := request.BasicAuth()
	if bearer, ok := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer "); ok && !given {
		user, password, _ = strings.Cut(bearer, ".")
		given = true
	}
	if !given {
		if s.peer(request) != nil {
			return "cert"
		}
		if request.Header.Get("Authorization") != "" {
			return ""
		}
		return "anonymous"
	}
	server, node := s.passwords.both()
	same := func(secret string) bool { return subtle.ConstantTimeCompare([]byte(password), []byte(secret)) == 1 }
	switch {
	case user == "server" && same(server):
		return "server"
	case user == "node" && same(node):
		return "node"
	case user == "server" || user == "node":
		return ""
	case len(user) == 6 && s.core.Load() && s.bootstrapToken(request.Context(), user, password):
		return "node"
	}
	return ""
}

// bootstrapToken is whether password belongs to a living token of "k3s token create".
func (s *Server) bootstrapToken(ctx context.Context, id, password string) bool {
	secret, err := s.kube.Get(ctx, "/api/v1/namespaces/kube-system/secrets/bootstrap-token-"+id)
	if err != nil {
		return false
	}
	if until := kube.Secret(secret, "expiration"); until != "" {
		if end, err := time.Parse(time.RFC3339, until); err != nil || end.Before(s.now()) {
			return false
		}
	}
	return subtle.ConstantTimeCompare([]byte(kube.Secret(secret, "token-secret")), []byte(password)) == 1
}

func (s *Server) ready(response http.ResponseWriter, _ *http.Request) {
	answerText(response, []byte("ok"))
}

func (s *Server) config(response http.ResponseWriter, _ *http.Request) {
	answerJSON(response, s.critical)
}

func (s *Server) file(name string) http.HandlerFunc {
	return func(response http.ResponseWriter, _ *http.Request) {
		content, err := os.ReadFile(s.paths.TLS(name))
		if err != nil {
			refuse(response, http.StatusInternalServerError, "InternalError", err.Error())
			return
		}
		answerText(response, content)
	}
}

// bootstrapData hands out all keys of the cluster: to servers only.
func (s *Server) bootstrapData(response http.ResponseWriter, _ *http.Request) {
	data, err := s.collect()
	if err != nil {
		refuse(response, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	answerJSON(response, data)
}

// apiservers lists where API servers answer: the endpoints of the Service "kubernetes".
func (s *Server) apiservers(response http.ResponseWriter, request *http.Request) {
	slice, err := s.kube.Get(request.Context(), "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
	if err != nil {
		refuse(response, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	found := []string{}
	for _, endpoint := range kube.Objects(slice, "endpoints") {
		for _, address := range kube.Strings(endpoint, "addresses") {
			found = append(found, address+":6443")
		}
	}
	answerJSON(response, found)
}

func answerText(response http.ResponseWriter, content []byte) {
	response.Header().Set("Content-Type", "text/plain")
	_, _ = response.Write(content)
}

func answerJSON(response http.ResponseWriter, value any) {
	response.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(response).Encode(value)
}

// refuse answers with a metav1.Status.
func refuse(response http.ResponseWriter, code int, reason, message string) {
	response.Header().Set("Content-Type", "application/json")
	response.WriteHeader(code)
	_ = json.NewEncoder(response).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure",
		"message": message, "reason": reason, "code": code,
	})
}
