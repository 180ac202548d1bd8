package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/fluxcd/pkg/artifact/config"
	"github.com/fluxcd/pkg/artifact/digest"
)

func TestFilesAreServedUntilTheEnd(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "a.txt"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}

	var options config.Options
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	options.BindFlags(flags)
	if err := flags.Parse([]string{"--storage-path", folder, "--storage-addr", address}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Start(ctx, &options) }()
	if body := get(t, "http://"+address+"/a.txt"); body != "hello" {
		t.Fatalf("served %q", body)
	}
	get(t, "http://"+address+"/") // the readiness probe of source-controller asks for it

	if err := Start(ctx, &options); err == nil {
		t.Fatal("two servers at one address")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		answer, err := http.Get(url)
		if err != nil && time.Now().Before(end) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(err, answer.Status)
		}
		return string(body)
	}
}

func TestDigestAlgorithmsAreKnownByName(t *testing.T) {
	found, err := digest.AlgorithmForName("sha512")
	if err != nil || found.String() != "sha512" {
		t.Fatal(found, err)
	}
	if _, err := digest.AlgorithmForName("rot13"); err == nil {
		t.Fatal("took an algorithm that is none")
	}
}
