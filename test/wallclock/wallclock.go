// Package wallclock lets a program be built whose wall clock can be set off, to see
// that it decides nothing. A program made by Go asks the kernel itself what time it is,
// so no library can be put between; its package time is compiled with another Now
// instead, by Go's -overlay. The monotonic clock stays right, as on a machine whose
// clock was wrong before the program started.
//
//	replaced, err := wallclock.Overlay(ctx, root, dir)
//	// go build -overlay …; run it with ONCEPAY_TEST_CLOCK=25h
package wallclock

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Variable says by how much the wall clock of such a program is ahead, as a duration in
// whole seconds: 25h, or -25h where it is behind. It is read once, at the start. Without
// it the clock is right.
const Variable = "ONCEPAY_TEST_CLOCK"

// ahead goes into package time.
const ahead = `package time

import "syscall"

var testAhead = func() int64 {
	text, set := syscall.Getenv("` + Variable + `")
	if !set {
		return 0
	}
	d, err := ParseDuration(text)
	if err != nil {
		panic("` + Variable + `: " + err.Error())
	}
	return int64(d / Second)
}()
`

// What Now begins with, and what is added to it.
const (
	now   = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	added = "\tsec += testAhead\n"
)

// Overlay writes the edited files into dir, and returns which of Go's own each stands
// for, as -overlay wants it. The Go is the one that builds the module at root. It fails
// if that one's time.Now reads otherwise.
func Overlay(ctx context.Context, root, dir string) (replaced map[string]string, err error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOROOT")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask where Go's own packages are: %w", err)
	}
	goes := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(goes, "time.go"))
	if err != nil {
		return nil, fmt.Errorf("read Go's package time: %w", err)
	}
	if strings.Count(string(source), now) != 1 {
		return nil, fmt.Errorf("this Go's time.Now does not begin as expected, and the overlay must follow it:\n%s", now)
	}
	if dir, err = filepath.Abs(dir); err != nil { // the go command runs elsewhere
		return nil, err
	}
	replaced = map[string]string{}
	for name, text := range map[string]string{"time.go": strings.Replace(string(source), now, now+added, 1), "test_ahead.go": ahead} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
		replaced[filepath.Join(goes, name)] = path
	}
	return replaced, nil
}
