package operators

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// right is a password that is good enough, and wrong another one.
const (
	right = "a quiet harbour at noon"
	wrong = "a noisy harbour at noon"
)

// world is one database with as many instances of the service as a test asks for.
type world struct {
	t   *testing.T
	url string
	db  *postgres.DB
	*Service
	hashes atomic.Int64 // how many were made by the first instance
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, url: pgtest.URL(t)}
	w.db, w.Service = w.instance()
	made := w.hasher.key
	w.hasher.key = func(password, salt []byte, passes, memory uint32, lanes uint8, length uint32) []byte {
		w.hashes.Add(1)
		return made(password, salt, passes, memory, lanes, length)
	}
	return w
}

// instance is another process on the same database.
func (w *world) instance() (*postgres.DB, *Service) {
	w.t.Helper()
	db, err := postgres.Open(w.t.Context(), w.url, pgtest.Options(w.url, postgres.Options{}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	s := NewService(db, Options{Secret: []byte("a secret that all instances have")})
	s.hasher.costs(cost{memory: 64, passes: 1, lanes: 1}) // what one really costs is a test of its own
	return db, s
}

// sql changes the database behind the service's back.
func (w *world) sql(query string, args ...any) int64 {
	w.t.Helper()
	return pgtest.Exec(w.t, w.url, query, args...)
}

// number is what a query that finds one number finds.
func (w *world) number(query string, args ...any) (n int) {
	w.t.Helper()
	if err := w.db.Conn(w.t.Context()).Raw(query, args...).Row().Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// first is the first operator, an admin.
func (w *world) first(name string) SignedIn {
	w.t.Helper()
	l, needed, err := w.FirstInvitation(w.t.Context())
	if err != nil || !needed {
		w.t.Fatalf("needed: %t, %v", needed, err)
	}
	in, err := w.Accept(w.t.Context(), l.Secret, name, right, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return in
}

// joined is somebody new.
func (w *world) joined(name string, role Role) SignedIn {
	w.t.Helper()
	l, err := w.Invite(w.t.Context(), name, role)
	if err != nil {
		w.t.Fatal(err)
	}
	in, err := w.Accept(w.t.Context(), l.Secret, "", right, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return in
}

// wantCode fails the test unless err is an answer with that code.
func wantCode(t *testing.T, err error, code apierr.Code) {
	t.Helper()
	_ = refusal(t, err, code)
}

// refusal is an answer with that code, and nothing else.
func refusal(t *testing.T, err error, code apierr.Code) *apierr.Error {
	t.Helper()
	e, ok := apierr.From(err)
	if !ok || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	return e
}

// written are the audit log's entries, the oldest first, with who did them.
func (w *world) written() (all []audit.Record) {
	w.t.Helper()
	rows, err := w.db.Conn(w.t.Context()).Raw(`SELECT actor_kind, actor, address, action, target, details FROM audit_entries ORDER BY seq`).Rows()
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var (
			r       audit.Record
			details string
		)
		if err := rows.Scan(&r.Actor.Kind, &r.Actor.Name, &r.Actor.Address, &r.Action, &r.Target, &details); err != nil {
			w.t.Fatal(err)
		}
		r.Details = map[string]string{"all": details}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// told counts the entries with an action.
func (w *world) told(action string) (n int) {
	w.t.Helper()
	return w.number(`SELECT count(*) FROM audit_entries WHERE action = $1`, action)
}

// at is the context of a request that comes from somewhere.
func (w *world) at(address string) context.Context {
	return audit.By(w.t.Context(), audit.Actor{Kind: audit.KindNobody, Name: "nobody", Address: address, RequestID: "a request"})
}

// costs has hashes made at another cost.
func (h *hasher) costs(c cost) { h.cost, h.nobodys = c, c.phc(random(saltLength), random(keyLength)) }

// atOnce does something so often at the same time, and returns what came of it.
func atOnce[T any](times int, f func(i int) T) []T {
	var (
		group sync.WaitGroup
		gate  = make(chan struct{})
		all   = make([]T, times)
	)
	for i := range times {
		group.Go(func() {
			<-gate
			all[i] = f(i)
		})
	}
	close(gate)
	group.Wait()
	return all
}

// age moves what a test made back in time.
func (w *world) age(table, column string, by time.Duration) {
	w.t.Helper()
	w.sql(`UPDATE `+table+` SET `+column+` = `+column+` - $1::bigint * interval '1 microsecond'`, by.Microseconds())
}

func someID() uuid.UUID { return uuid.Must(uuid.NewV7()) }
