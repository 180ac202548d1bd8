package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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

// onDemand is the name of snapshots that somebody asks for without naming them.
const onDemand = "on-demand"

// SnapshotRequest is what "k3s etcd-snapshot" posts to /db/snapshot of the local server.
type SnapshotRequest struct {
	// Operation is save, list, delete or prune.
	Operation string `json:"operation"`
	// Name is one name for save and prune, the files for delete.
	Name []string `json:"name,omitempty"`
	Dir  *string  `json:"dir,omitempty"`
	// Retention is how many prune leaves; nil for the server's own setting.
	Retention *int `json:"retention,omitempty"`
}

func (r SnapshotRequest) name() string {
	if len(r.Name) > 0 && r.Name[0] != "" {
		return r.Name[0]
	}
	return onDemand
}

// SnapshotResult is the answer to save, delete and prune: names of files.
type SnapshotResult struct {
	Created []string `json:"created"`
	Deleted []string `json:"deleted"`
}

// SnapshotFile is a snapshot that lies on this node.
type SnapshotFile struct {
	Name, Location, Node string
	Size                 int64
	Created              time.Time
}

func (s *Server) snapshotRequest(response http.ResponseWriter, request *http.Request) {
	var asked SnapshotRequest
	if err := json.NewDecoder(request.Body).Decode(&asked); err != nil {
		refuse(response, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	folder, err := s.snapshotFolder(asked.Dir)
	var found any
	if err == nil {
		switch asked.Operation {
		case "save":
			found, err = s.saveSnapshot(request.Context(), folder, asked.name())
		case "list":
			found, err = s.listSnapshots(folder)
		case "delete":
			found = s.deleteSnapshots(request.Context(), folder, asked.Name)
		case "prune":
			found, err = s.prune(request.Context(), folder, asked.name(), s.retention(asked.Retention))
		default:
			err = errors.New("invalid snapshot operation")
		}
	}
	if err != nil {
		s.say.Warn("Error in etcd-snapshot handler: %v", err)
		refuse(response, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	answerJSON(response, found)
}

// snapshotFolder is where the snapshots lie. Only K3s' own folder is made when it is absent.
func (s *Server) snapshotFolder(told *string) (string, error) {
	own := s.paths.Server("db", "snapshots")
	folder := s.set.Text("etcd-snapshot-dir", own)
	if told != nil {
		folder = cmp.Or(*told, own)
	}
	if folder == own {
		return folder, paths.Folder(folder, 0o700)
	}
	if info, err := os.Stat(folder); err != nil {
		return "", fmt.Errorf("failed to get etcd-snapshot-dir: %w", err)
	} else if !info.IsDir() {
		return "", fmt.Errorf("failed to get etcd-snapshot-dir: %s is not a directory", folder)
	}
	return folder, nil
}

func (s *Server) retention(told *int) int {
	if told != nil {
		return *told
	}
	kept, err := strconv.Atoi(s.set.Text("etcd-snapshot-retention", "5"))
	if err != nil {
		s.say.Error("Failed to read etcd-snapshot-retention: %v", err)
		return 0
	}
	return kept
}

// snapshots are the files of this node, oldest first: by the time in their names, else by that of the file.
func (s *Server) snapshots(folder string) ([]SnapshotFile, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	found := []SnapshotFile{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || strings.HasSuffix(info.Name(), ".part") {
			continue
		}
		created := info.ModTime()
		if stamp, err := strconv.ParseInt(info.Name()[strings.LastIndexByte(info.Name(), '-')+1:], 10, 64); err == nil {
			created = time.Unix(stamp, 0)
		}
		location := "file://" + filepath.Join(folder, info.Name())
		found = append(found, SnapshotFile{info.Name(), location, s.node, info.Size(), created})
	}
	slices.SortStableFunc(found, func(a, b SnapshotFile) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	return found, nil
}

func (s *Server) listSnapshots(folder string) (kube.Object, error) {
	found, err := s.snapshots(folder)
	items := []kube.Object{}
	for _, file := range found {
		object := file.Object("")
		object["metadata"].(kube.Object)["name"] = "local-" + file.Name
		items = append(items, object)
	}
	return kube.Object{"kind": "List", "apiVersion": "v1", "metadata": kube.Object{}, "items": items}, err
}

func (s *Server) saveSnapshot(ctx context.Context, folder, name string) (SnapshotResult, error) {
	if !s.snapshotting.TryLock() {
		return SnapshotResult{}, errors.New("snapshot save already in progress")
	}
	defer s.snapshotting.Unlock()
	file := fmt.Sprintf("%s-%s-%d", name, s.node, s.now().Round(time.Second).Unix())
	s.say.Info("Saving etcd snapshot to %s", filepath.Join(folder, file))
	if err := s.etcd.Snapshot(ctx, filepath.Join(folder, file)); err != nil {
		return SnapshotResult{}, err
	}
	s.showSnapshots(ctx, folder)
	return SnapshotResult{Created: []string{file}}, nil
}

// deleteSnapshots removes those of the named files that are there.
func (s *Server) deleteSnapshots(ctx context.Context, folder string, names []string) SnapshotResult {
	done := SnapshotResult{}
	for _, name := range names {
		switch err := os.Remove(filepath.Join(folder, filepath.Base(name))); {
		case errors.Is(err, os.ErrNotExist):
			s.say.Info("Snapshot %s not found locally", name)
		case err != nil:
			s.say.Error("Failed to delete local snapshot %s: %v", name, err)
		default:
			s.say.Info("Snapshot %s deleted locally", name)
			done.Deleted = append(done.Deleted, name)
		}
	}
	s.showSnapshots(ctx, folder)
	return done
}

// prune keeps the newest snapshots of those whose names begin with name; all of them when kept is less than one.
func (s *Server) prune(ctx context.Context, folder, name string, kept int) (SnapshotResult, error) {
	found, err := s.snapshots(folder)
	if err != nil || kept < 1 {
		return SnapshotResult{}, err
	}
	s.say.Info("Applying snapshot retention=%d to local snapshots with prefix %s in %s", kept, name, folder)
	kind := slices.DeleteFunc(found, func(file SnapshotFile) bool { return !strings.HasPrefix(file.Name, name) })
	var old []string
	for _, file := range kind[:max(len(kind)-kept, 0)] {
		old = append(old, file.Name)
	}
	return s.deleteSnapshots(ctx, folder, old), nil
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
	for {
		next := schedule.Next(s.now())
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		if err := s.snapshotOnSchedule(ctx); err != nil {
			s.say.Error("Failed to take scheduled snapshot: %v", err)
		}
	}
}

func (s *Server) snapshotOnSchedule(ctx context.Context) error {
	folder, err := s.snapshotFolder(nil)
	if err != nil {
		return err
	}
	name := s.set.Text("etcd-snapshot-name", "etcd-snapshot")
	if _, err := s.saveSnapshot(ctx, folder, name); err != nil {
		return err
	}
	_, err = s.prune(ctx, folder, name, s.retention(nil))
	return err
}
