// Package journal writes lines as K3s does (logrus text) and names the two ways in which the program ends by itself.
package journal

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Fatal is a start-up error: one level=fatal line, exit 1.
type Fatal struct{ Text string }

func (f Fatal) Error() string { return f.Text }

// Fatalf makes a Fatal.
func Fatalf(format string, args ...any) error { return Fatal{fmt.Sprintf(format, args...)} }

// Shutdown is an error after start-up: one line that says so, exit 0.
type Shutdown struct{ Text string }

func (s Shutdown) Error() string { return s.Text }

// Shutdownf makes a Shutdown.
func Shutdownf(format string, args ...any) error { return Shutdown{fmt.Sprintf(format, args...)} }

// Journal is safe for use by many goroutines.
type Journal struct {
	mutex sync.Mutex
	out   io.Writer
	now   func() time.Time
}

// New writes to out; now is the clock for the stamps.
func New(out io.Writer, now func() time.Time) *Journal { return &Journal{out: out, now: now} }

// Stderr is what systemd puts into the journal.
func Stderr() *Journal { return New(os.Stderr, time.Now) }

func (j *Journal) say(level, format string, args []any) {
	line := fmt.Sprintf("time=%q level=%s msg=%q\n", j.now().Format(time.RFC3339), level, fmt.Sprintf(format, args...))
	j.mutex.Lock()
	defer j.mutex.Unlock()
	_, _ = io.WriteString(j.out, line)
}

// Info says what goes on.
func (j *Journal) Info(format string, args ...any) { j.say("info", format, args) }

// Warn says what looks wrong and does not stop the program.
func (j *Journal) Warn(format string, args ...any) { j.say("warning", format, args) }

// Error says what failed and will be tried again.
func (j *Journal) Error(format string, args ...any) { j.say("error", format, args) }

// Raw writes a line of another program, prefixed with its name.
func (j *Journal) Raw(name, line string) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	_, _ = fmt.Fprintf(j.out, "%s: %s\n", name, line)
}

// End says why the program ends and returns its exit code: nil 0, Shutdown 0, everything else 1.
func (j *Journal) End(err error) int {
	switch why := err.(type) {
	case nil:
		return 0
	case Shutdown:
		j.say("error", "%s", []any{fmt.Sprintf("Shutdown request received: %q", why.Text)})
		return 0
	default:
		j.say("fatal", "%s", []any{err.Error()})
		return 1
	}
}
