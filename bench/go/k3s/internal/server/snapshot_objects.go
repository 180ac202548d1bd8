package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"funoffshore.bench/k3s/internal/kube"
)

const (
	snapshotObjects = "/apis/k3s.cattle.io/v1/etcdsnapshotfiles"
	storageNode     = "etcd.k3s.cattle.io/snapshot-storage-node"
	tokenHash       = "etcd.k3s.cattle.io/snapshot-token-hash"
	localSnapshots  = "etcd.k3s.cattle.io/local-snapshots-timestamp"
)

// Object is the snapshot as a k3s.cattle.io/v1 ETCDSnapshotFile, with the hash of the token that it can be restored
// with where that is known.
func (f SnapshotFile) Object(hash string) kube.Object {
	digest := sha256.Sum256([]byte(f.Node + f.Location))
	metadata := kube.Object{
		"name":   "local-" + strings.ToLower(f.Name) + "-" + hex.EncodeToString(digest[:])[:6],
		"labels": kube.Object{storageNode: f.Node},
	}
	if hash != "" {
		metadata["annotations"] = kube.Object{tokenHash: hash}
	}
	return kube.Object{
		"apiVersion": "k3s.cattle.io/v1", "kind": "ETCDSnapshotFile", "metadata": metadata,
		"spec": kube.Object{"snapshotName": f.Name, "nodeName": f.Node, "location": f.Location},
		"status": kube.Object{
			"readyToUse": true, "size": strconv.FormatInt(f.Size, 10),
			"creationTime": f.Created.UTC().Format(time.RFC3339),
		},
	}
}

// reconcileSnapshots makes the API show the files of this node that lie in folder, and no others of this node.
func (s *Server) reconcileSnapshots(ctx context.Context, folder string) error {
	files, err := s.snapshots(folder)
	if err != nil {
		return err
	}
	there, err := s.kube.List(ctx, snapshotObjects+"?labelSelector="+url.QueryEscape(storageNode+"="+s.node))
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for _, object := range there {
		gone[kube.Text(object, "metadata", "name")] = true
	}
	for _, file := range files {
		object := file.Object(hashOfToken(s.secret()))
		name := kube.Text(object, "metadata", "name")
		if gone[name] {
			delete(gone, name)
			continue
		}
		if err := s.publish(ctx, object); err != nil {
			return err
		}
	}
	for name := range gone {
		if err := s.kube.Delete(ctx, snapshotObjects+"/"+name); err != nil {
			return err
		}
	}
	return s.stampSnapshots(ctx)
}

func (s *Server) publish(ctx context.Context, object kube.Object) error {
	if err := s.kube.Apply(ctx, object, "k3s"); err != nil {
		return err
	}
	path := snapshotObjects + "/" + kube.Text(object, "metadata", "name") + "/status"
	return s.kube.Patch(ctx, path, kube.Merge, kube.Object{"status": object["status"]})
}

// stampSnapshots notes on this server's Node when its snapshots were looked at last.
func (s *Server) stampSnapshots(ctx context.Context) error {
	if s.set.Bool("disable-agent") {
		return nil
	}
	annotations := kube.Object{localSnapshots: s.now().UTC().Format(time.RFC3339)}
	patch := kube.Object{"metadata": kube.Object{"annotations": annotations}}
	err := s.kube.Patch(ctx, "/api/v1/nodes/"+s.node, kube.Merge, patch)
	if errors.Is(err, kube.NotFound()) {
		return nil
	}
	return err
}

// showSnapshots tells the API of the files in folder; what fails is tried again by followSnapshots.
func (s *Server) showSnapshots(ctx context.Context, folder string) {
	err := s.reconcileSnapshots(ctx, folder)
	if err != nil && ctx.Err() == nil {
		s.say.Warn("Failed to sync ETCDSnapshotFile: %v", err)
	}
	s.shown.Store(err == nil)
}

// followSnapshots tells the API of this node's snapshots once the server is up, and again whatever could not be told.
func (s *Server) followSnapshots(ctx context.Context) {
	for tick := time.Tick(2 * time.Second); ; {
		if folder, err := s.snapshotFolder(nil); err == nil && !s.shown.Load() {
			s.showSnapshots(ctx, folder)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
	}
}

// hashOfToken tells which token a snapshot was taken with, without giving it away.
func hashOfToken(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])[:12]
}
