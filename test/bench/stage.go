package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
)

// stepLimit bounds one small step, such as a start or a stop.
const stepLimit = 30 * time.Second

// The databases: the product's, and the floor's copy of it.
const (
	productDatabase = "product"
	floorDatabase   = "floor"
)

// serverSettings go over localpg's, which are the product's (`payments dev`): each
// commit is flushed to the disk. The largest floor has more connections than dev.
var serverSettings = map[string]string{"max_connections": "600"}

// buildSettings are those of the server that makes the databases, and is gone before
// anything is measured: what it loses in a crash is made anew.
var buildSettings = map[string]string{
	"fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": "0", "autovacuum": "off",
	"max_wal_size": "4GB", "maintenance_work_mem": "256MB",
}

// stage is a PostgreSQL of its own with both databases, and the API on one of them.
type stage struct {
	pg     *localpg.Server
	folder *folder
	conn   *pgx.Conn
	parent int // PostgreSQL's first process
	load   *loads
	floor  *floor
	child  *child
	counts int // payments that must be in the product's database
	floors int // and in the floor's
	flush  time.Duration
	// profileTo is how the paths of the next creates' profiles begin; empty: none are taken.
	profileTo string
}

// setUp builds a stage on which so many payments are stored. The stage is to be
// closed even if that failed.
func (s *stage) setUp(ctx context.Context, stored int, tell func(string, ...any)) (err error) {
	program, err := findPgbench(os.Getenv)
	if err != nil {
		return err
	}
	if s.folder, err = newFolder(os.TempDir()); err != nil {
		return err
	}
	if err := s.folder.hasRoom(stored); err != nil {
		return err
	}
	if s.flush, err = s.folder.flushTime(); err != nil {
		return err
	}
	s.floor = &floor{program: program, dir: s.folder.path, base: time.Now().UnixMilli()}
	secret := []byte(rand.Text() + rand.Text())
	if err := s.build(ctx, secret, stored, tell); err != nil {
		return err
	}
	tell("starting PostgreSQL and the API")
	if s.pg, err = localpg.Start(ctx, localpg.Options{Dir: s.folder.cluster(), Database: productDatabase, Settings: serverSettings}); err != nil {
		return err
	}
	if s.floor.url, err = databaseURL(s.pg.URL(), floorDatabase); err != nil {
		return err
	}
	if s.conn, err = connect(ctx, s.pg.URL(), "postgres"); err != nil {
		return err
	}
	if s.parent, err = parentOf(ctx, s.conn); err != nil {
		return err
	}
	if s.child, err = startChild(ctx, s.pg.URL(), secret); err != nil {
		return err
	}
	s.load.addr = s.child.addr
	s.load.known, err = s.load.makeKnown(ctx)
	s.counts += len(s.load.known)
	return err
}

// describe says in words what was measured on.
func (s *stage) describe(ctx context.Context) (server string, err error) {
	err = s.conn.QueryRow(ctx, `SELECT 'PostgreSQL ' || current_setting('server_version') || ', shared_buffers ' || current_setting('shared_buffers') || ', fsync ' ||
		current_setting('fsync') || ', synchronous_commit ' || current_setting('synchronous_commit')`).Scan(&server)
	return fmt.Sprintf("%s; the disk takes %.2f ms to flush a page", server, s.flush.Seconds()*1000), err
}

// build makes both databases, and puts them on the disk.
func (s *stage) build(ctx context.Context, secret []byte, stored int, tell func(string, ...any)) error {
	tell("building the databases")
	pg, err := localpg.Start(ctx, localpg.Options{Dir: s.folder.cluster(), Database: productDatabase, Settings: buildSettings})
	if err != nil {
		return err
	}
	err = s.makeDatabases(ctx, pg.URL(), secret, stored, tell)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepLimit)
	defer cancel()
	if err := errors.Join(err, pg.Stop(last)); err != nil {
		return err
	}
	tell("writing them to the disk")
	syscall.Sync() // the server did not, and what is left would be written while something is measured
	return nil
}

func (s *stage) makeDatabases(ctx context.Context, productURL string, secret []byte, stored int, tell func(string, ...any)) error {
	if err := postgres.Migrate(ctx, productURL, nil); err != nil {
		return err
	}
	if err := s.prepare(ctx, productURL, secret); err != nil {
		return err
	}
	if stored > 0 {
		tell("storing %d payments", stored)
		if err := seed(ctx, productURL, stored, tell); err != nil {
			return err
		}
		s.counts += stored
		s.floors += stored
	}
	tell("copying the database for the floor")
	return copyDatabase(ctx, productURL)
}

