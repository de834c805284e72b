package localpg

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// parent runs this test binary as another process that starts a server on dir, in
// the way named or, without a name, as Start does.
func parent(t *testing.T, dir, strategy string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOCALPG_TEST_PARENT="+dir, "LOCALPG_TEST_STRATEGY="+strategy)
	report, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		report.Close()
	})
	return cmd, bufio.NewReader(report)
}

// readURL waits until the parent's server is ready.
func readURL(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "postgres://") {
		t.Fatalf("the parent says %q (%v)", line, err)
	}
	return strings.TrimSpace(line)
}

func kill9(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // "signal: killed"
}

func TestNoProcessSurvivesAParentThatIsKilled(t *testing.T) {
	t.Parallel()
	eachStrategy(t, func(t *testing.T, name string, who func(*cluster) []identity) {
		dir := existing(t)
		cmd, out := parent(t, dir, name)
		url := readURL(t, out)
		query(t, url, `CREATE TABLE kept (n int)`, `INSERT INTO kept VALUES (7)`)
		pids := family(t, postmasterPID(t, dir))
		kill9(t, cmd)
		eventually(t, "postgres and its children are gone", func() bool {
			for _, pid := range pids {
				if alive(pid) {
					return false
				}
			}
			return true
		})
		s := startWith(t, Options{Dir: dir}, who)
		if got := query(t, s.URL(), `SELECT n FROM kept`); got != "7" {
			t.Errorf("got %q after recovery", got)
		}
	})
}

