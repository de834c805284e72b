package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// runLimit is for a run of a few seconds on a machine that is busy with other tests.
const runLimit = 3 * time.Minute

// benchRun is the program in processes of its own. Its temporary folder, which is in
// the environment of each of them, tells them from others.
type benchRun struct {
	t        *testing.T
	cmd      *exec.Cmd
	dir      string
	out      bytes.Buffer
	progress lines
}

// lines is written by one goroutine and read by another.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func startBench(t *testing.T, args ...string) *benchRun {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench-test-") //nolint:usetesting // t.TempDir's path is too long for a socket, and nobody else may pass through it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	t.Cleanup(cancel)
	r := &benchRun{t: t, dir: dir, cmd: exec.CommandContext(ctx, os.Args[0], args...)}
	r.cmd.Env = append(os.Environ(), asBench+"=1", "TMPDIR="+dir)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.progress
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a shell does it
	r.cmd.WaitDelay = 10 * time.Second
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// waitFor waits until something has happened, and fails if the run ends before.
func (r *benchRun) waitFor(what string, happened func() bool) {
	r.t.Helper()
	for !happened() {
		if p, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(r.cmd.Process.Pid), "stat")); err != nil || bytes.Contains(p, []byte(") Z ")) {
			r.t.Fatalf("it ended before %s:\n%s", what, &r.progress)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processes are the names of those that live, the run's own left out.
func (r *benchRun) processes() (names []string) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == r.cmd.Process.Pid {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !bytes.Contains(env, []byte("TMPDIR="+r.dir)) {
			continue
		}
		name, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "comm")) // gone by now, then it has none
		names = append(names, strings.TrimSpace(string(name)))
	}
	return names
}

// mustLeaveNothing is called when the run has ended.
func (r *benchRun) mustLeaveNothing() {
	r.t.Helper()
	if left := r.processes(); len(left) > 0 {
		r.t.Errorf("processes were left: %v", left)
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		r.t.Errorf("left in the temporary folder: %s", e.Name())
	}
}

// Everything once, in small. It also notices when the product's statements have
// changed in a way that pgbench cannot follow.
func TestWholeRunInSmall(t *testing.T) {
	t.Parallel()
	table := filepath.Join(t.TempDir(), "table.md")
	profiles := t.TempDir()
	r := startBench(t, "--connections=21", "--stored=50", "--duration=1s", "--rounds=1", "--json", "--markdown="+table, "--profile="+profiles)
	if err := r.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &r.progress)
	}
	r.mustLeaveNothing()
	var got map[string]float64
	all := strings.Split(strings.TrimSpace(r.out.String()), "\n")
	if err := json.Unmarshal([]byte(all[len(all)-1]), &got); err != nil || len(all) != 1 {
		t.Fatalf("%d lines, %v:\n%s", len(all), err, &r.out)
	}
	for _, key := range []string{"connections", "create_per_second", "create_ratio", "replay_per_second", "conflict_per_second", "mixed_per_second", "p50_ms", "p99_ms",
		"floor_per_second", "floor_p50_ms", "floor_p99_ms", "other_floor_per_second", "api_cpu_us", "generator_cpu_us", "database_cpu_us", "floor_database_cpu_us", "wal_bytes", "floor_wal_bytes"} {
		if got[key] <= 0 {
			t.Errorf("%s is %g", key, got[key])
		}
	}
	if got["stored"] != 50 || got["rounds"] != 1 || got["floor_sessions"]+got["other_floor_sessions"] != 41 {
		t.Errorf("%v", got)
	}
	text, err := os.ReadFile(table)
	if err != nil || !strings.Contains(string(text), "takes 0 ms") || !strings.Contains(string(text), "| 50 | 21 |") {
		t.Errorf("%v\n%s", err, text)
	}
	for _, kind := range []string{"cpu", "allocs"} {
		if info, err := os.Stat(filepath.Join(profiles, "50-stored-21-connections."+kind+".pprof")); err != nil || info.Size() == 0 {
			t.Errorf("the profile of %s: %v", kind, err)
		}
	}
}

func TestCtrlCEndsEverythingAndTellsWhatWasMeasured(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		when  func(r *benchRun) bool
		says  []string
		table bool
	}{
		"while the databases are built": {
			// Not pg_config, which comes first: that is a script, whose children end by themselves.
			when: func(r *benchRun) bool {
				return slices.ContainsFunc(r.processes(), func(name string) bool { return name == "initdb" || name == "postgres" })
			},
			says: []string{"payments-bench: stopped: none of 2 lines had been measured"},
		},
		"while pgbench runs": {
			when: func(r *benchRun) bool {
				return strings.Contains(r.progress.String(), "1 connections, round 1 of 1") && strings.Contains(strings.Join(r.processes(), " "), "pgbench")
			},
			says:  []string{"payments-bench: stopped: 1 of 2 lines had been measured", "the rows of the last series were not counted"},
			table: true,
		},
		"while payments are stored": {
			when: func(r *benchRun) bool { return strings.Contains(r.progress.String(), "storing") },
			says: []string{"payments-bench: stopped: none of 2 lines had been measured"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startBench(t, "--connections=1,2", "--stored=10", "--duration=1s", "--rounds=1", "--json")
			r.waitFor(name, func() bool { return c.when(r) })
			if err := syscall.Kill(-r.cmd.Process.Pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			err := r.cmd.Wait()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v", err)
			}
			r.mustLeaveNothing()
			told := r.progress.String()
			for _, want := range c.says {
				if !strings.Contains(told, want) {
					t.Errorf("it does not say %q:\n%s", want, told)
				}
			}
			if got := strings.Contains(told, "| 10 | 1 |"); got != c.table {
				t.Errorf("a table: %t, want %t:\n%s", got, c.table, told)
			}
			if r.out.Len() > 0 {
				t.Errorf("results of a run that was stopped:\n%s", &r.out)
			}
		})
	}
}
