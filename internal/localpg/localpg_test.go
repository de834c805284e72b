package localpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience bounds every wait of a test. It only matters when something is broken,
// or the machine is very busy.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if dir := os.Getenv("LOCALPG_TEST_PARENT"); dir != "" {
		beParent(dir, os.Getenv("LOCALPG_TEST_STRATEGY"), os.NewFile(3, "report"))
		return
	}
	m.Run()
	_ = os.RemoveAll(prototype.dir)
}

// prototype is a cluster that was made and stopped once, for the tests that are
// not about making one.
var prototype struct {
	once sync.Once
	dir  string
	err  error
}

// existing is the folder of a cluster of the test's own that was stopped in order.
func existing(t *testing.T) string {
	t.Helper()
	prototype.once.Do(func() {
		if prototype.dir, prototype.err = os.MkdirTemp("", "localpg-test-"); prototype.err != nil { //nolint:usetesting // outlives the first test
			return
		}
		if prototype.err = os.Chmod(prototype.dir, folderMode()); prototype.err != nil {
			return
		}
		s, err := Start(within(t), Options{Dir: filepath.Join(prototype.dir, "postgres")})
		if err == nil {
			err = s.Stop(within(t))
		}
		prototype.err = err
	})
	if prototype.err != nil {
		t.Fatalf("make a cluster: %v", prototype.err)
	}
	dir := filepath.Join(tempDir(t), "postgres")
	if out, err := exec.Command("cp", "-pR", filepath.Join(prototype.dir, "postgres"), dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the cluster: %v: %s", err, out)
	}
	return dir
}

// beParent is the process that a test kills: it starts a server, reports its URL
// and waits for the end.
func beParent(dir, strategy string, report *os.File) {
	who := strategies()[strategy]
	if strategy == "" {
		who = identities
	}
	s, err := start(context.Background(), Options{Dir: dir}, who)
	if err != nil {
		fmt.Fprintln(report, "failed:", err)
		return
	}
	fmt.Fprintln(report, s.URL())
	select {}
}

const inNamespace = "in a user namespace"

// strategies are the ways to run that this user has.
func strategies() map[string]func(*cluster) []identity {
	if os.Geteuid() != 0 {
		return map[string]func(*cluster) []identity{"as this user": identities}
	}
	all := map[string]func(*cluster) []identity{
		"as another user": func(c *cluster) []identity {
			var list []identity
			for _, who := range identities(c) {
				if who.owner != nil {
					list = append(list, who)
				}
			}
			return list
		},
	}
	bin, err := FindBinaries(os.Getenv)
	if list := namespaced(); err == nil && len(list) > 0 && list[0].tryIn(context.Background(), bin, "/") == nil {
		all[inNamespace] = func(*cluster) []identity { return list } // where the kernel lets root make one
	}
	return all
}

// eachStrategy runs a test in every way that this user has.
func eachStrategy(t *testing.T, f func(t *testing.T, name string, who func(*cluster) []identity)) {
	if _, ok := strategies()[inNamespace]; !ok && os.Geteuid() == 0 {
		t.Log("not tried in a user namespace, which this kernel does not give to root")
	}
	for name, who := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, name, who)
		})
	}
}

