package storage

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/sourceignore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/artifact/config"
)

func fresh(t *testing.T) *Storage {
	t.Helper()
	made, err := New(&config.Options{
		StoragePath: t.TempDir(), StorageAdvAddress: "source.example", ArtifactRetentionTTL: time.Minute,
		ArtifactRetentionRecords: 2,
	})
	ok(t, err)
	return made
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T comparable](t *testing.T, found, wanted T) {
	t.Helper()
	if found != wanted {
		t.Fatalf("found %v, wanted %v", found, wanted)
	}
}

func stored(t *testing.T, s *Storage, name, content string, age time.Duration) meta.Artifact {
	t.Helper()
	object := &metav1.ObjectMeta{Namespace: "flux-system", Name: "home"}
	artifact := s.NewArtifactFor("GitRepository", object, "main@sha1:1", name)
	ok(t, s.MkdirAll(artifact))
	ok(t, s.Copy(&artifact, strings.NewReader(content)))
	when := time.Now().Add(-age)
	ok(t, os.Chtimes(s.LocalPath(artifact), when, when))
	return artifact
}

func TestAnArtifactIsWhatWasWritten(t *testing.T) {
	s := fresh(t)
	artifact := stored(t, s, "a.txt", "d", 0)
	same(t, artifact.Path, "gitrepository/flux-system/home/a.txt")
	same(t, artifact.URL, "http://source.example/gitrepository/flux-system/home/a.txt")
	same(t, artifact.Digest, "sha256:18ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4")
	same(t, *artifact.Size, 1)
	same(t, s.ArtifactExist(artifact), true)
	ok(t, s.VerifyArtifact(artifact))

	ok(t, os.WriteFile(s.LocalPath(artifact), []byte("e"), 0o600))
	if err := s.VerifyArtifact(artifact); err == nil || !strings.Contains(err.Error(), artifact.Digest) {
		t.Fatalf("a changed file was taken: %v", err)
	}
	ok(t, s.Remove(artifact))
	same(t, s.ArtifactExist(artifact), false)
}

func TestNothingOutsideTheFolderIsTouched(t *testing.T) {
	s := fresh(t)
	local := s.LocalPath(meta.Artifact{Path: "../../../etc/passwd"})
	same(t, local, filepath.Join(s.BasePath, "etc/passwd"))
	same(t, s.LocalPath(meta.Artifact{}), "")
	if _, err := s.RemoveAll(meta.Artifact{Path: "a.txt"}); err == nil {
		t.Fatal("the folder of all artifacts was removed")
	}
}

func TestTheHostOfAnAddressIsThisStorages(t *testing.T) {
	s := fresh(t)
	same(t, s.SetHostname("http://old.example:9090/a/b"), "http://source.example/a/b")
	same(t, s.SetHostname(""), "")
	same(t, s.SetHostname("not a URL: \x7f"), "not a URL: \x7f")
	own, err := New(&config.Options{StoragePath: s.BasePath, StorageAddress: "127.0.0.1:9090"})
	ok(t, err)
	same(t, own.Hostname, "127.0.0.1:9090")
	if _, err := New(&config.Options{StoragePath: filepath.Join(s.BasePath, "none")}); err == nil {
		t.Fatal("a folder that is not there was taken")
	}
}

func TestALinkLeadsToTheNewestArtifact(t *testing.T) {
	s := fresh(t)
	for _, name := range []string{"index-1.yaml", "index-2.yaml"} {
		url, err := s.Symlink(stored(t, s, name, name, 0), "index.yaml")
		ok(t, err)
		same(t, url, "http://source.example/gitrepository/flux-system/home/index.yaml")
	}
	link := filepath.Join(s.BasePath, "gitrepository/flux-system/home/index.yaml")
	target, err := os.Readlink(link)
	ok(t, err)
	same(t, target, strings.TrimSuffix(link, ".yaml")+"-2.yaml") // absolute, as source-controller's tests want it
	content, err := os.ReadFile(link)
	ok(t, err)
	same(t, string(content), "index-2.yaml")
}

func TestOnlyOneHoldsTheLock(t *testing.T) {
	s := fresh(t)
	artifact := stored(t, s, "a.txt", "a", 0)
	unlock, err := s.Lock(artifact)
	ok(t, err)
	second := make(chan func())
	go func() {
		unlock, err := s.Lock(artifact)
		if err != nil {
			t.Error(err)
		}
		second <- unlock
	}()
	select {
	case <-second:
		t.Fatal("two hold the lock")
	case <-time.After(50 * time.Millisecond):
	}
	unlock()
	(<-second)()
}

func TestOldAndSurplusArtifactsGo(t *testing.T) {
	s := fresh(t)
	current := stored(t, s, "current", "c", 2*time.Hour)
	old := stored(t, s, "old", "o", time.Hour)
	recent := stored(t, s, "recent", "r", 10*time.Second)
	surplus := stored(t, s, "surplus", "s", 20*time.Second)
	unlock, err := s.Lock(old)
	ok(t, err)
	unlock()
	_, err = s.Symlink(current, "latest.tar.gz")
	ok(t, err)

	gone, err := s.GarbageCollect(t.Context(), current, time.Second)
	ok(t, err)
	same(t, strings.Join(gone, " "), s.LocalPath(surplus)+" "+s.LocalPath(old))
	same(t, s.ArtifactExist(current) && s.ArtifactExist(recent), true)
	left, err := os.ReadDir(filepath.Dir(s.LocalPath(current)))
	ok(t, err)
	same(t, len(left), 3) // current, recent and the link; the old one's lock went with it

	none, err := s.GarbageCollect(t.Context(), meta.Artifact{Path: "helmchart/a/b/c"}, time.Second)
	ok(t, err)
	same(t, len(none), 0)
}

