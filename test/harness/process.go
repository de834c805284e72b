package harness

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/tied"
)

// Killed is the exit code of a process that a signal ended.
const Killed = -1

// Command is one call of the binary.
type Command struct {
	Args []string
	// Binary is another build of it, such as an older one. Empty means the one under test.
	Binary string
	// Env comes on top of a bare environment: nothing of the caller's DATABASE_URL
	// or PAYMENTS_… reaches a test.
	Env []string
	// Dir is the working folder. Empty means a new one.
	Dir string
}

// Process is the binary at work. It leads a process group of its own.
type Process struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	stdout string // files: a process under test must never wait for a reader
	stderr string
	began  time.Time
	done   chan struct{}
	never  []string // what its log must not hold
	code   int      // written before done is closed
	orphan bool     // somebody of its group outlived it; written before done is closed
}

// disasters are what no process under test may have to log: a race that the
// detector saw, a crash, an error that nobody foresaw.
var disasters = []string{"DATA RACE", "panic:", "fatal error:", `"msg":"panic"`, `"msg":"unexpected"`}

// Start starts the binary and returns at once. The process ends with the test, if
// not before; then its log is looked through for what must never be in it.
func Start(t testing.TB, c Command) *Process {
	t.Helper()
	if suite.binary == "" {
		t.Fatal("harness: this package's TestMain does not call harness.Run")
	}
	logs := t.TempDir()
	if c.Dir == "" {
		c.Dir = Folder(t)
	}
	p := &Process{
		t: t, name: strings.Join(c.Args[:min(1, len(c.Args))], ""), done: make(chan struct{}),
		stdout: filepath.Join(logs, "stdout"), stderr: filepath.Join(logs, "stderr"),
		never: append(slices.Clone(disasters), cards...),
	}
	out, err := os.Create(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	log, err := os.Create(p.stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(cmp.Or(c.Binary, suite.binary), c.Args...) //nolint:noctx // ended below, with the test
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = c.Dir, environment(c.Env), out, log
	p.began = time.Now()
	if err := StartTied(p.cmd); err != nil {
		t.Fatalf("start %v: %v", c.Args, err)
	}
	go p.attend()
	t.Cleanup(p.finish)
	return p
}

// StartTied starts a process in a group of its own. On Linux it is killed when this one
// ends, in whatever way: after a panic, or when `go test` gives up, no cleanup of a test
// runs. Elsewhere it outlives a test binary that is killed. It may run as another user,
// if the command says so.
func StartTied(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	return tied.Start(cmd, syscall.SIGKILL)
}

// environment is what a process under test gets: how to find programs, where to
// put what is temporary, and what the test says.
func environment(more []string) []string {
	env := []string{"TMPDIR=" + suite.temp, "HOME=" + suite.temp, "LC_ALL=C"}
	for _, name := range []string{"PATH", "PG_BIN_DIR", "LD_LIBRARY_PATH", "GOCOVERDIR", "GORACE"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, more...)
}

// attend waits for the end of the process, whoever brings it about. Its group is
// empty then, or a moment later: a child that was just being forked has to notice.
func (p *Process) attend() {
	_ = p.cmd.Wait() // the exit code says it
	p.code = p.cmd.ProcessState.ExitCode()
	for deadline := time.Now().Add(lingering); groupLives(p.PID()); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			p.orphan = true
			_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
			break
		}
	}
	close(p.done)
}

// finish ends the process with its test, and looks through what it left.
func (p *Process) finish() {
	p.Kill()
	if p.orphan {
		p.t.Errorf("%s left processes in its group", p.name)
	}
	log := p.Stderr()
	for _, words := range p.never {
		if strings.Contains(log, words) {
			p.t.Errorf("%s's log holds %q", p.name, words)
		}
	}
	if p.t.Failed() {
		p.t.Logf("%s (exit code %d) said last:\n%s", p.name, p.code, tail(log))
	}
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stdout and Stderr are what the process has said so far.
func (p *Process) Stdout() string { return p.read(p.stdout) }

// Stderr is where its log goes.
func (p *Process) Stderr() string { return p.read(p.stderr) }

func (p *Process) read(path string) string {
	p.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		p.t.Errorf("read the output of %s: %v", p.name, err)
	}
	return string(text)
}

// Ended says whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Kill ends the process as a loss of power would, and returns when it is gone. What
// it started itself is not touched.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("signal %s to %s: %v", sig, p.name, err)
	}
}

// SignalGroup sends a signal to the process's whole group, as a terminal does.
func (p *Process) SignalGroup(sig syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(-p.PID(), sig); err != nil {
		p.t.Fatalf("signal %s to the group of %s: %v", sig, p.name, err)
	}
}

// Freeze stops the process where it stands, and returns once no thread of it runs.
func (p *Process) Freeze() {
	p.t.Helper()
	p.Signal(syscall.SIGSTOP)
	Eventually(p.t, Patience, p.name+" has stopped", func() bool { return stopped(p.PID()) })
}

// Thaw lets a frozen process go on.
func (p *Process) Thaw() {
	p.t.Helper()
	p.Signal(syscall.SIGCONT)
}

// Wait returns the exit code. It fails the test if the process does not end.
func (p *Process) Wait() int {
	p.t.Helper()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	select {
	case <-p.done:
	case <-limit.C:
		p.t.Fatalf("%s did not end within %s", p.name, Patience)
	}
	return p.code
}

// awaitReady waits for a sign that the process is ready, for as long as it lives.
func (p *Process) awaitReady(ready func() bool) {
	p.t.Helper()
	Eventually(p.t, Patience, p.name+" is ready", func() bool {
		if ready() {
			return true
		}
		if p.Ended() {
			p.t.Fatalf("%s ended with code %d before it was ready:\n%s", p.name, p.code, tail(p.Stderr()))
		}
		return false
	})
}

// Result is what a command that ran to its end left.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Call runs the binary to its end.
func Call(t testing.TB, c Command) Result {
	t.Helper()
	p := Start(t, c)
	return Result{Code: p.Wait(), Stdout: p.Stdout(), Stderr: p.Stderr()}
}

// Must checks the exit code, and that the command said some words, on either
// stream.
func (r Result) Must(t testing.TB, code int, words ...string) {
	t.Helper()
	said := r.Stdout + r.Stderr
	wrong := r.Code != code
	if wrong {
		t.Errorf("exit code %d, not %d", r.Code, code)
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			wrong = true
			t.Errorf("it does not say %q", w)
		}
	}
	if wrong {
		t.Logf("it says:\n%s", tail(said))
	}
}

// tail is the end of a text, short enough to be read.
func tail(text string) string {
	const lines, width = 25, 400
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	left := max(0, len(all)-lines)
	all = all[left:]
	for i, l := range all {
		if len(l) > width {
			all[i] = l[:width] + " …"
		}
	}
	if left > 0 {
		all = append([]string{fmt.Sprintf("(%d lines before)", left)}, all...)
	}
	return strings.Join(all, "\n")
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func kill(pid int) error {
	if pid <= 1 {
		return fmt.Errorf("process %d is none of ours", pid)
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
