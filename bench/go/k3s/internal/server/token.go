package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/token"
)

// bootstrapFolder is where etcd keeps the sealed bootstrap data: one key, named by the token that opens it.
const bootstrapFolder = "/bootstrap/"

// passwords are the server's and what agents say. They change when the token is rotated.
type passwords struct {
	mutex        sync.RWMutex
	server, node string
}

func (p *passwords) set(server, node string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.server, p.node = server, node
}

func (p *passwords) both() (server, node string) {
	p.mutex.RLock()
	defer p.mutex.RUnlock()
	return p.server, p.node
}

// secret is the server's password, which opens the bootstrap data.
func (s *Server) secret() string {
	server, _ := s.passwords.both()
	return server
}

// tokenRequest answers PUT /v1-k3s/token: another token from now on, here and in the datastore. The other servers go on
// with the old one until they are restarted with the new one.
func (s *Server) tokenRequest(response http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodPut {
		refuse(response, http.StatusMethodNotAllowed, "MethodNotAllowed", "method not allowed")
		return
	}
	var asked struct {
		NewToken string `json:"newToken"`
	}
	if err := json.NewDecoder(request.Body).Decode(&asked); err != nil {
		refuse(response, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	if err := s.rotateToken(request.Context(), token.Password(asked.NewToken)); err != nil {
		s.say.Error("token error: %v", err)
		refuse(response, http.StatusInternalServerError, "InternalError", err.Error())
	}
}

func (s *Server) rotateToken(ctx context.Context, fresh string) error {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	if fresh == "" {
		fresh = token.Hex(16)
	}
	old, node := s.passwords.both()
	if told, err := Told(s.set, "agent-token"); err != nil {
		return err
	} else if told == "" && node == old {
		node = fresh
	}
	s.passwords.set(fresh, node)
	steps := []func() error{s.writePasswd, s.writeTokens}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	sealed, err := s.remember()
	if err != nil {
		return err
	}
	if err := s.etcd.Put(ctx, bootstrapKey(fresh), sealed); err != nil {
		return err
	}
	s.say.Info("created bootstrap key %s", bootstrapKey(fresh))
	if old == fresh {
		return nil
	}
	return s.etcd.Delete(ctx, bootstrapKey(old))
}

// saveBootstrap keeps the sealed data in the datastore, unless what lies there belongs to another token.
func (s *Server) saveBootstrap(ctx context.Context) error {
	sealed, err := s.remember()
	if err != nil {
		return err
	}
	own := bootstrapKey(s.secret())
	return s.waitFor(ctx, "etcd to take the bootstrap data", func(ctx context.Context) error {
		there, err := s.etcd.Keys(ctx, bootstrapFolder)
		if err != nil {
			return err
		}
		if len(there) > 0 && !slices.Contains(there, own) {
			return journal.Shutdownf("failed to save bootstrap data: %v", errOtherToken)
		}
		return s.etcd.Put(ctx, own, sealed)
	})
}

// mirrorBootstrap keeps a copy of what another server's rotation changed beside this server's own datastore, where its
// next start finds it before etcd runs.
func (s *Server) mirrorBootstrap(ctx context.Context) {
	for tick := time.Tick(300 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			s.mirrorOnce(ctx)
		}
	}
}

// mirrorOnce writes the copy if the datastore has another key than the one that was copied last.
func (s *Server) mirrorOnce(ctx context.Context) {
	there, err := s.etcd.Keys(ctx, bootstrapFolder)
	if err != nil || len(there) != 1 {
		return
	}
	if last := s.mirrored.Load(); last != nil && *last == there[0] {
		return
	}
	data, err := s.etcd.Prefix(ctx, bootstrapFolder)
	if sealed := data[there[0]]; err == nil && len(sealed) > 0 && paths.Write(s.sealed(), sealed, 0o600) == nil {
		s.mirrored.Store(&there[0])
	}
}

// isShutdown is whether trying again would not help.
func isShutdown(err error) bool {
	var shutdown journal.Shutdown
	return errors.As(err, &shutdown)
}
