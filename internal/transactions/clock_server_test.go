package transactions

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// fakeTime is where packages put the library that stands between a program and its
// clock: Debian's and Fedora's, and Arch's.
var fakeTime = []string{"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1"}

// clockedServer is a PostgreSQL of its own whose wall clock a test sets while it runs,
// for all its sessions at once, as an operator or NTP does. Its monotonic clock is the
// machine's. (dbClock is quicker, and is enough where only what our own statements ask
// for counts.)
type clockedServer struct {
	*localpg.Server
	ahead string // the file that says by how much
	named int    // databases so far
}

// newClockedServer starts one. Without the library there is nothing to be tried.
func newClockedServer(t *testing.T) *clockedServer {
	t.Helper()
	var library string
	for _, pattern := range fakeTime {
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // the only error is a malformed pattern
			library = found[0]
			break
		}
	}
	if library == "" {
		t.Skip("libfaketime is not installed: ./scripts/install-faketime.sh installs it (Debian's package is libfaketime)")
	}
	programs, err := localpg.FindBinaries(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &clockedServer{ahead: filepath.Join(dir, "ahead")}
	s.set(t, 0)
	// What localpg starts gets none of our environment, so the programs bring theirs.
	preload := fmt.Sprintf("LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=%s FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 ", library, s.ahead)
	for program, env := range map[string]string{"initdb": "", "postgres": preload} {
		script := fmt.Sprintf("#!/bin/sh\n%sexec '%s' \"$@\"\n", env, filepath.Join(programs, program))
		if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// PostgreSQL may run as somebody else than us.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o711)); err != nil {
		t.Fatal(err)
	}
	s.Server = serverOfItsOwn(t, dir)
	return s
}

// set steps the clock of the server to that much ahead of the machine's.
func (s *clockedServer) set(t *testing.T, ahead time.Duration) {
	t.Helper()
	next := s.ahead + ".next" // nobody reads half of it
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+d\n", int(ahead.Seconds())), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, s.ahead); err != nil {
		t.Fatal(err)
	}
}

// newClockedWorld is a world on such a server, whose clock is right so far.
func newClockedWorld(t *testing.T, s *clockedServer) *world {
	t.Helper()
	s.set(t, 0)
	s.named++
	return newWorldOn(t, s.Server, fmt.Sprintf("clocked_%d", s.named))
}

// newWorldOn is a world on a server that no other package's or test's worlds are on.
func newWorldOn(t *testing.T, server *localpg.Server, database string) *world {
	t.Helper()
	pgtest.Exec(t, server.URL(), `CREATE DATABASE `+database)
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + database
	if err := postgres.Migrate(t.Context(), u.String(), nil); err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(t.Context(), u.String(), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	w := &world{t: t, url: u.String(), db: db, psp: newPSP()}
	w.instance = w.newInstance(db)
	w.account, w.test = w.newMerchant("First merchant")
	return w
}

// serverOfItsOwn is a PostgreSQL for one test alone, made of the programs in that
// folder, or of those that there are.
func serverOfItsOwn(t *testing.T, programs string) *localpg.Server {
	t.Helper()
	server, err := localpg.Start(t.Context(), localpg.Options{TempDir: pgtest.TempDir(), BinDir: programs, Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return server
}
