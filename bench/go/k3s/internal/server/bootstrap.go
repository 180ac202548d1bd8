package server

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/pki"
)

// authorities are the CAs, by their path below server/tls.
func authorities() []string {
	return []string{"server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca"}
}

// shared tells which files (below server/) all servers of a cluster have in common, by the names of K3s' bootstrap data.
func shared() map[string]string {
	return map[string]string{
		"ServerCA": "tls/server-ca.crt", "ServerCAKey": "tls/server-ca.key",
		"ClientCA": "tls/client-ca.crt", "ClientCAKey": "tls/client-ca.key",
		"RequestHeaderCA": "tls/request-header-ca.crt", "RequestHeaderCAKey": "tls/request-header-ca.key",
		"ETCDServerCA": "tls/etcd/server-ca.crt", "ETCDServerCAKey": "tls/etcd/server-ca.key",
		"ETCDPeerCA": "tls/etcd/peer-ca.crt", "ETCDPeerCAKey": "tls/etcd/peer-ca.key",
		"ServiceKey": "tls/service.key", "ServiceCurrentKey": "tls/service.current.key",
		"PasswdFile": "cred/passwd", "EncryptionConfig": "cred/encryption-config.json",
	}
}

// bootstrap is the data itself: contents by name.
type bootstrap map[string][]byte

// collect reads the shared files of this server.
func (s *Server) collect() (bootstrap, error) {
	found := bootstrap{}
	for name, path := range shared() {
		content, err := os.ReadFile(s.paths.Server(path))
		if errors.Is(err, os.ErrNotExist) && name == "EncryptionConfig" {
			continue
		}
		if err != nil {
			return nil, err
		}
		found[name] = content
	}
	return found, nil
}

// spread writes the shared files.
func (s *Server) spread(data bootstrap) error {
	if err := s.folders(); err != nil {
		return err
	}
	for name, path := range shared() {
		content, there := data[name]
		if !there {
			continue
		}
		mode := os.FileMode(0o600)
		if filepath.Ext(path) == ".crt" {
			mode = 0o644
		}
		if err := paths.Write(s.paths.Server(path), content, mode); err != nil {
			return err
		}
	}
	return nil
}

// invent makes the authorities and keys of a new cluster; those of an interrupted first start are kept.
func (s *Server) invent() error {
	if err := s.folders(); err != nil {
		return err
	}
	for _, name := range authorities() {
		path := s.paths.TLS(name)
		if pair := pki.Load(path); len(pair.Certificate) > 0 && len(pair.Key) > 0 {
			continue
		}
		pair, err := pki.Authority(strings.ReplaceAll(name, "/", "-"), s.now())
		if err != nil {
			return err
		}
		if err := pair.Store(path, 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"service.key", "service.current.key"} {
		if paths.Exists(s.paths.TLS(name)) {
			continue
		}
		key, err := os.ReadFile(s.paths.TLS("service.key"))
		if err != nil {
			if key, err = pki.NewKey(); err != nil {
				return err
			}
		}
		if err := paths.Write(s.paths.TLS(name), key, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// folders makes what lies below server/, with the modes of K3s.
func (s *Server) folders() error {
	for _, folder := range []struct {
		path string
		mode os.FileMode
	}{
		{"", 0o700}, {"cred", 0o700}, {"tls", 0o700}, {"tls/etcd", 0o755}, {"tls/temporary-certs", 0o700},
		{"manifests", 0o700}, {"etc", 0o755}, {"static", 0o755}, {"db", 0o700},
	} {
		if err := paths.Folder(s.paths.Server(folder.path), folder.mode); err != nil {
			return err
		}
	}
	return nil
}

var errOtherToken = errors.New("bootstrap data already found and encrypted with different token")

// bootstrapKey is where etcd keeps the bootstrap data of a token.
func bootstrapKey(password string) string {
	sum := sha256.Sum256([]byte(password))
	return bootstrapFolder + hex.EncodeToString(sum[:6])
}

// seal encrypts the bootstrap data with the token's password.
func seal(data bootstrap, password string) ([]byte, error) {
	plain, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt)
	box, err := lock(password, salt)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize())
	_, _ = rand.Read(nonce)
	return append(append(salt, nonce...), box.Seal(nil, nonce, plain, nil)...), nil
}

// unseal decrypts it again; errOtherToken when password is not the one it was sealed with.
func unseal(sealed []byte, password string) (bootstrap, error) {
	if len(sealed) < 16+12 {
		return nil, errOtherToken
	}
	box, err := lock(password, sealed[:16])
	if err != nil {
		return nil, err
	}
	plain, err := box.Open(nil, sealed[16:16+box.NonceSize()], sealed[16+box.NonceSize():], nil)
	if err != nil {
		return nil, errOtherToken
	}
	found := bootstrap{}
	return found, json.Unmarshal(plain, &found)
}

func lock(password string, salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, password, salt, 4096, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// remember keeps the sealed bootstrap data beside the datastore, where the next start finds it before etcd runs.
func (s *Server) remember() ([]byte, error) {
	data, err := s.collect()
	if err != nil {
		return nil, err
	}
	sealed, err := seal(data, s.secret())
	if err != nil {
		return nil, err
	}
	return sealed, paths.Write(s.sealed(), sealed, 0o600)
}

func (s *Server) sealed() string { return s.paths.Server("db", "bootstrap") }
