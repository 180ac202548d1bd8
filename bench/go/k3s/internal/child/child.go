// Package child runs the servers that this program starts. They die with it (Pdeathsig); pods' shims do not, as they
// leave their parent at once.
package child

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"funoffshore.bench/k3s/internal/journal"
)

const remembered = 30

// KubeVersion is the variable that tells the Kubernetes programs which release to call themselves.
const KubeVersion = "BENCH_KUBE_VERSION"

// Spec is a program to start.
type Spec struct {
	// Name is how the journal calls it.
	Name string
	// Argv begins with the path of the file; Title replaces it as argv[0] unless empty.
	Argv  []string
	Title string
	Env   []string
	// Log takes its output; nil for the journal.
	Log io.Writer
	// Noise is whether a line is not worth the journal; nil for none.
	Noise func(line string) bool
}

// Child is a running program.
type Child struct {
	Name  string
	cmd   *exec.Cmd
	done  chan struct{}
	mutex sync.Mutex
	tail  []string
	// expected is whether its end is wanted.
	expected atomic.Bool
}

// Group starts children and says which one ended first by itself.
type Group struct {
	journal *journal.Journal
	work    chan func()
	failed  chan error
	mutex   sync.Mutex
	running []*Child
	closed  bool
}

// NewGroup begins the one thread that starts all children: Pdeathsig follows the thread, not the process.
func NewGroup(j *journal.Journal) *Group {
	group := &Group{journal: j, work: make(chan func()), failed: make(chan error, 16)}
	go func() {
		runtime.LockOSThread()
		for job := range group.work {
			job()
		}
	}()
	return group
}

// Failed tells of children that ended by themselves: a journal.Shutdown each.
func (g *Group) Failed() <-chan error { return g.failed }

// Start runs spec.
func (g *Group) Start(spec Spec) (*Child, error) {
	g.mutex.Lock()
	closed := g.closed
	g.mutex.Unlock()
	if closed {
		return nil, fmt.Errorf("%s: the program ends", spec.Name)
	}
	cmd := exec.Command(spec.Argv[0], spec.Argv[1:]...)
	if spec.Title != "" {
		cmd.Args[0] = spec.Title
	}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=")
	cmd.Env = append(cmd.Env, spec.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	child := &Child{Name: spec.Name, cmd: cmd, done: make(chan struct{})}
	output, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = input, input
	started := make(chan error)
	g.work <- func() { started <- cmd.Start() }
	err = <-started
	_ = input.Close()
	if err != nil {
		_ = output.Close()
		return nil, err
	}
	g.mutex.Lock()
	g.running = append(g.running, child)
	g.mutex.Unlock()
	read := make(chan struct{})
	go func() { child.follow(output, spec, g.journal); close(read) }()
	go g.await(child, read)
	return child, nil
}

func (g *Group) await(child *Child, read <-chan struct{}) {
	err := child.cmd.Wait()
	select {
	case <-read:
	case <-time.After(200 * time.Millisecond): // a grandchild holds the pipe
	}
	close(child.done)
	g.mutex.Lock()
	closed := g.closed
	g.mutex.Unlock()
	if closed || child.expected.Load() {
		return
	}
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	g.failed <- journal.Shutdown{Text: fmt.Sprintf("%s exited: %s", child.Name, child.because(how))}
}

// Kill ends all children at once, but lets those named die by SIGTERM within grace.
func (g *Group) Kill(grace time.Duration, gently ...string) {
	g.mutex.Lock()
	g.closed = true
	running := g.running
	g.mutex.Unlock()
	soft := strings.Join(gently, " ")
	var wait []*Child
	for _, child := range running {
		if soft != "" && strings.Contains(soft, child.Name) {
			_ = child.cmd.Process.Signal(syscall.SIGTERM)
			wait = append(wait, child)
			continue
		}
		_ = child.cmd.Process.Kill()
	}
	until := time.After(grace)
	for _, child := range wait {
		select {
		case <-child.done:
		case <-until:
			_ = child.cmd.Process.Kill()
		}
	}
}

// Stop ends one child for good; its end is not reported as a failure.
func (g *Group) Stop(child *Child, grace time.Duration) {
	child.expected.Store(true)
	_ = child.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-child.done:
	case <-time.After(grace):
		_ = child.cmd.Process.Kill()
		<-child.done
	}
}

// Done is closed when the child has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Tail is its last lines.
func (c *Child) Tail() []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return append([]string(nil), c.tail...)
}

func (c *Child) follow(output io.ReadCloser, spec Spec, j *journal.Journal) {
	defer func() { _ = output.Close() }()
	lines := bufio.NewReaderSize(output, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		line = strings.TrimRight(line, "\n")
		if line != "" {
			c.remember(line)
			switch {
			case spec.Log != nil:
				_, _ = io.WriteString(spec.Log, line+"\n")
			case spec.Noise == nil || !spec.Noise(line):
				j.Raw(c.Name, line)
			}
		}
		if err != nil {
			return
		}
	}
}

func (c *Child) remember(line string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.tail = append(c.tail, line)
	if len(c.tail) > remembered {
		c.tail = c.tail[1:]
	}
}

// because is the last line in which the child says what failed, else how it ended.
func (c *Child) because(how string) string {
	tail := c.Tail()
	for i := len(tail) - 1; i >= 0; i-- {
		if _, why, found := strings.Cut(tail[i], `"command failed" err="`); found {
			return strings.TrimSuffix(why, `"`)
		}
	}
	return how
}

// Chatter is whether a line of a Kubernetes program only tells that it works ("I1124 10:39:20.8 ..."), or that one of
// its connections to etcd was replaced by another.
func Chatter(line string) bool {
	info := len(line) > 5 && line[0] == 'I' && strings.Trim(line[1:5], "0123456789") == ""
	return info || strings.Contains(line, "addrConn.createTransport failed")
}

// ChatterUnless is Chatter, or nil where everything shall be told.
func ChatterUnless(everything bool) func(string) bool {
	if everything {
		return nil
	}
	return Chatter
}
