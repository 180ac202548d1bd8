package storage

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/sourceignore"
	"github.com/fluxcd/pkg/sourceignore/gitignore"
	untar "github.com/fluxcd/pkg/tar"
)

// ArchiveFileFilter says of a path whether it stays out of the archive.
type ArchiveFileFilter func(path string, info os.FileInfo) bool

// SourceIgnoreFilter leaves out what Flux leaves out by default and what the patterns say.
func SourceIgnoreFilter(patterns []gitignore.Pattern, domain []string) ArchiveFileFilter {
	matcher := sourceignore.NewDefaultMatcher(patterns, domain)
	return func(path string, info os.FileInfo) bool {
		return matcher.Match(strings.Split(path, string(filepath.Separator)), info.IsDir())
	}
}

// Archive makes the folder's files the artifact's tar.gz. Times and owners are left out, so that the same content has
// the same digest, down to the byte that of the original; so is everything but files and folders. Names in it are
// relative to an absolute folder, and to the working directory for another.
func (s *Storage) Archive(artifact *meta.Artifact, folder string, filter ArchiveFileFilter) error {
	switch info, err := os.Stat(folder); {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("'%s' is not a folder", folder)
	}
	return s.write(artifact, fileMode, func(file io.Writer) error {
		zip := gzip.NewWriter(file)
		archive := tar.NewWriter(zip)
		if err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return pack(archive, folder, path, entry, filter)
		}); err != nil {
			return err
		}
		if err := archive.Close(); err != nil {
			return err
		}
		return zip.Close()
	})
}

func pack(archive *tar.Writer, root, path string, entry fs.DirEntry, filter ArchiveFileFilter) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil
	}
	if filter != nil && filter(path, info) {
		if info.IsDir() {
			return filepath.SkipDir
		}
		return nil
	}
	name := path
	if filepath.IsAbs(root) {
		if name, err = filepath.Rel(root, path); err != nil {
			return err
		}
	}
	header := &tar.Header{Name: filepath.ToSlash(name), Mode: mode(info)}
	if info.IsDir() {
		header.Typeflag = tar.TypeDir
		return archive.WriteHeader(header)
	}
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	content, err := os.Open(path)
	if err != nil {
		return err
	}
	defer content.Close()
	_, err = io.Copy(archive, content)
	return err
}

// mode is what stays of a file's mode: whether it can be run.
func mode(info fs.FileInfo) int64 {
	switch {
	case info.IsDir():
		return dirMode
	case info.Mode()&0o100 != 0:
		return 0o700
	default:
		return int64(fileMode)
	}
}

// CopyToPath unpacks the artifact and puts what is at subPath in it to toPath, a folder or a file.
func (s *Storage) CopyToPath(artifact *meta.Artifact, subPath, toPath string) error {
	if err := s.VerifyArtifact(*artifact); err != nil {
		return err
	}
	file, err := os.Open(s.LocalPath(*artifact))
	if err != nil {
		return err
	}
	defer file.Close()
	// beside the target, so that the last step is a rename
	parent := filepath.Dir(filepath.Clean(toPath))
	if err := os.MkdirAll(parent, dirMode); err != nil {
		return err
	}
	work, err := os.MkdirTemp(parent, ".include-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	unpacked := filepath.Join(work, "unpack")
	if err := untar.Untar(file, unpacked, untar.WithMaxUntarSize(untar.UnlimitedUntarSize)); err != nil {
		return err
	}
	from, err := securejoin.SecureJoin(unpacked, subPath)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(from); err != nil {
		return err // names the missing path, as a failed rename would not
	}
	return os.Rename(from, toPath)
}
