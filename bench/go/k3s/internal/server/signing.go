package server

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"funoffshore.bench/k3s/internal/agent"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/pki"
	"funoffshore.bench/k3s/internal/token"
)

// errRejected is the answer to a node whose name belongs to another password.
var errRejected = errors.New("Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' " +
	"may not match server node-passwd entry, try enabling a unique node name with the --with-node-id flag")

// signKubelet signs a kubelet's serving or client certificate for whoever knows the node's password.
func (s *Server) signKubelet(response http.ResponseWriter, request *http.Request) {
	name, password := request.Header.Get(agent.HeaderName), request.Header.Get(agent.HeaderPassword)
	if name == "" || password == "" {
		refuse(response, http.StatusBadRequest, "BadRequest", "node name and password are required")
		return
	}
	if s.forgotten(request, name) {
		refuse(response, http.StatusForbidden, "Forbidden", agent.Unauthorized)
		return
	}
	if err := s.provePassword(request.Context(), name, password); err != nil {
		code := http.StatusForbidden
		if !errors.Is(err, errRejected) {
			code = http.StatusInternalServerError
		}
		refuse(response, code, "Forbidden", fmt.Sprintf("https://%s%s: %v", request.Host, request.URL.Path, err))
		return
	}
	if strings.HasSuffix(request.URL.Path, "/client-kubelet.crt") {
		leaf := pki.Leaf{Name: "system:node:" + name, Organizations: []string{"system:nodes"}, Client: true}
		s.sign(response, request, "client-ca", leaf)
		return
	}
	names := []string{name, "localhost", "127.0.0.1"}
	if addresses := request.Header.Get(agent.HeaderAddress); addresses != "" {
		names = append(names, strings.Split(addresses, ",")...)
	}
	s.sign(response, request, "server-ca", pki.Leaf{Name: name, Server: true, Names: names})
}

// signClient signs the certificates that are the same on all nodes.
func (s *Server) signClient(response http.ResponseWriter, request *http.Request) {
	name := "system:kube-proxy"
	if strings.Contains(request.URL.Path, "k3s-controller") {
		name = "system:k3s-controller"
	}
	s.sign(response, request, "client-ca", pki.Leaf{Name: name, Client: true})
}

func (s *Server) sign(response http.ResponseWriter, request *http.Request, ca string, leaf pki.Leaf) {
	asked, err := io.ReadAll(io.LimitReader(request.Body, 64<<10))
	if err == nil {
		var certificate []byte
		if certificate, err = pki.Sign(pki.Load(s.paths.TLS(ca)), asked, leaf, s.now()); err == nil {
			answerText(response, certificate)
			return
		}
	}
	refuse(response, http.StatusBadRequest, "BadRequest", err.Error())
}

// forgotten is whether a kubelet shows the certificate of a Node that does not exist (any more).
func (s *Server) forgotten(request *http.Request, name string) bool {
	peer := s.peer(request)
	if peer == nil || peer.Subject.CommonName != "system:node:"+name {
		return false
	}
	_, err := s.kube.Get(request.Context(), "/api/v1/nodes/"+name)
	return errors.Is(err, kube.NotFound())
}

// provePassword compares password with the one that name first came with; keeps it when name is new.
func (s *Server) provePassword(ctx context.Context, name, password string) error {
	const folder = "/api/v1/namespaces/kube-system/secrets"
	secret, err := s.kube.Get(ctx, folder+"/"+name+".node-password.k3s")
	if err == nil {
		if provesHash(kube.Secret(secret, "hash"), name, password) {
			return nil
		}
		return errRejected
	}
	if !errors.Is(err, kube.NotFound()) {
		return err
	}
	hash := base64.StdEncoding.EncodeToString([]byte(hashOf(token.Hex(8), name, password)))
	_, err = s.kube.Create(ctx, folder, kube.Object{
		"apiVersion": "v1", "kind": "Secret", "type": "k3s.cattle.io/node-password", "immutable": true,
		"metadata": kube.Object{"name": name + ".node-password.k3s", "namespace": "kube-system"},
		"data":     kube.Object{"hash": hash},
	})
	if errors.Is(err, kube.Conflict()) {
		return s.provePassword(ctx, name, password)
	}
	return err
}

// hashOf is salt:hash.
func hashOf(salt, name, password string) string {
	key, err := pbkdf2.Key(sha256.New, name+":"+password, []byte(salt), 4096, 32)
	if err != nil {
		return ""
	}
	return salt + ":" + hex.EncodeToString(key)
}

func provesHash(kept, name, password string) bool {
	salt, _, _ := strings.Cut(kept, ":")
	return kept != "" && subtle.ConstantTimeCompare([]byte(kept), []byte(hashOf(salt, name, password))) == 1
}
