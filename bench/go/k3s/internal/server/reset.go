package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"funoffshore.bench/k3s/internal/child"
	"funoffshore.bench/k3s/internal/etcd"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/token"
)

const (
	resetDone = "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. " +
		"Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes"
	resetTwice = "Managed etcd cluster membership was previously reset, please remove the cluster-reset flag and start k3s " +
		"normally. If you need to perform another cluster reset, you must first manually delete the file at %s"
	resetting = "Error: starting kubernetes: failed to start cluster: start managed database: "
)

func (s *Server) resetFlag() string { return s.paths.Server("db", "reset-flag") }

// reset makes this node's member the only one, from a snapshot if one is named, and ends. As in K3s the datastore has
// been replaced already when the token turns out to be another one's; the old one lies beside it then.
func (s *Server) reset(ctx context.Context) error {
	told, err := Told(s.set, "token")
	if err != nil {
		return err
	}
	kept, _ := os.ReadFile(s.paths.Server("token"))
	password := token.Password(told)
	if password == "" {
		password = token.Password(string(kept))
	}
	if password == "" {
		return journal.Fatalf("%sthere is no token, neither configured nor in %s", resetting, s.paths.Server("token"))
	}
	if err := s.folders(); err != nil {
		return journal.Fatalf("Error: preparing server: %v", err)
	}
	if err := s.replaceStore(ctx); err != nil {
		return journal.Fatalf("%s%v", resetting, err)
	}
	if err := paths.Write(s.resetFlag(), nil, 0o600); err != nil {
		return err
	}
	data, err := s.alone(ctx, password)
	if err != nil {
		return err
	}
	if err := s.backUpCertificates(); err != nil {
		return err
	}
	return s.settle(data, password)
}

// settle writes this node's files as the datastore has them.
func (s *Server) settle(data bootstrap, password string) error {
	s.say.Warn("Updating bootstrap data on disk from datastore")
	if err := s.spread(data); err != nil {
		return err
	}
	if err := s.takePasswords(password, s.readPasswd()["node"]); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return err
	}
	if _, err := s.local.Write([]string{s.local.Peer()}, false, false); err != nil {
		return err
	}
	s.say.Info(resetDone)
	return nil
}

// replaceStore leaves the datastore to go on with in db/etcd, under a new name of the member.
func (s *Server) replaceStore(ctx context.Context) error {
	snapshot := strings.TrimPrefix(s.set.Text("cluster-reset-restore-path", ""), "file://")
	switch info, err := os.Stat(snapshot); {
	case snapshot == "" && paths.Exists(s.resetFlag()):
		return fmt.Errorf(resetTwice, s.resetFlag())
	case snapshot == "" && !etcd.Exists(s.paths):
		return errors.New("there is no etcd database to reset in " + s.paths.Server("db", "etcd"))
	case snapshot != "" && errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("etcd: snapshot path does not exist: %s", snapshot)
	case snapshot != "" && err != nil:
		return err
	case snapshot != "" && info.IsDir():
		return fmt.Errorf("etcd: snapshot path must be a file, not a directory: %s", snapshot)
	}
	folder := s.paths.Server("db", "etcd")
	fresh := s.paths.Server("db", "etcd-restored")
	local := etcd.Local{Name: s.node + "-" + token.Hex(4), Address: s.address}
	if snapshot != "" {
		if err := s.unpackSnapshot(ctx, snapshot, fresh, local); err != nil {
			return err
		}
		if err := s.swap(fresh, folder); err != nil {
			return err
		}
	}
	if err := paths.Write(filepath.Join(folder, "name"), []byte(local.Name), 0o600); err != nil {
		return err
	}
	var err error
	s.local, err = etcd.Open(s.paths, s.node, s.address, s.set.List("etcd-arg"))
	return err
}

// swap puts fresh in the place of folder, which is kept under another name.
func (s *Server) swap(fresh, folder string) error {
	if paths.Exists(folder) {
		old := fmt.Sprintf("%s-old-%d", folder, s.now().Unix())
		// Two resets within a second would want one name.
		for paths.Exists(old) {
			time.Sleep(50 * time.Millisecond)
			old = fmt.Sprintf("%s-old-%d", folder, s.now().Unix())
		}
		if err := os.Rename(folder, old); err != nil {
			return err
		}
		s.say.Info("Pre-restore etcd database moved to %s", old)
	}
	return os.Rename(fresh, folder)
}

func (s *Server) unpackSnapshot(ctx context.Context, snapshot, folder string, local etcd.Local) error {
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	tool := exec.CommandContext(ctx, filepath.Join(s.paths.Bin, "etcd"), "etcdutl", "snapshot", "restore", snapshot,
		"--name", local.Name, "--initial-cluster", local.Peer(), "--initial-advertise-peer-urls", local.PeerURL(),
		"--data-dir", folder)
	if output, err := tool.CombinedOutput(); err != nil {
		return fmt.Errorf("snapshot %s cannot be restored: %v: %s", snapshot, err, strings.TrimSpace(string(output)))
	}
	return nil
}

// alone runs etcd for a moment, where no peer can reach it, until this node's member is the only one, and opens the
// bootstrap data that it holds.
func (s *Server) alone(ctx context.Context, password string) (bootstrap, error) {
	const door = "http://127.0.0.1:2399"
	running, err := s.kids.Start(child.Spec{Name: "etcd", Argv: []string{
		filepath.Join(s.paths.Bin, "etcd"), "--name=" + s.local.Name, "--data-dir=" + s.local.Folder, "--log-level=error",
		"--listen-client-urls=" + door, "--advertise-client-urls=" + door, "--listen-peer-urls=http://127.0.0.1:2398",
		"--initial-advertise-peer-urls=" + s.local.PeerURL(), "--initial-cluster=" + s.local.Peer(), "--force-new-cluster",
	}})
	if err != nil {
		return nil, err
	}
	defer s.kids.Stop(running, 10*time.Second)
	store := etcd.NewClient(&tls.Config{}, door)
	var kept map[string][]byte
	err = s.waitFor(ctx, "etcd to be alone", func(ctx context.Context) error {
		if _, err := store.Leader(ctx); err != nil {
			return err
		}
		members, err := store.Members(ctx)
		if err == nil && (len(members) != 1 || members[0].Name != s.local.Name) {
			err = fmt.Errorf("%d members", len(members))
		}
		if err == nil {
			kept, err = store.Prefix(ctx, bootstrapFolder)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	data, err := unseal(kept[bootstrapKey(password)], password)
	if err != nil {
		return nil, journal.Shutdownf("%v", err)
	}
	return data, nil
}

// backUpCertificates copies server/tls aside, where there is one with something in it.
func (s *Server) backUpCertificates() error {
	folder := s.paths.TLS()
	if !paths.Exists(s.paths.TLS("server-ca.crt")) {
		return nil
	}
	aside := fmt.Sprintf("%s-%d", folder, s.now().Unix())
	s.say.Info("Cluster reset: backing up certificates directory to %s", aside)
	return paths.CopyFolder(folder, aside)
}

// forgetOwnPassword removes what this node's password is compared with: the one of a restored datastore may be another.
func (s *Server) forgetOwnPassword(ctx context.Context) {
	path := "/api/v1/namespaces/kube-system/secrets/" + s.node + ".node-password.k3s"
	if err := s.kube.Delete(ctx, path); err != nil {
		s.say.Warn("failed to delete old node password secret: %v", err)
	}
}
