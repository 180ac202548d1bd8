package server

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
	"sigs.k8s.io/yaml"
)

//go:embed manifests/*.yaml
var packaged embed.FS

// always are the packaged manifests that nothing disables.
func always() []string { return []string{"crds", "rolebindings"} }

func (s *Server) disabled(name string) bool {
	return slices.Contains(s.set.Many("disable"), name) && !slices.Contains(always(), name)
}

// brought is a packaged manifest with this cluster's addresses in it.
func (s *Server) brought(name string) []byte {
	content, _ := packaged.ReadFile("manifests/" + name + ".yaml")
	return []byte(strings.NewReplacer(
		"%{CLUSTER_DNS}%", s.critical.ClusterDNS.String(),
		"%{CLUSTER_DOMAIN}%", s.critical.ClusterDomain,
		"%{DEFAULT_LOCAL_STORAGE_PATH}%", s.set.Text("default-local-storage-path", s.paths.Data+"/storage"),
	).Replace(string(content)))
}

func packagedNames() []string {
	var found []string
	entries, _ := packaged.ReadDir("manifests")
	for _, entry := range entries {
		found = append(found, strings.TrimSuffix(entry.Name(), ".yaml"))
	}
	return found
}

// writePackaged puts the parts that K3s brings along among the manifests; those of disabled parts are removed.
func (s *Server) writePackaged() error {
	for _, name := range packagedNames() {
		path := s.paths.Server("manifests", name+".yaml")
		if s.disabled(name) {
			_ = os.Remove(path)
			continue
		}
		wanted := s.brought(name)
		if there, err := os.ReadFile(path); err == nil && string(there) == string(wanted) {
			continue
		}
		if err := paths.Write(path, wanted, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// deploy applies what lies in server/manifests, at the start and whenever a file changes.
func (s *Server) deploy(ctx context.Context) {
	seen, said := map[string]string{}, map[string]string{}
	var cleaned bool
	for ctx.Err() == nil {
		for _, path := range s.manifests() {
			s.deployFile(ctx, path, seen, said)
		}
		if !cleaned {
			cleaned = s.clean(ctx) == nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(3 * time.Second):
		}
	}
}

func (s *Server) manifests() []string {
	var found []string
	_ = filepath.WalkDir(s.paths.Server("manifests"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) &&
			!strings.HasPrefix(entry.Name(), ".") && !paths.Exists(path+".skip") {
			found = append(found, path)
		}
		return nil
	})
	first := func(path string) int {
		if i := slices.Index(always(), strings.TrimSuffix(filepath.Base(path), ".yaml")); i >= 0 {
			return i
		}
		return len(always())
	}
	slices.SortStableFunc(found, func(a, b string) int { return first(a) - first(b) })
	return found
}

// deployFile applies one file unless its content was applied before; said keeps a failure from being said every time.
func (s *Server) deployFile(ctx context.Context, path string, seen, said map[string]string) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	mark := fmt.Sprint(info.ModTime().UnixNano(), info.Size())
	if seen[path] == mark {
		return
	}
	content, err := os.ReadFile(path)
	if err == nil {
		err = s.applyAll(ctx, path, content)
	}
	if err == nil {
		seen[path] = mark
		s.say.Info("Applied manifest at %q", path)
		return
	}
	if ctx.Err() == nil && said[path] != mark+err.Error() {
		said[path] = mark + err.Error()
		s.say.Error("Failed to process config: failed to process %s: %v", path, err)
	}
}

// applyAll applies every document of a file, also those behind one that fails; returns the failures.
func (s *Server) applyAll(ctx context.Context, path string, content []byte) error {
	objects, err := Documents(content)
	if err != nil {
		return err
	}
	var failures []error
	for _, object := range objects {
		if err := s.kube.Apply(ctx, object, "deploy@"+s.node); err != nil {
			name := kube.Text(object, "kind") + " " + kube.Text(object, "metadata", "name")
			failures = append(failures, fmt.Errorf("%s: %w", name, err))
		}
	}
	if len(failures) > 0 {
		return errors.Join(failures...)
	}
	sum := sha256.Sum256(content)
	return s.kube.Apply(ctx, kube.Object{
		"apiVersion": "k3s.cattle.io/v1", "kind": "Addon",
		"metadata": kube.Object{"name": addon(path), "namespace": "kube-system"},
		"spec":     kube.Object{"source": path, "checksum": hex.EncodeToString(sum[:])},
	}, "deploy")
}

func addon(path string) string {
	name := filepath.Base(path)
	return strings.TrimSuffix(name, filepath.Ext(name))
}

// clean deletes the objects of parts that were disabled after they had been applied.
func (s *Server) clean(ctx context.Context) error {
	for _, name := range packagedNames() {
		if !s.disabled(name) {
			continue
		}
		path := "/apis/k3s.cattle.io/v1/namespaces/kube-system/addons/" + name
		if _, err := s.kube.Get(ctx, path); errors.Is(err, kube.NotFound()) {
			continue
		} else if err != nil {
			return err
		}
		objects, err := Documents(s.brought(name))
		if err != nil {
			return err
		}
		for _, object := range slices.Backward(objects) {
			where, err := s.kube.Path(ctx, object)
			if err == nil {
				err = s.kube.Delete(ctx, where)
			}
			if err != nil {
				return err
			}
		}
		if err := s.kube.Delete(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// Documents are the objects of a YAML or JSON file, lists unfolded.
func Documents(content []byte) ([]kube.Object, error) {
	var found []kube.Object
	for _, part := range regexp.MustCompile(`(?m)^---(?:[ \t].*)?$`).Split(string(content), -1) {
		object := kube.Object{}
		if err := yaml.Unmarshal([]byte(part), &object); err != nil {
			return nil, err
		}
		if len(object) == 0 {
			continue
		}
		if items := kube.Objects(object, "items"); strings.HasSuffix(kube.Text(object, "kind"), "List") && items != nil {
			found = append(found, items...)
			continue
		}
		found = append(found, object)
	}
	return found, nil
}
