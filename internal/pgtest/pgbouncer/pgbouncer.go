// Package pgbouncer runs a PgBouncer in transaction mode in front of a test's
// PostgreSQL: the pool between programs and database that many installations have,
// and that keeps nothing of a session from one transaction to the next.
package pgbouncer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// PoolSize is how many sessions a database has for all of its clients: fewer than
	// one pool of the product's, so that they take turns.
	PoolSize = 10

	// port names nothing but the socket's file: there is no TCP.
	port = "6432"

	// startLimit bounds the start on a busy machine; it takes milliseconds.
	startLimit = 30 * time.Second
	// pollEvery is how often it is tried meanwhile.
	pollEvery = 10 * time.Millisecond

	// debianFolder is where Debian's package puts the program, which is in the PATH of
	// root only.
	debianFolder = "/usr/sbin"
)

// Server is a running PgBouncer.
type Server struct {
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// Start starts a PgBouncer in front of the server at serverURL, which is reached
// through a socket and trusts who comes that way, and returns once it answers. It
// lets the roles in, to any database. Its files are in a new folder in tempDir.
func Start(ctx context.Context, tempDir, serverURL string, roles ...string) (_ *Server, err error) {
	program, err := find()
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig(serverURL)
	if err != nil {
		return nil, errors.New("pgbouncer: the server's URL cannot be read")
	}
	s := &Server{done: make(chan struct{})}
	if s.dir, err = os.MkdirTemp(tempDir, "oncepay-pgbouncer-"); err != nil {
		return nil, err
	}
	ini, err := s.configure(cfg.Host, cfg.Port, roles)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	s.cmd = exec.Command(program, "--quiet", ini) //nolint:noctx // ended by Close, and with this process
	s.cmd.Dir = s.dir
	if err := startTied(s.cmd); err != nil {
		return nil, errors.Join(fmt.Errorf("start PgBouncer: %w", err), os.RemoveAll(s.dir))
	}
	go func() {
		_ = s.cmd.Wait() // Close or awaitReady says what there is to say
		close(s.done)
	}()
	if err := s.awaitReady(ctx, cfg.Database, roles[0]); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func find() (string, error) {
	if path, err := exec.LookPath("pgbouncer"); err == nil {
		return path, nil
	}
	if path, err := exec.LookPath(filepath.Join(debianFolder, "pgbouncer")); err == nil {
		return path, nil
	}
	return "", errors.New("PgBouncer is not on this machine: run ./scripts/install-pgbouncer.sh")
}

// configure writes PgBouncer's files and returns the one to start it with.
func (s *Server) configure(host string, serverPort uint16, roles []string) (ini string, err error) {
	ini, users := filepath.Join(s.dir, "pgbouncer.ini"), filepath.Join(s.dir, "users.txt")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
pool_mode = transaction
default_pool_size = %d
max_client_conn = 2000
server_login_retry = 1
listen_addr =
listen_port = %s
unix_socket_dir = %s
auth_type = trust
auth_file = %s
logfile = %s
`, host, serverPort, PoolSize, port, s.dir, users, filepath.Join(s.dir, "log"))
	var list strings.Builder
	for _, role := range roles {
		fmt.Fprintf(&list, "%q \"\"\n", role)
	}
	return ini, errors.Join(os.WriteFile(ini, []byte(text), 0o600), os.WriteFile(users, []byte(list.String()), 0o600))
}

func (s *Server) awaitReady(ctx context.Context, database, role string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL(database, role))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-time.After(pollEvery):
		case <-s.done:
			return fmt.Errorf("PgBouncer ended: %s", s.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("PgBouncer does not answer: %w", err)
		}
	}
}

func (s *Server) lastWords() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return "it has no log"
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// URL leads to a database as a role. A client that is given nothing but this URL
// uses no prepared statements.
func (s *Server) URL(database, role string) string {
	u := url.URL{Scheme: "postgres", Path: "/" + database, RawQuery: url.Values{
		"host": {s.dir}, "port": {port}, "user": {role}, "sslmode": {"disable"}, "default_query_exec_mode": {"cache_describe"},
	}.Encode()}
	return u.String()
}

// Close ends it at once.
func (s *Server) Close() error {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
	return os.RemoveAll(s.dir)
}
