// Package harness runs the built binary as an operator would, for tests that see
// nothing of it but its processes, its files and its HTTP.
//
//	func TestMain(m *testing.M) { os.Exit(harness.Run(m, pgtest.Run)) }
//
//	func TestSomething(t *testing.T) {
//		dev := harness.StartDev(t, harness.Folder(t))
//		client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
//		…
//		dev.Kill()
//	}
//
// Three promises to whoever runs these tests. Everything listens on loopback, on
// ports that were free. Every file lies in a folder that goes with its test. And no
// process stays: each belongs to a test that ends it, dies with the test binary
// if that is killed, and is looked for once more at the end of the run.
package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// Version is what the binary under test says its version is.
	Version = "under-test"

	// Patience bounds every wait for something that takes seconds at most, on a
	// machine that does other things as well. Only a failing test waits that long.
	Patience = 60 * time.Second

	// buildLimit covers a build with an empty cache on two cores.
	buildLimit = 10 * time.Minute

	// lingering bounds the wait for children of a process that has just been
	// killed. They notice within milliseconds.
	lingering = 10 * time.Second

	// parallel is how many tests run at once, unless -parallel says otherwise. They
	// wait for other processes most of the time, so the number of cores is no guide.
	parallel = "8"
)

// suite is what the tests of one binary share.
var suite struct {
	binary string
	temp   string // TMPDIR of all processes: short enough for a socket's path

	mu      sync.Mutex
	folders []string
}

// Run builds the binary, has tests run m, and makes sure that nothing is left
// over. It returns the exit code. (*testing.M).Run will do for tests; so will
// pgtest.Run, which gives them databases.
func Run(m *testing.M, tests func(*testing.M) int) int {
	dir, err := os.MkdirTemp("", "oncepay-test-")
	if err != nil {
		return complain("make a folder for the run", err)
	}
	if err := prepare(dir); err != nil {
		_ = os.RemoveAll(dir)
		return complain("no binary, no tests", err)
	}
	code := tests(m)
	if list := broken.All(); len(list) > 0 {
		code = complain("exchanges that are not as openapi.yaml says", errors.New(strings.Join(list, "\n")))
	}
	if left := endLeftovers(); len(left) > 0 {
		code = complain("the tests left processes behind, which were killed now", errors.New(strings.Join(left, "; ")))
	}
	if err := os.RemoveAll(dir); err != nil {
		code = complain("tidy up", err)
	}
	return code
}

func complain(what string, err error) int {
	fmt.Fprintf(os.Stderr, "harness: %s: %v\n", what, err)
	return 1
}

// prepare makes the folders of a run and the binary.
func prepare(dir string) error {
	suite.binary, suite.temp = filepath.Join(dir, "payments"), filepath.Join(dir, "t")
	if err := errors.Join(letPass(dir), os.Mkdir(suite.temp, 0o700), letPass(suite.temp)); err != nil {
		return err
	}
	suite.folders = []string{suite.temp}
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", parallel); err != nil {
			return err
		}
	}
	return build(suite.binary)
}

// build builds the binary as `make build` does, or with the race detector where
// the tests themselves have it: then every process of theirs is watched as well. more
// are further flags.
func build(path string, more ...string) error {
	root, err := ModuleRoot()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.version=" + Version, "-o", path}
	cgo := "CGO_ENABLED=0"
	if raceDetector {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.CommandContext(ctx, "go", append(append(args, more...), "./cmd/payments")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// ModuleRoot is the folder with go.mod, at or above the one that we run in.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("there is no go.mod here or above")
		}
		dir = parent
	}
}

// Folder is a new, empty folder that goes with the test. PostgreSQL can reach it
// even where the tests run as root and it must run as somebody else.
func Folder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(letPass(filepath.Dir(dir)), letPass(dir)); err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(dir) // as processes report it
	if err != nil {
		t.Fatal(err)
	}
	suite.mu.Lock()
	defer suite.mu.Unlock()
	suite.folders = append(suite.folders, dir)
	return dir
}

// letPass lets other users pass through, but not look into, a folder of root's.
func letPass(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chmod(dir, 0o711)
}

// AwaitNobodyIn fails the test if a process still works in a folder, or is about
// it by its command line, a little later: what a killed process leaves may take a
// moment to notice.
func AwaitNobodyIn(t testing.TB, dir string) {
	t.Helper()
	var left []found
	for deadline := time.Now().Add(lingering); ; time.Sleep(pollEvery) {
		if left = processesIn(dir); len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	t.Errorf("these processes still run on %s: %v", dir, left)
}

// found is a process that works in one of our folders.
type found struct {
	pid     int
	command string
}

func (f found) String() string { return fmt.Sprintf("%d %s", f.pid, f.command) }

// endLeftovers kills what the tests should have ended: processes that work in our
// folders, and nobody else's.
func endLeftovers() []string {
	suite.mu.Lock()
	defer suite.mu.Unlock()
	var told []string
	for _, dir := range suite.folders {
		for _, f := range processesIn(dir) {
			told = append(told, f.String())
			_ = kill(f.pid)
		}
	}
	slices.Sort(told)
	return slices.Compact(told)
}

// pollEvery is how often a condition outside this process is looked at.
const pollEvery = 10 * time.Millisecond

// Eventually waits until the condition holds, and fails the test if that takes
// longer than the limit.
func Eventually(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}
