package server

import (
	"net/http"

	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
)

const hashAnnotation = "k3s.io/encryption-config-hash"

// EncryptionStatus is the answer to "k3s secrets-encrypt status"; Enable is nil without a configuration file.
type EncryptionStatus struct {
	Enable    *bool
	Stage     string
	HashMatch bool
	ActiveKey string
}

// encryptionStatus answers "k3s secrets-encrypt status". Like K3s it looks at Nodes, and fails without its own.
func (s *Server) encryptionStatus(response http.ResponseWriter, request *http.Request) {
	if !paths.Exists(s.encryptionFile()) || !s.critical.EncryptSecrets {
		answerJSON(response, EncryptionStatus{})
		return
	}
	nodes, err := s.kube.List(request.Context(), "/api/v1/nodes")
	if err == nil {
		_, err = s.kube.Get(request.Context(), "/api/v1/nodes/"+s.node)
	}
	if err != nil {
		s.say.Error("secret-encrypt error ID 53568: %v", err)
		refuse(response, http.StatusInternalServerError, "InternalError",
			"Internal error occurred: secret-encrypt error ID 53568")
		return
	}
	enabled, same := true, true
	for _, node := range nodes {
		if hash := kube.Text(node, "metadata", "annotations", hashAnnotation); hash != "" {
			same = same && hash == s.encryptionHash()
		}
	}
	answerJSON(response, EncryptionStatus{Enable: &enabled, Stage: "start", HashMatch: same, ActiveKey: "aescbckey"})
}
