package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatToPlayIsToldByTheNameOrTheFirstArgument(t *testing.T) {
	for line, role := range map[string]string{
		"/kube-vip manager":          "kube-vip",
		"/standin operator":          "operator",
		"/standin --version":         "standin",
		"standin":                    "standin",
		"/usr/bin/application pause": "application",
	} {
		if got, _ := roleOf(strings.Fields(line)); got != role {
			t.Errorf("%s plays %s instead of %s", line, got, role)
		}
	}
}

func TestPorts(t *testing.T) {
	got, err := portsOf("8989, 9707", "9707")
	if err != nil || !slices.Equal(got, []int{8989, 9707}) {
		t.Error(got, err)
	}
	if _, err := portsOf("http"); err == nil {
		t.Error("a word is no port")
	}
}

func TestOnePortSpeaksBothWithAndWithoutTls(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	settings, err := selfSigned("app")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go servePort(ctx, "app", port, settings)
	insecure := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	for until := time.Now().Add(5 * time.Second); connects(fmt.Sprintf("127.0.0.1:%d", port)) != nil; {
		if time.Now().After(until) {
			t.Fatal("nothing listens")
		}
	}
	for _, scheme := range []string{"http", "https"} {
		answer, err := insecure.Get(fmt.Sprintf("%s://127.0.0.1:%d/any/path", scheme, port))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != 200 || !strings.Contains(string(body), "stand-in") {
			t.Errorf("%s: %d %s", scheme, answer.StatusCode, body)
		}
	}
}

func TestSharesStayBelowTheSharedFolder(t *testing.T) {
	for _, attributes := range []map[string]string{
		{"share": "/volume1/media"},
		{"share": "/volume1", "subdir": "../../etc"},
		{"share": "../../..", "subdir": ".."},
	} {
		root := filepath.Join(t.TempDir(), "nfs")
		folder := nfsFolder(root, attributes)
		if folder != root && !strings.HasPrefix(folder, root+"/") {
			t.Errorf("%v leads to %s", attributes, folder)
		}
		if err := sharedFolder(root, folder); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("%s: %v", folder, err)
		}
	}
}

func TestTheProvisionersOwnConfigurationIsRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	if got, err := localPlace(file); got != localFolder || err != nil {
		t.Error(got, err)
	}
	text := `{"nodePathMap":[{"node":"DEFAULT_PATH_FOR_NON_LISTED_NODES","paths":["/elsewhere"]}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := localPlace(file); got != "/elsewhere" || err != nil {
		t.Error(got, err)
	}
}

func TestProtobuf(t *testing.T) {
	entry := putBytes(putBytes(nil, 1, []byte("share")), 2, []byte("/volume1"))
	data := putTrue(putBytes(putBytes(nil, 4, []byte("/target")), 8, entry), 6)
	found, err := parse(data)
	if err != nil {
		t.Fatal(err)
	}
	attributes, err := found.texts(8)
	if err != nil || attributes["share"] != "/volume1" || found.text(4) != "/target" || !found.truth(6) || found.truth(7) {
		t.Error(found, attributes, err)
	}
}

func FuzzProtobuf(f *testing.F) {
	f.Add(putBytes(nil, 8, putBytes(nil, 1, []byte("a"))))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{0x09, 1, 2})
	f.Fuzz(func(_ *testing.T, data []byte) {
		if found, err := parse(data); err == nil {
			_, _ = found.texts(8)
		}
	})
}

func TestGratuitousArpAsOnTheWire(t *testing.T) {
	from := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	frame := gratuitous(from, netip.MustParseAddr("10.77.0.10"), 0x0806, 2)
	wanted := []byte{
		255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6, // Ethernet
		0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 77, 0, 10,
		255, 255, 255, 255, 255, 255, 10, 77, 0, 10,
	}
	if !bytes.Equal(frame, wanted) {
		t.Errorf("%v", frame)
	}
}

func TestTheDefaultRoutesInterface(t *testing.T) {
	file := filepath.Join(t.TempDir(), "route")
	table := "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n" +
		"cni0\t00002A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n" +
		"eth0\t00000000\t01004D0A\t0003\t0\t0\t0\t00000000\n"
	if err := os.WriteFile(file, []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := defaultInterface(file); got != "eth0" || err != nil {
		t.Error(got, err)
	}
}
