package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"strings"
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

// stage is a PostgreSQL of its own with both databases, and the API on one of them.
type stage struct {
	pg     *localpg.Server
	dir    string // for pgbench's files
	conn   *pgx.Conn
	parent int // PostgreSQL's first process
	load   *loads
	floor  *floor
	child  *exec.Cmd
	hangUp io.Closer // ends the child
	counts int       // payments that must be in the product's database
	floors int       // and in the floor's
}

// newStage builds a stage on which so many payments are stored.
func newStage(ctx context.Context, stored int, tell func(string, ...any)) (_ *stage, err error) {
	s := &stage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	program, err := findPgbench()
	if err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "payments-bench-"); err != nil {
		return s, err
	}
	tell("starting PostgreSQL")
	if s.pg, err = localpg.Start(ctx, localpg.Options{Database: productDatabase, Settings: serverSettings}); err != nil {
		return s, err
	}
	if err := postgres.Migrate(ctx, s.pg.URL(), nil); err != nil {
		return s, err
	}
	if s.conn, err = pgx.Connect(ctx, s.urlOf("postgres")); err != nil {
		return s, err
	}
	if s.parent, err = parentOf(ctx, s.conn); err != nil {
		return s, err
	}
	secret := []byte(rand.Text() + rand.Text())
	s.floor = &floor{program: program, url: s.urlOf(floorDatabase), dir: s.dir, base: time.Now().UnixMilli()}
	if err := s.prepare(ctx, secret, stored, tell); err != nil {
		return s, err
	}
	// Both begin with the same rows, in the same places.
	if _, err := s.conn.Exec(ctx, "CREATE DATABASE "+floorDatabase+" TEMPLATE "+productDatabase); err != nil {
		return s, fmt.Errorf("copy the database: %w", err)
	}
	if err := s.startChild(ctx, secret); err != nil {
		return s, err
	}
	return s, s.warmUp(ctx)
}

// urlOf is the URL of another database on the server.
func (s *stage) urlOf(database string) string {
	u, err := url.Parse(s.pg.URL())
	if err != nil {
		panic(err) // localpg made it
	}
	u.Path = "/" + database
	return u.String()
}

// prepare lets the product make one payment, so as to have the statements that it
// sends and the rows that it leaves, and stores as many copies of it as asked for.
func (s *stage) prepare(ctx context.Context, secret []byte, stored int, tell func(string, ...any)) error {
	statements := &recorder{seen: map[string]statement{}}
	a, err := startAPI(ctx, s.pg.URL(), secret, statements, slog.New(slog.DiscardHandler))
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

	conn, err := pgx.Connect(ctx, s.pg.URL())
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
	if err != nil {
		return err
	}
	if stored > 0 {
		tell("storing %d payments", stored)
		if err := seed(ctx, conn, stored); err != nil {
			return err
		}
	}
	s.counts += stored
	s.floors += stored
	return nil
}

// pay makes one payment.
func pay(ctx context.Context, addr string, o order) error {
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.close()
	a, err := c.send(o)
	if err == nil && !a.created() {
		err = c.unexpected(a)
	}
	return err
}

// startChild starts the API in a process of its own, from this program's file.
func (s *stage) startChild(ctx context.Context, secret []byte) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.child = exec.CommandContext(ctx, self, "api")
	s.child.Env = append(os.Environ(), envURL+"="+s.pg.URL(), envSecret+"="+string(secret))
	in, err := s.child.StdinPipe()
	if err != nil {
		return err
	}
	out, err := s.child.StdoutPipe()
	if err != nil {
		return err
	}
	var complaints strings.Builder
	s.child.Stderr = &complaints
	if err := s.child.Start(); err != nil {
		s.child = nil
		return err
	}
	s.hangUp = in
	addr, err := bufio.NewReader(out).ReadString('\n') // it ends if the child does
	if err != nil {
		return fmt.Errorf("the API did not start: %w: %s", errors.Join(err, s.stopChild()), lastLine(complaints.String()))
	}
	s.load.addr = strings.TrimSpace(addr)
	return nil
}

func (s *stage) stopChild() error {
	if s.child == nil {
		return nil
	}
	s.hangUp.Close()
	limit := time.AfterFunc(stepLimit, func() { _ = s.child.Process.Kill() }) // it has ended, or will now
	defer limit.Stop()
	err := s.child.Wait()
	s.child = nil
	return err
}

// warmUp makes the payments that are replayed later, which also fills pools and
// caches.
func (s *stage) warmUp(ctx context.Context) error {
	c, err := dial(ctx, s.load.addr)
	if err != nil {
		return err
	}
	defer c.close()
	for range knownOrders {
		o := s.load.merchant.newOrder("bench")
		a, err := c.send(o)
		if err == nil && !a.created() {
			err = c.unexpected(a)
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		s.load.known = append(s.load.known, o)
		s.counts++
	}
	return nil
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
	p, err := readProcess(s.child.Process.Pid)
	used.api = p.own
	var self syscall.Rusage
	err = errors.Join(err, syscall.Getrusage(syscall.RUSAGE_SELF, &self))
	used.generator = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	return wal, used, err
}

// check compares what the clients, and pgbench, were told with what is stored.
func (s *stage) check(ctx context.Context) error {
	return errors.Join(
		checkRows(ctx, s.urlOf(productDatabase), "the API", s.counts),
		checkRows(ctx, s.urlOf(floorDatabase), "pgbench", s.floors))
}

func checkRows(ctx context.Context, databaseURL, who string, want int) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, rows := range []string{
		"payments WHERE status = 'SUCCEEDED'", "transactions WHERE status = 'SUCCEEDED'", "idempotency_keys WHERE response_status = 201",
		"payments", "transactions", "idempotency_keys",
	} {
		var n int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM "+rows).Scan(&n); err != nil {
			return fmt.Errorf("count rows: %w", err)
		}
		if n != want {
			return fmt.Errorf("%s was told of %d payments, and its database has %d of %s: these figures are worth nothing", who, want, n, rows)
		}
	}
	return nil
}

// close takes everything down again.
func (s *stage) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepLimit)
	defer cancel()
	err := s.stopChild()
	if s.conn != nil {
		s.conn.Close(ctx)
	}
	if s.pg != nil {
		err = errors.Join(err, s.pg.Stop(ctx))
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
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