func TestAStartRightAfterTheParentWasKilledSucceeds(t *testing.T) {
	t.Parallel()
	dir := existing(t)
	for range 3 {
		cmd, out := parent(t, dir, "")
		url := readURL(t, out)
		query(t, url, `CREATE TABLE IF NOT EXISTS kept (n int)`)
		kill9(t, cmd)
		s, err := Start(within(t), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		stop(t, s)
	}
}

func TestAnInitdbThatWasKilledLeavesNothingThatLooksLikeACluster(t *testing.T) {
	t.Parallel()
	eachStrategy(t, func(t *testing.T, name string, who func(*cluster) []identity) {
		root := tempDir(t)
		dir := filepath.Join(root, "postgres")
		cmd, out := parent(t, dir, name)
		// The moment: initdb has written the file by which a cluster is known.
		eventually(t, "initdb is at work", func() bool {
			found, _ := filepath.Glob(dir + ".initdb-*/data/PG_VERSION")
			return len(found) == 1
		})
		kill9(t, cmd)
		if rest, _ := io.ReadAll(out); len(rest) > 0 {
			t.Fatalf("initdb was too quick for the test: %s", rest)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("there is a folder: %v", err)
		}
		left, _ := filepath.Glob(dir + ".initdb-*")
		if len(left) != 1 {
			t.Fatalf("%d work folders are left", len(left))
		}
		eventually(t, "the last process of initdb lets go of the work folder", func() bool {
			f, free := takeDead(left[0])
			if free {
				_ = unflock(f)
			}
			return free
		})
		s := startWith(t, Options{Dir: dir}, who)
		query(t, s.URL(), `CREATE TABLE fine ()`)
		if left, _ := filepath.Glob(dir + ".initdb-*"); len(left) > 0 {
			t.Errorf("%s is left", left[0])
		}
	})
}

func TestAKilledPostmasterClosesDoneAndTheNextStartRecovers(t *testing.T) {
	t.Parallel()
	eachStrategy(t, func(t *testing.T, _ string, who func(*cluster) []identity) {
		dir := existing(t)
		s := startWith(t, Options{Dir: dir}, who)
		query(t, s.URL(), `CREATE TABLE kept (n int)`, `INSERT INTO kept VALUES (7)`)
		if err := syscall.Kill(postmasterPID(t, dir), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {
		case <-s.Done():
		case <-within(t).Done():
			t.Fatal("Done stays open")
		}
		mustSay(t, s.Err(), "ended by itself", "killed")
		stop(t, s) // has nothing left to do
		s = startWith(t, Options{Dir: dir}, who)
		if got := query(t, s.URL(), `SELECT n FROM kept`); got != "7" {
			t.Errorf("got %q after recovery", got)
		}
	})
}

// A child that is frozen when its postmaster is killed keeps the cluster's shared
// memory. The next start is refused until it is gone, and must not give up.
func TestAStartWaitsForTheChildrenOfAKilledPostmaster(t *testing.T) {
	t.Parallel()
	dir := existing(t)
	cmd, out := parent(t, dir, "")
	readURL(t, out)
	pids := family(t, postmasterPID(t, dir))
	postmaster, child := pids[0], pids[1]
	if err := syscall.Kill(child, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw := func() { _ = syscall.Kill(child, syscall.SIGCONT) }
	defer thaw()
	if err := syscall.Kill(postmaster, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the postmaster is gone", func() bool { return !alive(postmaster) })
	kill9(t, cmd)
	log := &watchedLog{words: "is still in use", seen: thaw}
	startHere(t, Options{Dir: dir, Log: log})
	if log.seen != nil {
		t.Error("nothing was in the way of the start")
	}
}

// bystander is a process that has nothing to do with PostgreSQL.
func bystander(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func TestAStalePostmasterPIDNeitherBlocksNorHarms(t *testing.T) {
	t.Parallel()
	dir := existing(t)
	elsewhere := startHere(t, Options{Dir: existing(t)}) // a postgres, but on another folder
	stranger := bystander(t)
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	for what, pid := range map[string]int{
		"dead":                       dead.Process.Pid,
		"this process":               os.Getpid(),
		"another program":            stranger.Process.Pid,
		"a postgres on other data":   elsewhere.process.cmd.Process.Pid,
		"a single-user run, dead":    -dead.Process.Pid,
		"a number that is no number": 0,
	} {
		// All lines but the first are those of a server of ours on this folder.
		write(t, filepath.Join(dir, "postmaster.pid"),
			fmt.Sprintf("%d\n%s\n1700000000\n5432\n/tmp/%s1/s\n\n  5432001         7\nready   \n", pid, dir, runPrefix))
		if err := os.Chown(filepath.Join(dir, "postmaster.pid"), int(ownerOfPath(t, dir).uid), int(ownerOfPath(t, dir).gid)); err != nil {
			t.Fatal(err)
		}
		s, err := Start(within(t), Options{Dir: dir})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		stop(t, s)
	}
	if !alive(stranger.Process.Pid) {
		t.Error("the stranger was ended")
	}
	query(t, elsewhere.URL(), `SELECT 1`)
}

func ownerOfPath(t *testing.T, path string) owner {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return ownerOf(info)
}

// serverByHand runs a server on an existing cluster without a death signal, as
// somebody else might.
func serverByHand(t *testing.T, dir, socket string) *exec.Cmd {
	t.Helper()
	c := &cluster{dir: dir}
	if err := c.look(); err != nil {
		t.Fatal(err)
	}
	who := identities(c)[0]
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := who.mkdir(socket); err != nil {
		t.Fatal(err)
	}
	bin, err := FindBinaries(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	cmd := who.command(context.Background(), filepath.Join(bin, "postgres"), arguments(dir, socket, nil)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		_ = cmd.Wait()
	})
	eventually(t, "the server by hand is ready", func() bool { return ping(within(t), socket) == nil })
	return cmd
}

// shortDir is a folder whose path leaves room for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "") //nolint:usetesting // t.TempDir has the test's name in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, folderMode()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What a system without death signals may leave: a server of ours whose parent is
// dead.
func TestAnOrphanOfOursIsStopped(t *testing.T) {
	t.Parallel()
	dir := existing(t)
	orphan := serverByHand(t, dir, filepath.Join(shortDir(t), runPrefix+"1", socketFolder))
	ended := make(chan error, 1)
	go func() { ended <- orphan.Wait() }()
	s := startHere(t, Options{Dir: dir})
	query(t, s.URL(), `SELECT 1`)
	if err := <-ended; err != nil {
		t.Errorf("the orphan was not stopped in order: %v", err)
	}
}

func TestAServerThatSomebodyElseStartedIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := existing(t)
	socket := filepath.Join(shortDir(t), "s")
	serverByHand(t, dir, socket)
	ctx, cancel := context.WithTimeout(context.Background(), 10*pollEvery)
	defer cancel()
	if _, err := Start(ctx, Options{Dir: dir}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a start that has to wait says: %v", err)
	}
	err := (&cluster{dir: dir}).endPrevious(within(t), pollEvery)
	if !errors.Is(err, ErrInUse) {
		t.Errorf("after the limit: %v", err)
	}
	mustSay(t, err, "pg_ctl -D", dir)
	if err := ping(within(t), socket); err != nil {
		t.Errorf("the server was disturbed: %v", err)
	}
}

func onlyRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can choose whom to run as")
	}
}

func TestRootGoesOnWithAnotherUserWhereNamespacesAreRefused(t *testing.T) {
	t.Parallel()
	onlyRoot(t)
	refused := identity{name: "a namespace that is refused", attr: func() *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Chroot: filepath.Join(tempDir(t), "nowhere")}
	}}
	dir := existing(t) // root's own, as from before the refusal
	others := strategies()["as another user"]
	s := startWith(t, Options{Dir: dir}, func(c *cluster) []identity { return append([]identity{refused}, others(c)...) })
	query(t, s.URL(), `CREATE TABLE kept (n int)`)
	if ownerOfPath(t, dir).uid == 0 {
		t.Error("the cluster still belongs to root")
	}
	stop(t, s)
	// The cluster stays with its new owner, also where namespaces work.
	s = startHere(t, Options{Dir: dir})
	query(t, s.URL(), `SELECT FROM kept`)
	if ownerOfPath(t, dir).uid == 0 {
		t.Error("the cluster went back to root")
	}
}

func TestAFolderThatTheOtherUserCannotReachIsNamed(t *testing.T) {
	t.Parallel()
	onlyRoot(t)
	closed := filepath.Join(tempDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := start(within(t), Options{Dir: filepath.Join(closed, "deeper", "postgres"), Log: &bytes.Buffer{}}, strategies()["as another user"])
	mustSay(t, err, "user postgres", "may not enter "+closed+",", "chmod o+x '"+closed+"'")
	if _, err := os.Stat(filepath.Join(closed, "deeper", "postgres")); !os.IsNotExist(err) {
		t.Errorf("a cluster was begun: %v", err)
	}
}
