package postgres

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrUnconfirmed is the error of a write that PostgreSQL has committed on this server
// and called a success, but that no standby may have. It happens where a commit waits
// for a synchronous standby and somebody cancels the session. A failover then forgets
// the write, so nothing may be done on the strength of it.
var ErrUnconfirmed = errors.New("the commit was not confirmed by the synchronous standby")

// Confirmed runs write, which is one statement, and returns ErrUnconfirmed if
// PostgreSQL said that its commit may be on this server alone. What is confirmed
// confirms everything that was committed before it, as standbys receive it in order.
//
// A read is confirmed only if it locks a row: PostgreSQL waits for nobody on behalf of
// a statement that writes nothing at all.
func (db *DB) Confirmed(ctx context.Context, write func(tx Tx) error) error {
	d := new(doubt)
	err := write(db.Conn(context.WithValue(ctx, doubtKey{}, d)))
	if err == nil && d.raised.Load() {
		return ErrUnconfirmed
	}
	return err
}

// ConfirmedTx runs f in one database transaction, as InTx does, and returns
// ErrUnconfirmed if PostgreSQL said that its commit may be on this server alone.
func (db *DB) ConfirmedTx(ctx context.Context, f func(tx Tx) error) error {
	d := new(doubt)
	err := db.InTx(context.WithValue(ctx, doubtKey{}, d), f)
	if err == nil && d.raised.Load() {
		return ErrUnconfirmed
	}
	return err
}

// doubt is where a connection notes, for whoever uses it, that a commit is in doubt.
type doubt struct{ raised atomic.Bool }

type doubtKey struct{}

// doubtSlot is the doubt's place among the things that a connection carries.
const doubtSlot = "oncepay.doubt"

// syncWait is the function of PostgreSQL's in which a commit waits for its standbys. Its
// warnings go by it, because their words depend on the server's language.
const syncWait = "SyncRepWaitForLSN"

// noticed hears what a server says beside its answers.
func noticed(c *pgconn.PgConn, n *pgconn.Notice) {
	if d, ok := c.CustomData()[doubtSlot].(*doubt); ok && n.Routine == syncWait {
		d.raised.Store(true)
	}
}

// resetAtMostEvery bounds how often a pool is emptied: what breaks more often than that
// is not a server that went away.
const resetAtMostEvery = time.Second

// witness stands by each statement of a pool's.
type witness struct {
	pool *pgxpool.Pool // set before the first statement

	mu    sync.Mutex
	reset time.Time // when the pool was emptied last
}

// TraceQueryStart lets the connection know in whose name it works.
func (w *witness) TraceQueryStart(ctx context.Context, c *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if d, ok := ctx.Value(doubtKey{}).(*doubt); ok {
		c.PgConn().CustomData()[doubtSlot] = d
	}
	return ctx
}

// TraceQueryEnd empties the pool when one of its connections turns out to be dead. The
// others that are at rest died with it, if the server went away; each would cost
// another request its answer before it was found out.
func (w *witness) TraceQueryEnd(ctx context.Context, c *pgx.Conn, data pgx.TraceQueryEndData) {
	delete(c.PgConn().CustomData(), doubtSlot)
	if data.Err == nil || !c.IsClosed() || ctx.Err() != nil {
		return // whoever ran out of time has closed the connection, which says nothing about the rest
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.reset) >= resetAtMostEvery {
		w.reset = time.Now()
		w.pool.Reset()
	}
}

// beside puts the witness beside the tracer that a pool is to have, if any.
func (w *witness) beside(other pgx.QueryTracer) pgx.QueryTracer {
	if other == nil {
		return w
	}
	return multitracer.New(w, other)
}
