package storage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
)

// GarbageCollect deletes what is too old or too much in the artifact's folder, never the artifact itself, and returns
// the files that went. Ends with ctx's error when the time is up.
func (s *Storage) GarbageCollect(ctx context.Context, artifact meta.Artifact, timeout time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	garbage, err := s.garbage(artifact, time.Now())
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, file := range garbage {
		if err := ctx.Err(); err != nil {
			return gone, err
		}
		if err := os.Remove(file); err != nil {
			return gone, err
		}
		gone = append(gone, file)
		if err := os.Remove(file + lockSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return gone, err
		}
	}
	return gone, nil
}

type aged struct {
	path  string
	since time.Time
}

// garbage lists the files beside the artifact that the rules do not let stay, the newest first.
func (s *Storage) garbage(artifact meta.Artifact, now time.Time) ([]string, error) {
	current := s.LocalPath(artifact)
	others, err := beside(current)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(others, func(a, b aged) int { return b.since.Compare(a.since) })
	var found []string
	kept := 1 // the current one
	for _, other := range others {
		if now.Sub(other.since) <= s.ArtifactRetentionTTL && kept < s.ArtifactRetentionRecords {
			kept++
			continue
		}
		found = append(found, other.path)
	}
	return found, nil
}

// beside lists the other artifacts in this one's folder; links, locks and unfinished files are none.
func beside(current string) ([]aged, error) {
	folder := filepath.Dir(current)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var others []aged
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // its writer was faster
		}
		if err != nil {
			return nil, err
		}
		name := entry.Name()
		if path != current && info.Mode().IsRegular() && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, lockSuffix) {
			others = append(others, aged{path, info.ModTime()})
		}
	}
	return others, nil
}
