package child

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"funoffshore.bench/k3s/internal/journal"
)

func TestTheFirstEndIsToldWithItsReason(t *testing.T) {
	var out bytes.Buffer
	group := NewGroup(journal.New(&out, time.Now))
	script := `echo 'E1124 "command failed" err="no cgroup v2"'; exit 1`
	if _, err := group.Start(Spec{Name: "kubelet", Argv: []string{"/bin/sh", "-c", script}}); err != nil {
		t.Fatal(err)
	}
	err := <-group.Failed()
	if want := (journal.Shutdown{Text: "kubelet exited: no cgroup v2"}); err != want {
		t.Fatalf("it says %v", err)
	}
	if !strings.Contains(out.String(), "kubelet: E1124") {
		t.Fatalf("the journal has %q", out.String())
	}
}

func TestWhatIsStoppedDoesNotFail(t *testing.T) {
	var out bytes.Buffer
	group := NewGroup(journal.New(&out, time.Now))
	running, err := group.Start(Spec{Name: "etcd", Argv: []string{"/bin/sleep", "60"}})
	if err != nil {
		t.Fatal(err)
	}
	group.Stop(running, 5*time.Second)
	if _, err := group.Start(Spec{Name: "other", Argv: []string{"/bin/sleep", "60"}}); err != nil {
		t.Fatal(err)
	}
	group.Kill(time.Second)
	select {
	case err := <-group.Failed():
		t.Fatalf("it says %v", err)
	default:
	}
	if _, err := group.Start(Spec{Name: "late", Argv: []string{"/bin/true"}}); err == nil {
		t.Fatal("something starts after the end")
	}
}

func TestChatter(t *testing.T) {
	for line, wanted := range map[string]bool{
		"I1124 10:39:20.8 1 x.go:1] works":                        true,
		"W1124 10:39:20.8 addrConn.createTransport failed to ...": true,
		"E1124 10:39:20.8 1 x.go:1] broken":                       false,
		"Imported something":                                      false,
	} {
		if Chatter(line) != wanted {
			t.Errorf("%q", line)
		}
	}
}