// copyDatabase makes the floor's database of the product's: both begin with the same
// rows, in the same places.
func copyDatabase(ctx context.Context, productURL string) error {
	conn, err := connect(ctx, productURL, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var version int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	statement := "CREATE DATABASE " + floorDatabase + " TEMPLATE " + productDatabase
	if version >= 150000 {
		statement += " STRATEGY FILE_COPY" // what older ones do; the new way logs each page
	}
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	return nil
}

// databaseURL is the URL of another database on the same server.
func databaseURL(server, database string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	u.Path = "/" + database
	return u.String(), nil
}

func connect(ctx context.Context, server, database string) (*pgx.Conn, error) {
	u, err := databaseURL(server, database)
	if err != nil {
		return nil, err
	}
	return pgx.Connect(ctx, u)
}

// prepare lets the product make one payment, so as to have the statements that it
// sends and the rows that it leaves.
func (s *stage) prepare(ctx context.Context, productURL string, secret []byte) error {
	statements := &recorder{seen: map[string]statement{}}
	a, err := startAPI(ctx, productURL, secret, statements, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	m := merchants.Merchant{AccountID: uuid.Must(uuid.NewV7()), Name: "Bench", IdempotencyPolicy: idem.DefaultPolicy}
	l := &loads{addr: a.addr, merchant: merchant{account: m.AccountID.String(), keys: merchants.NewKeyPair(merchants.Test)}}
	first := l.merchant.newOrder("bench")
	err = a.auth.Ensure(ctx, m, l.merchant.keys)
	if err == nil {
		err = pay(ctx, l.addr, first)
	}
	if err := errors.Join(err, a.stop(ctx)); err != nil {
		return err
	}
	s.load, s.counts, s.floors = l, 1, 1

	conn, err := pgx.Connect(ctx, productURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var transaction, payment string
	if err := conn.QueryRow(ctx, `SELECT id::text, payment_id::text FROM transactions WHERE nonce = $1`, first.nonce).Scan(&transaction, &payment); err != nil {
		return fmt.Errorf("read the first payment: %w", err)
	}
	s.floor.script, err = newScript(statements.seen, map[string]string{
		transaction: newTransactionID, payment: newPaymentID, first.nonce: newNonce, first.id: newOrder,
	})
	return err
}

// pay makes one payment on a connection of its own.
func pay(ctx context.Context, addr string, o order) error {
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.close()
	return c.pay(o)
}

// measure runs one load or one floor, and adds what it cost.
func (s *stage) measure(ctx context.Context, f func() (figures, error)) (figures, error) {
	// Each begins with a fresh checkpoint, so each pays for as many first writes to a
	// page.
	if _, err := s.conn.Exec(ctx, "CHECKPOINT"); err != nil {
		return figures{}, err
	}
	wal, used, err := s.spent(ctx)
	if err != nil {
		return figures{}, err
	}
	g, err := f()
	if err != nil {
		return g, err
	}
	walAfter, usedAfter, err := s.spent(ctx)
	g.wal = walAfter - wal
	pgbench := g.cpu.generator
	g.cpu = usedAfter.minus(used)
	g.cpu.generator += pgbench
	return g, err
}

// spent is what has been written and used so far.
func (s *stage) spent(ctx context.Context) (wal int64, used cpu, err error) {
	if err := s.conn.QueryRow(ctx, `SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint`).Scan(&wal); err != nil {
		return 0, used, err
	}
	if used.database, err = family(s.parent); err != nil {
		return 0, used, err
	}
	p, err := readProcess(s.child.cmd.Process.Pid)
	used.api = p.own
	var self syscall.Rusage
	err = errors.Join(err, syscall.Getrusage(syscall.RUSAGE_SELF, &self))
	used.generator = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	return wal, used, err
}

// check compares what the clients, and pgbench, were told with what is stored.
func (s *stage) check(ctx context.Context) error {
	return errors.Join(
		checkRows(ctx, s.pg.URL(), "the API", s.counts),
		checkRows(ctx, s.floor.url, "pgbench", s.floors))
}

func checkRows(ctx context.Context, at, who string, want int) error {
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for table, kept := range map[string]string{
		"payments": "status = 'SUCCEEDED'", "transactions": "status = 'SUCCEEDED'", "idempotency_keys": "response_status = 201",
	} {
		var all, good int
		if err := conn.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE "+kept+") FROM "+table).Scan(&all, &good); err != nil {
			return fmt.Errorf("count rows: %w", err)
		}
		if all != want || good != want {
			return fmt.Errorf("%s was told of %d payments, and its database has %d rows in %s, %d of them with %s: these figures are worth nothing",
				who, want, all, table, good, kept)
		}
	}
	return nil
}

// close takes everything down again, whatever there is of it.
func (s *stage) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepLimit)
	defer cancel()
	var errs []error
	if s.child != nil {
		errs = append(errs, s.child.stop())
	}
	if s.conn != nil {
		s.conn.Close(ctx)
	}
	if s.pg != nil {
		errs = append(errs, s.pg.Stop(ctx))
	}
	if s.folder != nil {
		errs = append(errs, s.folder.remove())
	}
	return errors.Join(errs...)
}

// parentOf is PostgreSQL's first process: the parent of the one that serves conn.
func parentOf(ctx context.Context, conn *pgx.Conn) (int, error) {
	var pid int
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		return 0, err
	}
	p, err := readProcess(pid)
	if err != nil {
		return 0, fmt.Errorf("find PostgreSQL among the processes (this needs Linux): %w", err)
	}
	return p.parent, nil
}