func startWith(t *testing.T, o Options, who func(*cluster) []identity) *Server {
	t.Helper()
	s, err := start(within(t), o, who)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func startHere(t *testing.T, o Options) *Server {
	t.Helper()
	return startWith(t, o, identities)
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// within is a context for one step of a test.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// query runs statements and returns the first column of the last one's first row
// as text, or "".
func query(t *testing.T, url string, statements ...string) (value string) {
	t.Helper()
	ctx := within(t)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		value = ""
		rows, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if last := rows[len(rows)-1].Rows; len(last) > 0 {
			value = string(last[0][0])
		}
	}
	return value
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for ctx := within(t); !holds(); {
		if pause(ctx, pollEvery) != nil {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// tree describes everything in a folder: what it is called, holds and when it
// changed.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Mode(), info.ModTime(), info.Size())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			fmt.Fprintf(&b, "%x\n", text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tempDir is a temporary folder that every user may pass through, if we are root.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), folderMode()), os.Chmod(dir, folderMode())); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustSay(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("there was no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

// alive reports whether a process exists and is not a zombie.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !bytes.HasPrefix(state, []byte("Z"))
}

// postmasterPID is what the cluster's postmaster.pid says.
func postmasterPID(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.SplitN(string(text), "\n", 2)[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// family are a postmaster and its children.
func family(t *testing.T, postmaster int) []int {
	t.Helper()
	text, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{postmaster}
	for line := range strings.Lines(string(text)) {
		var pid, ppid int
		if _, err := fmt.Sscan(line, &pid, &ppid); err == nil && ppid == postmaster {
			pids = append(pids, pid)
		}
	}
	if len(pids) < 5 {
		t.Fatalf("the server has only %d processes", len(pids))
	}
	return pids
}

func TestDataSurvivesARestart(t *testing.T) {
	t.Parallel()
	eachStrategy(t, func(t *testing.T, _ string, who func(*cluster) []identity) {
		dir := filepath.Join(tempDir(t), "data", "postgres")
		o := Options{Dir: dir, Database: `on"ce pay`}
		s := startWith(t, o, who)
		query(t, s.URL(), `CREATE TABLE kept (n int)`, `INSERT INTO kept VALUES (7)`)
		if err := s.Err(); err != nil {
			t.Errorf("a running server has an error: %v", err)
		}
		stop(t, s)
		select {
		case <-s.Done():
		default:
			t.Error("Done is open after Stop")
		}
		if err := s.Err(); err != nil {
			t.Errorf("an orderly stop is an error: %v", err)
		}
		s = startWith(t, o, who)
		if got := query(t, s.URL(), `SELECT n FROM kept`); got != "7" {
			t.Errorf("got %q after the restart", got)
		}
	})
}

func TestTheServerIsDurablePrivateAndInUTC(t *testing.T) {
	t.Parallel()
	s := startHere(t, Options{Dir: existing(t), Settings: map[string]string{"work-mem": "5MB"}})
	for name, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
		"listen_addresses": "", "server_encoding": "UTF8", "lc_collate": "C", "timezone": "UTC",
		"max_connections": "100", "shared_buffers": "128MB", "log_statement": "none", "work_mem": "5MB",
	} {
		if name == "lc_collate" { // no longer a setting in newer versions
			if got := query(t, s.URL(), `SELECT datcollate FROM pg_database WHERE datname = current_database()`); got != want {
				t.Errorf("the collation is %q", got)
			}
			continue
		}
		if got := query(t, s.URL(), `SHOW `+name); got != want {
			t.Errorf("%s is %q instead of %q", name, got, want)
		}
	}
	cfg, err := pgx.ParseConfig(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(cfg.Host)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the socket's folder has mode %o", info.Mode().Perm())
	}
	if group, err := syscall.Getpgid(s.process.cmd.Process.Pid); err != nil || group == syscall.Getpgrp() {
		t.Errorf("the server is in our process group, where a Ctrl-C reaches it (%v)", err)
	}
}

func TestTheURLSuitsLibpq(t *testing.T) {
	t.Parallel()
	bin, err := FindBinaries(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	s := startHere(t, Options{Dir: existing(t), Database: "oncepay"})
	out, err := exec.Command(filepath.Join(bin, "psql"), s.URL(), "-XAtc", "SELECT current_database()").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "oncepay" {
		t.Errorf("psql says %q (%v)", out, err)
	}
}

func TestAThrowawayServerLeavesNothingBehind(t *testing.T) {
	tmp := shortDir(t)
	t.Setenv("TMPDIR", tmp)
	t.Setenv("PAYMENTS_SECRET", "not for postgres")
	s := startHere(t, Options{})
	if entries, _ := os.ReadDir(tmp); len(entries) != 1 {
		t.Errorf("%d entries instead of one folder", len(entries))
	}
	for _, e := range s.process.cmd.Env {
		if strings.HasPrefix(e, "PAYMENTS_") {
			t.Errorf("postgres inherits %s", e)
		}
	}
	stop(t, s)
	stop(t, s) // again, without harm
	if entries, _ := os.ReadDir(tmp); len(entries) > 0 {
		t.Errorf("%s is left", entries[0].Name())
	}
}

func TestTheNextStartRemovesWhatAKilledRunLeft(t *testing.T) {
	t.Parallel()
	parent := tempDir(t)
	dead, err := newScratch(parent, "run-")
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.lock.Close(); err != nil { // as the kernel does for a dead process
		t.Fatal(err)
	}
	used, err := newScratch(parent, "other-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(used.dir, filepath.Join(parent, "run-used")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(parent, "run-unmarked", "precious"), "")
	write(t, filepath.Join(parent, "run-mismarked", markName), "mine")
	if err := os.Symlink(tempDir(t), filepath.Join(parent, "run-link")); err != nil {
		t.Fatal(err)
	}

	next, err := newScratch(parent, "run-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead.dir); !os.IsNotExist(err) {
		t.Error("the dead run's folder is still there")
	}
	for _, name := range []string{filepath.Base(next.dir), "run-used", "run-unmarked/precious", "run-mismarked", "run-link"} {
		if _, err := os.Lstat(filepath.Join(parent, name)); err != nil {
			t.Errorf("%s was removed without proof", name)
		}
	}
}

func TestStopOnceTheContextHasEndedLosesNoCommit(t *testing.T) {
	t.Parallel()
	dir := existing(t)
	s := startHere(t, Options{Dir: dir})
	query(t, s.URL(), `CREATE TABLE kept (n int)`, `INSERT INTO kept VALUES (7)`)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Stop(ended); err != nil {
		t.Errorf("stop: %v", err)
	}
	s = startHere(t, Options{Dir: dir})
	if got := query(t, s.URL(), `SELECT n FROM kept`); got != "7" {
		t.Errorf("got %q after recovery", got)
	}
}

func TestADataFolderMayBeDeeperThanASocketCanBe(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), strings.Repeat("very/deep/and with spaces/", 10), "postgres")
	s := startHere(t, Options{Dir: dir})
	if got := query(t, s.URL(), `SHOW data_directory`); !strings.HasSuffix(got, "with spaces/postgres") {
		t.Errorf("the data is in %s", got)
	}
}

func TestTwoNamesOfOneFolderAreOneCluster(t *testing.T) {
	t.Parallel()
	dir := existing(t)
	startHere(t, Options{Dir: dir})
	link := filepath.Join(tempDir(t), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	_, err := Start(within(t), Options{Dir: link})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("the second start says: %v", err)
	}
}

func TestAClusterOfAnotherVersionIsRefusedAndUntouched(t *testing.T) {
	t.Parallel()
	for version, words := range map[string][]string{
		"14":  {"PostgreSQL 14", "PG_BIN_DIR", "pg_upgrade", "Nothing was touched"},
		"99":  {"PostgreSQL 99", "PG_BIN_DIR", "pg_upgrade", "Nothing was touched"},
		"12":  {"PostgreSQL 12", "oldest", "pg_upgrade", "Nothing was touched"},
		"9.6": {"unknown PostgreSQL version", "not touched"},
		"":    {"unknown PostgreSQL version", "not touched"},
	} {
		bin := tempDir(t)
		fake(t, filepath.Join(bin, "postgres"), `echo "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)"`)
		fake(t, filepath.Join(bin, "initdb"), `exit 1`)
		parent := tempDir(t)
		dir := filepath.Join(parent, "postgres")
		write(t, filepath.Join(dir, "PG_VERSION"), version+"\n")
		write(t, filepath.Join(dir, "base", "1", "1259"), "rows")
		before := tree(t, dir)
		_, err := Start(within(t), Options{Dir: dir, BinDir: bin, Log: &bytes.Buffer{}})
		mustSay(t, err, words...)
		if tree(t, dir) != before {
			t.Errorf("version %q: the folder was touched", version)
		}
		if entries, _ := os.ReadDir(parent); len(entries) != 1 {
			t.Errorf("version %q: something is left beside the folder", version)
		}
	}
}

func TestAFolderThatIsNoClusterIsRefusedAndUntouched(t *testing.T) {
	t.Parallel()
	parent := tempDir(t)
	dir, file := filepath.Join(parent, "holiday"), filepath.Join(parent, "letter")
	write(t, filepath.Join(dir, "photo.jpg"), "sea")
	write(t, file, "Dear")
	before := tree(t, dir) + tree(t, file)
	_, err := Start(within(t), Options{Dir: dir})
	mustSay(t, err, dir, "photo.jpg", "not touched")
	_, err = Start(within(t), Options{Dir: file})
	mustSay(t, err, "is a file", "not touched")
	if after := tree(t, dir) + tree(t, file); after != before {
		t.Errorf("something was touched:\n%s\nwas\n%s", after, before)
	}
	if entries, _ := os.ReadDir(parent); len(entries) != 2 {
		t.Error("something is left beside them")
	}
}

func TestAnEmptyFolderIsFilled(t *testing.T) {
	t.Parallel()
	startHere(t, Options{Dir: tempDir(t)})
}

func TestASecondStartOnTheSameFolderIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "postgres")
	var wg sync.WaitGroup
	servers, errs := make([]*Server, 4), make([]error, 4)
	for i := range servers {
		wg.Go(func() { servers[i], errs[i] = Start(within(t), Options{Dir: dir, Log: &bytes.Buffer{}}) })
	}
	wg.Wait()
	running := 0
	for i, s := range servers {
		if s != nil {
			running++
			defer stop(t, s)
			continue
		}
		if !errors.Is(errs[i], ErrInUse) {
			t.Errorf("the refusal says: %v", errs[i])
		}
	}
	if running != 1 {
		t.Fatalf("%d servers run", running)
	}
	_, err := Start(within(t), Options{Dir: dir})
	mustSay(t, err, strconv.Itoa(os.Getpid()), dir)
}

func TestSettingsThatWouldUndoThePromisesAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"listen_addresses", "Listen-Addresses", "port", "unix_socket_directories", "data_directory", "hba_file"} {
		_, err := Start(within(t), Options{Settings: map[string]string{name: "x"}})
		mustSay(t, err, "cannot be changed")
	}
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	dir := existing(t)
	_, err := Start(within(t), Options{Dir: dir, Settings: map[string]string{"shared_buffers": "a lot"}})
	mustSay(t, err, "did not start", `invalid value for parameter "shared_buffers"`)
	startHere(t, Options{Dir: dir}) // and holds on to nothing
}

