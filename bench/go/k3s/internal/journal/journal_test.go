package journal

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestLinesAndExitCodes(t *testing.T) {
	at := time.Date(2026, 11, 24, 2, 57, 25, 0, time.UTC)
	for _, one := range []struct {
		err  error
		code int
		line string
	}{
		{nil, 0, ""},
		{Fatalf("Error: %s", "no"), 1, `time="2026-11-24T02:57:25Z" level=fatal msg="Error: no"` + "\n"},
		{Shutdownf("gone"), 0, `time="2026-11-24T02:57:25Z" level=error msg="Shutdown request received: \"gone\""` + "\n"},
		{errors.New("else"), 1, `time="2026-11-24T02:57:25Z" level=fatal msg="else"` + "\n"},
	} {
		var out bytes.Buffer
		code := New(&out, func() time.Time { return at }).End(one.err)
		if code != one.code || out.String() != one.line {
			t.Errorf("%v: %d, %q", one.err, code, out.String())
		}
	}
}
