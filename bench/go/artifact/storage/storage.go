// Package storage keeps artifacts as files: <base>/<kind>/<namespace>/<name>/<file>.
package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/opencontainers/go-digest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/artifact/config"
)

const (
	scheme     = "http://"
	lockSuffix = ".lock"
	dirMode    = 0o750
)

// Storage is the folder of all artifacts and the rules for it.
type Storage struct {
	// BasePath is the folder; nothing outside of it is touched.
	BasePath string
	// Hostname is the host, or host:port, in URLs.
	Hostname string
	// ArtifactRetentionTTL is the age from which an artifact goes that is not the current one.
	ArtifactRetentionTTL time.Duration
	// ArtifactRetentionRecords is how many artifacts of one object may stay.
	ArtifactRetentionRecords int
}

// New takes the folder, which must exist, and the rules from the flags.
func New(options *config.Options) (*Storage, error) {
	switch info, err := os.Stat(options.StoragePath); {
	case err != nil:
		return nil, fmt.Errorf("storage path: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("storage path '%s' is not a folder", options.StoragePath)
	}
	host := options.StorageAdvAddress
	if host == "" {
		var err error
		if host, err = ownAddress(options.StorageAddress); err != nil {
			return nil, err
		}
	}
	return &Storage{
		BasePath:                 options.StoragePath,
		Hostname:                 host,
		ArtifactRetentionTTL:     options.ArtifactRetentionTTL,
		ArtifactRetentionRecords: options.ArtifactRetentionRecords,
	}, nil
}

// ownAddress fills in the host's name where the server listens on every address.
func ownAddress(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("storage address: %w", err)
	}
	if address := net.ParseIP(host); host == "" || address.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("storage address: %w", err)
		}
	}
	return net.JoinHostPort(host, port), nil
}

// NewArtifactFor is the artifact that a file of this object would be. Nothing is written.
func (s *Storage) NewArtifactFor(kind string, object metav1.Object, revision, fileName string) meta.Artifact {
	artifact := meta.Artifact{
		Path:     path.Join(strings.ToLower(kind), object.GetNamespace(), object.GetName(), fileName),
		Revision: revision,
	}
	s.SetArtifactURL(&artifact)
	return artifact
}

// SetArtifactURL gives the artifact the URL that it has on this host.
func (s *Storage) SetArtifactURL(artifact *meta.Artifact) {
	if artifact.Path == "" {
		return
	}
	base := s.Hostname
	if !strings.HasPrefix(base, scheme) {
		base = scheme + base
	}
	artifact.URL = base + "/" + strings.TrimLeft(artifact.Path, "/")
}

// SetHostname is the URL with this storage's host in it; an address that is none comes back as it was.
func (s *Storage) SetHostname(address string) string {
	parsed, err := url.Parse(address)
	if address == "" || err != nil {
		return address
	}
	parsed.Host = strings.TrimPrefix(s.Hostname, scheme)
	return parsed.String()
}

// LocalPath is the artifact's file, never outside the base; empty if it has no path.
func (s *Storage) LocalPath(artifact meta.Artifact) string {
	if artifact.Path == "" {
		return ""
	}
	local, err := securejoin.SecureJoin(s.BasePath, artifact.Path)
	if err != nil {
		return ""
	}
	return local
}

// MkdirAll makes the folder that the artifact belongs in.
func (s *Storage) MkdirAll(artifact meta.Artifact) error {
	return os.MkdirAll(filepath.Dir(s.LocalPath(artifact)), dirMode)
}

// Remove deletes the artifact's file.
func (s *Storage) Remove(artifact meta.Artifact) error {
	return os.Remove(s.LocalPath(artifact))
}

// RemoveAll deletes the folder that the artifact belongs in and says which it was; nothing if there was none.
func (s *Storage) RemoveAll(artifact meta.Artifact) (string, error) {
	folder := filepath.Dir(s.LocalPath(artifact))
	if folder == filepath.Clean(s.BasePath) {
		return "", fmt.Errorf("'%s' belongs to no object", artifact.Path)
	}
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return folder, os.RemoveAll(folder)
}

// ArtifactExist says whether the artifact's file is there, and is a file.
func (s *Storage) ArtifactExist(artifact meta.Artifact) bool {
	info, err := os.Lstat(s.LocalPath(artifact))
	return err == nil && info.Mode().IsRegular()
}

// VerifyArtifact returns an error unless the file has the digest that the artifact says.
func (s *Storage) VerifyArtifact(artifact meta.Artifact) error {
	if artifact.Digest == "" {
		return fmt.Errorf("artifact has no digest")
	}
	wanted, err := digest.Parse(artifact.Digest)
	if err != nil {
		return fmt.Errorf("artifact digest '%s': %w", artifact.Digest, err)
	}
	file, err := os.Open(s.LocalPath(artifact))
	if err != nil {
		return err
	}
	defer file.Close()
	found, err := wanted.Algorithm().FromReader(file)
	if err != nil {
		return err
	}
	if found != wanted {
		return fmt.Errorf("computed digest '%s' is not the advertised '%s'", found, wanted)
	}
	return nil
}

// Symlink points a link beside the artifact at it, in one step, and returns the link's URL.
func (s *Storage) Symlink(artifact meta.Artifact, linkName string) (string, error) {
	file := s.LocalPath(artifact)
	link := filepath.Join(filepath.Dir(file), linkName)
	fresh := link + ".tmp"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.Symlink(file, fresh); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, link); err != nil {
		return "", err
	}
	linked := meta.Artifact{Path: path.Join(path.Dir(artifact.Path), linkName)}
	s.SetArtifactURL(&linked)
	return linked.URL, nil
}

// Lock waits until nobody else holds the artifact, in this process or another, and returns what ends it.
func (s *Storage) Lock(artifact meta.Artifact) (func(), error) {
	file, err := os.OpenFile(s.LocalPath(artifact)+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}