func TestAStartThatIsBrokenOffLeavesNoClusterAndNoProcess(t *testing.T) {
	t.Parallel()
	parent := tempDir(t)
	dir := filepath.Join(parent, "postgres")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log := &watchedLog{words: "creating configuration files", seen: cancel}
	_, err := Start(ctx, Options{Dir: dir, Log: log})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("the error is %v", err)
	}
	if entries, _ := os.ReadDir(parent); len(entries) > 0 {
		t.Errorf("%s is left", entries[0].Name())
	}
	startHere(t, Options{Dir: dir})
}

// watchedLog calls seen once the words were written.
type watchedLog struct {
	words string
	seen  func()
	text  bytes.Buffer
}

func (l *watchedLog) Write(p []byte) (int, error) {
	l.text.Write(p)
	if l.seen != nil && strings.Contains(l.text.String(), l.words) {
		l.seen()
		l.seen = nil
	}
	return len(p), nil
}

func TestTheLogHasNoStatementsParametersOrRows(t *testing.T) {
	t.Parallel()
	const secret = "4111111111111111"
	dir := existing(t)
	s := startHere(t, Options{Dir: dir})
	ctx := within(t)
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, `CREATE TABLE cards (pan text PRIMARY KEY CHECK (pan <> 'x'))`); err != nil {
		t.Fatal(err)
	}
	for _, insert := range []string{secret, secret} { // the second is a duplicate, whose DETAIL quotes the row
		_, _ = conn.Exec(ctx, `INSERT INTO cards VALUES ($1)`, insert)
	}
	_, _ = conn.Exec(ctx, `SELECT $1::text::uuid`, secret)                  // the message quotes the value
	_, _ = conn.Exec(ctx, `SELEKT '`+secret+`'`)                            // so does a syntax error's STATEMENT
	_, _ = conn.Exec(ctx, `DO $$ BEGIN RAISE WARNING '`+secret+`'; END $$`) // and whatever a function says
	// A crash quotes the statement that was running.
	_, err = conn.Exec(ctx, fmt.Sprintf(`COPY (SELECT '%s') TO PROGRAM 'kill -9 $PPID'`, secret))
	if err == nil {
		t.Error("the backend survived")
	}
	logPath := dir + ".log"
	eventually(t, "the crash, and a second beginning, in the log", func() bool {
		text, err := os.ReadFile(logPath)
		return err == nil && strings.Contains(string(text), "was terminated by signal 9") && strings.Count(string(text), "ready to accept connections") == 2
	})
	stop(t, s)
	text, err := os.ReadFile(logPath)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), secret) {
		t.Errorf("the log quotes a value:\n%s", text)
	}
	if info, _ := os.Stat(logPath); info.Mode().Perm() != 0o600 {
		t.Errorf("the log has mode %o", info.Mode().Perm())
	}
}

func TestAnOvergrownLogIsSetAside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(tempDir(t), "postgres.log")
	write(t, path, strings.Repeat("x", logLimit+1))
	for range 2 {
		f, err := openLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	now, err1 := os.Stat(path)
	old, err2 := os.Stat(path + ".1")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if now.Size() != 0 || old.Size() != logLimit+1 {
		t.Errorf("the logs have %d and %d bytes", now.Size(), old.Size())
	}
}

func TestOnlyTheEndOfTheOutputIsRemembered(t *testing.T) {
	t.Parallel()
	o := &output{}
	for range 100 {
		_, _ = o.Write(bytes.Repeat([]byte("x"), tailLimit/3))
	}
	_, _ = o.Write([]byte("the last word\n"))
	if words := o.lastWords(); len(words) > tailLimit || !strings.HasSuffix(words, "the last word") {
		t.Errorf("%d bytes are remembered", len(words))
	}
}
