package storage

import (
	"bufio"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/artifact/digest"
)

const fileMode fs.FileMode = 0o600

// AtomicWriteFile makes what the reader gives the artifact's file, and tells the artifact its digest, size and time.
func (s *Storage) AtomicWriteFile(artifact *meta.Artifact, reader io.Reader, mode os.FileMode) error {
	return s.write(artifact, mode, func(file io.Writer) error {
		_, err := io.Copy(file, reader)
		return err
	})
}

// Copy is AtomicWriteFile with the mode that artifacts have.
func (s *Storage) Copy(artifact *meta.Artifact, reader io.Reader) error {
	return s.AtomicWriteFile(artifact, reader, fileMode)
}

// CopyFromPath makes a copy of the file the artifact's.
func (s *Storage) CopyFromPath(artifact *meta.Artifact, file string) error {
	source, err := os.Open(file)
	if err != nil {
		return err
	}
	defer source.Close()
	return s.Copy(artifact, source)
}

// write fills a temporary file, measures it on the way, and moves it to its place only when it is whole.
func (s *Storage) write(artifact *meta.Artifact, mode fs.FileMode, fill func(io.Writer) error) error {
	target := s.LocalPath(*artifact)
	file, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // gone already when all went well
	defer file.Close()

	sum := digest.Canonical.Digester()
	size := &counter{}
	buffer := bufio.NewWriter(io.MultiWriter(file, sum.Hash(), size))
	for _, step := range []func() error{
		func() error { return fill(buffer) },
		buffer.Flush,
		func() error { return file.Chmod(mode) },
		file.Close,
		func() error { return os.Rename(file.Name(), target) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	artifact.Digest = sum.Digest().String()
	artifact.Size = &size.bytes
	artifact.LastUpdateTime = metav1.Now()
	return nil
}

type counter struct{ bytes int64 }

func (c *counter) Write(data []byte) (int, error) {
	c.bytes += int64(len(data))
	return len(data), nil
}
