package server

import (
	"context"
	"crypto/tls"
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

const resetDone = "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. " +
	"Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes"

func (s *Server) resetFlag() string { return s.paths.Server("db", "reset-flag") }

// reset makes this node's member the only one, from a snapshot if one is named, and ends.
func (s *Server) reset(ctx context.Context) error {
	if paths.Exists(s.resetFlag()) {
		return journal.Fatalf("Error: starting kubernetes: preparing server: start managed database: " +
			"Managed etcd cluster membership was reset already, restart without --cluster-reset flag now")
	}
	snapshot := s.set.Text("cluster-reset-restore-path", "")
	if snapshot != "" {
		if err := s.restore(ctx, snapshot); err != nil {
			return journal.Fatalf("Error: preparing server: %v", err)
		}
	}
	var err error
	if s.local, err = etcd.Open(s.paths, s.node, s.address, s.set.List("etcd-arg")); err != nil {
		return err
	}
	if s.etcd, err = s.etcdClient(s.local.ClientURL()); err != nil {
		return err
	}
	config, err := s.local.Write([]string{s.local.Peer()}, false, true)
	if err != nil {
		return err
	}
	running, err := s.runEtcd(config)
	if err != nil {
		return err
	}
	if err := s.waitFor(ctx, "etcd to be alone", s.alone); err != nil {
		return err
	}
	s.kids.Stop(running, 10*time.Second)
	if _, err := s.local.Write([]string{s.local.Peer()}, false, false); err != nil {
		return err
	}
	if err := paths.Write(s.resetFlag(), nil, 0o600); err != nil {
		return err
	}
	s.say.Info(resetDone)
	return nil
}

// alone is nil once this node's member is the only one and leads.
func (s *Server) alone(ctx context.Context) error {
	if _, err := s.etcd.Leader(ctx); err != nil {
		return err
	}
	members, err := s.etcd.Members(ctx)
	if err == nil && len(members) != 1 {
		err = fmt.Errorf("%d members", len(members))
	}
	return err
}

// restore puts the snapshot in the place of the datastore; the old one is kept beside it.
func (s *Server) restore(ctx context.Context, snapshot string) error {
	path := strings.TrimPrefix(snapshot, "file://")
	if !paths.Exists(path) && !filepath.IsAbs(path) {
		path = filepath.Join(s.snapshotFolder(""), path)
	}
	if !paths.Exists(path) {
		return fmt.Errorf("etcd: snapshot path does not exist: %s", path)
	}
	local, err := etcd.Open(s.paths, s.node, s.address, nil)
	if err != nil {
		return err
	}
	fresh := s.paths.Server("db", "etcd-restored")
	if err := s.unpackSnapshot(ctx, path, fresh, local); err != nil {
		return err
	}
	member := filepath.Join(local.Folder, "member")
	if paths.Exists(member) {
		old := s.paths.Server("db", fmt.Sprintf("etcd-old-%d", s.now().Unix()))
		if err := paths.Folder(old, 0o700); err != nil {
			return err
		}
		if err := os.Rename(member, filepath.Join(old, "member")); err != nil {
			return err
		}
		s.say.Info("Old etcd data kept in %s", old)
	}
	if err := os.Rename(filepath.Join(fresh, "member"), member); err != nil {
		return err
	}
	return os.RemoveAll(fresh)
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

// fromSnapshot gets the authorities of the cluster out of a snapshot, on a host that has none of its files.
func (s *Server) fromSnapshot(ctx context.Context, told string) error {
	s.password = token.Password(told)
	if s.password == "" {
		return journal.Fatalf("Error: the token of the snapshot's cluster is required to restore on a new host")
	}
	if err := s.folders(); err != nil {
		return err
	}
	path := strings.TrimPrefix(s.set.Text("cluster-reset-restore-path", ""), "file://")
	if !paths.Exists(path) {
		return journal.Fatalf("Error: preparing server: etcd: snapshot path does not exist: %s", path)
	}
	folder := s.paths.Server("db", "etcd-tmp")
	defer func() { _ = os.RemoveAll(folder) }()
	local := etcd.Local{Name: "tmp", Address: "127.0.0.1"}
	if err := s.unpackSnapshot(ctx, path, folder, local); err != nil {
		return journal.Fatalf("Error: preparing server: %v", err)
	}
	kept, err := s.peek(ctx, folder, local)
	if err != nil {
		return journal.Fatalf("%s%v", failed, err)
	}
	data, err := unseal(kept[bootstrapKey(s.password)], s.password)
	if err != nil {
		return journal.Fatalf("%s%v", failed, err)
	}
	if err := s.spread(data); err != nil {
		return journal.Fatalf("%s%v", failed, err)
	}
	return s.takeAgentToken(s.readPasswd()["node"])
}

// peek runs etcd on the folder for a moment, on loopback only, and reads the bootstrap data.
func (s *Server) peek(ctx context.Context, folder string, local etcd.Local) (map[string][]byte, error) {
	const door = "http://127.0.0.1:2399"
	running, err := s.kids.Start(child.Spec{Name: "etcd", Argv: []string{
		filepath.Join(s.paths.Bin, "etcd"), "--name=" + local.Name, "--data-dir=" + folder, "--log-level=error",
		"--listen-client-urls=" + door, "--advertise-client-urls=" + door, "--listen-peer-urls=http://127.0.0.1:2398",
		"--initial-advertise-peer-urls=" + local.PeerURL(), "--initial-cluster=" + local.Peer(), "--force-new-cluster",
	}})
	if err != nil {
		return nil, err
	}
	defer s.kids.Stop(running, 5*time.Second)
	store := etcd.NewClient(&tls.Config{}, door)
	var kept map[string][]byte
	err = s.waitFor(ctx, "etcd to show the snapshot", func(ctx context.Context) (err error) {
		if _, err = store.Leader(ctx); err == nil {
			kept, err = store.Prefix(ctx, "/bootstrap/")
		}
		return err
	})
	return kept, err
}