func TestTheCollectionEndsInTime(t *testing.T) {
	s := fresh(t)
	stored(t, s, "old", "o", time.Hour)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.GarbageCollect(ended, meta.Artifact{Path: "gitrepository/flux-system/home/x"}, time.Second); err == nil {
		t.Fatal("went on after the end")
	}
}

func TestAllOfADeletedObjectGoes(t *testing.T) {
	s := fresh(t)
	artifact := stored(t, s, "a.txt", "a", 0)
	all := artifact
	all.Path = "gitrepository/flux-system/home/*"
	gone, err := s.RemoveAll(all)
	ok(t, err)
	same(t, gone, filepath.Dir(s.LocalPath(artifact)))
	gone, err = s.RemoveAll(all)
	ok(t, err)
	same(t, gone, "")
}

func tree(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for name, mode := range map[string]os.FileMode{
		"apps/site.yaml": 0o644, "apps/run.sh": 0o755, ".git/config": 0o644, "logo.png": 0o644, "notes/secret.txt": 0o644,
	} {
		ok(t, os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755))
		ok(t, os.WriteFile(filepath.Join(folder, name), []byte(name), mode))
	}
	ok(t, os.Symlink("/etc/passwd", filepath.Join(folder, "link")))
	return folder
}

func archived(t *testing.T, s *Storage, folder string) meta.Artifact {
	t.Helper()
	artifact := stored(t, s, "a.tar.gz", "", 0)
	domain := strings.Split(folder, string(filepath.Separator))
	filter := SourceIgnoreFilter(sourceignore.ReadPatterns(strings.NewReader("notes/"), domain), domain)
	ok(t, s.Archive(&artifact, folder, filter))
	return artifact
}

func TestAnArchiveHasWhatIsNotIgnored(t *testing.T) {
	s, folder := fresh(t), tree(t)
	artifact := archived(t, s, folder)
	to := filepath.Join(t.TempDir(), "deep/inside")
	ok(t, s.CopyToPath(&artifact, "", to))
	var names []string
	ok(t, filepath.Walk(to, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			names = append(names, strings.TrimPrefix(path, to)+" "+info.Mode().String())
		}
		return err
	}))
	same(t, strings.Join(names, ", "), "/apps/run.sh -rwx------, /apps/site.yaml -rw-------")
	if beside, err := os.ReadDir(filepath.Dir(to)); err != nil || len(beside) != 1 {
		t.Fatalf("something was left beside it: %v %v", beside, err)
	}
}

func TestAnArchiveIsTheOriginalsToTheByte(t *testing.T) {
	s := fresh(t)
	t.Chdir(t.TempDir())
	folder := "testdata/git/repository"
	ok(t, os.MkdirAll(folder, 0o755))
	manifest := "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: dummy\n"
	for name, content := range map[string]string{".sourceignore": "**.txt\n", "foo.txt": "", "manifest.yaml": manifest} {
		ok(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644))
	}
	domain := strings.Split(folder, "/")
	ignored, err := sourceignore.LoadIgnorePatterns(folder, domain)
	ok(t, err)
	artifact := stored(t, s, "a.tar.gz", "", 0)
	ok(t, s.Archive(&artifact, folder, SourceIgnoreFilter(ignored, domain)))
	// what source-controller's own test wants of this folder
	same(t, artifact.Digest, "sha256:34d9af1a2fcfaef3ee9487d67dc2d642bc7babdb9444a5f60d1f32df32e4de7d")
}

func TestTheSameContentHasTheSameDigest(t *testing.T) {
	s := fresh(t)
	first, second := archived(t, s, tree(t)), archived(t, s, tree(t))
	same(t, first.Digest, second.Digest)
	if err := s.Archive(&first, filepath.Join(s.BasePath, "none"), nil); err == nil {
		t.Fatal("archived a folder that is not there")
	}
	same(t, s.VerifyArtifact(second), nil) // what failed left the old file alone
}

func TestAPartOfAnArtifactCanBeIncluded(t *testing.T) {
	s := fresh(t)
	artifact := archived(t, s, tree(t))
	to := filepath.Join(t.TempDir(), "site.yaml")
	ok(t, s.CopyToPath(&artifact, "apps/site.yaml", to))
	content, err := os.ReadFile(to)
	ok(t, err)
	same(t, string(content), "apps/site.yaml")
	err = s.CopyToPath(&artifact, "../../outside", to+".2")
	if err == nil || !strings.Contains(err.Error(), "unpack/outside: no such file or directory") {
		t.Fatalf("not what is missing: %v", err)
	}
	artifact.Digest = ""
	if err := s.CopyToPath(&artifact, "", to+".3"); err == nil {
		t.Fatal("unpacked what nobody vouches for")
	}
}
