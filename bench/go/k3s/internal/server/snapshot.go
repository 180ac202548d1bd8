package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"funoffshore.bench/k3s/internal/cron"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
)

// SnapshotRequest is what "k3s etcd-snapshot" asks the local server for.
type SnapshotRequest struct {
	// Operation is save, list, delete or prune.
	Operation string
	Name      string
	Names     []string
	Dir       string
	Retention int
}

// SnapshotFile is a snapshot that lies on this node.
type SnapshotFile struct {
	Name, Location, Node string
	Size                 int64
	Created              time.Time
}

// Object is the snapshot as a k3s.cattle.io/v1 ETCDSnapshotFile.
func (f SnapshotFile) Object() kube.Object {
	return kube.Object{
		"apiVersion": "k3s.cattle.io/v1", "kind": "ETCDSnapshotFile",
		"metadata": kube.Object{"name": "local-" + strings.ToLower(f.Name)},
		"spec":     kube.Object{"snapshotName": f.Name, "nodeName": f.Node, "location": f.Location},
		"status": kube.Object{
			"readyToUse": true, "size": strconv.FormatInt(f.Size, 10),
			"creationTime": f.Created.UTC().Format(time.RFC3339),
		},
	}
}

func (s *Server) snapshotRequest(response http.ResponseWriter, request *http.Request) {
	var asked SnapshotRequest
	if err := json.NewDecoder(request.Body).Decode(&asked); err != nil {
		refuse(response, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	var found []SnapshotFile
	var err error
	switch asked.Operation {
	case "save":
		found, err = s.saveSnapshot(request.Context(), asked)
	case "list":
		found = s.snapshots(asked.Dir)
	case "delete":
		found, err = s.deleteSnapshots(request.Context(), asked)
	case "prune":
		found, err = s.prune(request.Context(), asked)
	default:
		err = fmt.Errorf("invalid operation %q", asked.Operation)
	}
	if err != nil {
		refuse(response, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	answerJSON(response, found)
}

func (s *Server) snapshotFolder(told string) string {
	return cmp.Or(told, s.set.Text("etcd-snapshot-dir", ""), s.paths.Server("db", "snapshots"))
}

// snapshots are the files of this node, oldest first.
func (s *Server) snapshots(told string) []SnapshotFile {
	folder := s.snapshotFolder(told)
	entries, _ := os.ReadDir(folder)
	found := []SnapshotFile{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || strings.HasSuffix(info.Name(), ".part") {
			continue
		}
		location := "file://" + filepath.Join(folder, info.Name())
		found = append(found, SnapshotFile{info.Name(), location, s.node, info.Size(), info.ModTime()})
	}
	slices.SortStableFunc(found, func(a, b SnapshotFile) int { return a.Created.Compare(b.Created) })
	return found
}

func (s *Server) saveSnapshot(ctx context.Context, asked SnapshotRequest) ([]SnapshotFile, error) {
	folder := s.snapshotFolder(asked.Dir)
	if err := paths.Folder(folder, 0o700); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s-%s-%d", cmp.Or(asked.Name, "on-demand"), s.node, s.now().Unix())
	for paths.Exists(filepath.Join(folder, name)) {
		name += "0"
	}
	if err := s.etcd.Snapshot(ctx, filepath.Join(folder, name)); err != nil {
		return nil, err
	}
	s.say.Info("Saving etcd snapshot to %s", filepath.Join(folder, name))
	saved := slices.DeleteFunc(s.snapshots(asked.Dir), func(file SnapshotFile) bool { return file.Name != name })
	for _, file := range saved {
		s.publish(ctx, file)
	}
	return saved, nil
}

// publish shows the snapshot in the API.
func (s *Server) publish(ctx context.Context, file SnapshotFile) {
	object := file.Object()
	err := s.kube.Apply(ctx, object, "k3s")
	if err == nil {
		path := "/apis/k3s.cattle.io/v1/etcdsnapshotfiles/" + kube.Text(object, "metadata", "name") + "/status"
		err = s.kube.Patch(ctx, path, kube.Merge, kube.Object{"status": object["status"]})
	}
	if err != nil {
		s.say.Error("Failed to publish snapshot %s: %v", file.Name, err)
	}
	if s.set.Bool("disable-agent") {
		return
	}
	stamp := kube.Object{"etcd.k3s.cattle.io/local-snapshots-timestamp": s.now().UTC().Format(time.RFC3339)}
	patch := kube.Object{"metadata": kube.Object{"annotations": stamp}}
	_ = s.kube.Patch(ctx, "/api/v1/nodes/"+s.node, kube.Merge, patch)
}

func (s *Server) deleteSnapshots(ctx context.Context, asked SnapshotRequest) ([]SnapshotFile, error) {
	found := []SnapshotFile{}
	for _, file := range s.snapshots(asked.Dir) {
		if !slices.Contains(asked.Names, file.Name) {
			continue
		}
		if err := os.Remove(strings.TrimPrefix(file.Location, "file://")); err != nil {
			return found, err
		}
		path := "/apis/k3s.cattle.io/v1/etcdsnapshotfiles/" + kube.Text(file.Object(), "metadata", "name")
		if err := s.kube.Delete(ctx, path); err != nil {
			s.say.Error("Failed to delete the object of snapshot %s: %v", file.Name, err)
		}
		found = append(found, file)
	}
	return found, nil
}

// prune keeps the newest snapshots of one kind.
func (s *Server) prune(ctx context.Context, asked SnapshotRequest) ([]SnapshotFile, error) {
	prefix := fmt.Sprintf("%s-%s-", cmp.Or(asked.Name, "on-demand"), s.node)
	kind := slices.DeleteFunc(s.snapshots(asked.Dir), func(file SnapshotFile) bool {
		return !strings.HasPrefix(file.Name, prefix)
	})
	if asked.Retention < 1 || len(kind) <= asked.Retention {
		return []SnapshotFile{}, nil
	}
	for _, file := range kind[:len(kind)-asked.Retention] {
		asked.Names = append(asked.Names, file.Name)
	}
	return s.deleteSnapshots(ctx, asked)
}

// scheduleSnapshots takes snapshots as etcd-snapshot-schedule-cron says, and keeps as many as etcd-snapshot-retention.
func (s *Server) scheduleSnapshots(ctx context.Context) {
	text := s.set.Text("etcd-snapshot-schedule-cron", "0 */12 * * *")
	schedule, err := cron.Parse(text)
	if s.set.Bool("etcd-disable-snapshots") || text == "" {
		return
	}
	if err != nil {
		s.say.Error("Failed to schedule snapshots: %v", err)
		return
	}
	retention, err := strconv.Atoi(s.set.Text("etcd-snapshot-retention", "5"))
	if err != nil {
		s.say.Error("Failed to read etcd-snapshot-retention: %v", err)
		return
	}
	asked := SnapshotRequest{Name: s.set.Text("etcd-snapshot-name", "etcd-snapshot"), Retention: retention}
	for {
		next := schedule.Next(s.now())
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		_, err := s.saveSnapshot(ctx, asked)
		if err == nil && retention > 0 {
			_, err = s.prune(ctx, asked)
		}
		if err != nil {
			s.say.Error("Failed to take etcd snapshot: %v", err)
		}
	}
}
