package idem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/postgres"
)

// making is the operation of these tests. Its work is a row of instances, a table as good
// as any other.
const making = "POST /v1/things"

// onceCommand is a request to make something, under a policy.
func onceCommand(t testing.TB, policy, nonce, body string) OnceCommand {
	t.Helper()
	f, err := NewFingerprinter([]byte(strings.Repeat("s", MinSecretLength)), nil)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := jsontree.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	p := preset(t, Options{}, policy)
	return OnceCommand{
		AccountID: uuid.MustParse("0198c2f3-7777-7777-8888-999999999999"), Mode: "test", Policy: p,
		Key: Key{Nonce: KeyOf(nonce), Sent: nonce, Retention: p.Retention}, Operation: making, Print: f.Of("POST", "/v1/things", "", tree),
	}
}

// made does the work, and answers with what nobody else would.
func made(tx postgres.Tx) (int, []byte, error) {
	id := uuid.New()
	err := tx.Exec(`/* test.work */ INSERT INTO instances (id) VALUES ($1::uuid)`, id).Error
	return 201, []byte(`{ "id": "` + id.String() + `" }` + "\n"), err
}

// mustOnce has the work done, or its answer told again.
func (b *bench) mustOnce(cmd OnceCommand) OnceAnswer {
	b.t.Helper()
	a, err := Once(b.t.Context(), b.db, cmd, made)
	if err != nil || a.Status != 201 || len(a.Body) == 0 {
		b.t.Fatalf("%s: %d, %v", cmd.Nonce, a.Status, err)
	}
	return a
}

// works is how often the work was done.
func (b *bench) works() int { return b.count(`SELECT count(*) FROM instances`) }

// keys is how many nonces are kept, all of them with an answer.
func (b *bench) keys() int {
	return b.count(`SELECT count(*) FROM idempotency_keys WHERE response_status = 201 AND length(response_body) > 0`)
}

// expire lets every life's time be over.
func (b *bench) expire() {
	pgtest.Exec(b.t, b.url, `UPDATE idempotency_keys SET created_at = created_at - interval '2 days', expires_at = expires_at - interval '2 days'`)
}

// wantReused fails the test unless err says that the nonce names something else.
func wantReused(t testing.TB, err error) {
	t.Helper()
	_ = wantCode(t, err, apierr.IdempotencyKeyReused)
}

// wantCode fails the test unless err is an answer of that code.
func wantCode(t testing.TB, err error, code apierr.Code) *apierr.Error {
	t.Helper()
	e, ok := apierr.From(err)
	if !ok || e.Code != code {
		t.Fatalf("%v, want %s", err, code)
	}
	return e
}

func TestWorkIsDoneOnceAndItsAnswerToldAgainByteForByte(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := onceCommand(t, "yuno", "nonce-1", `{"name":"a"}`)
	first := b.mustOnce(cmd)
	if first.Replayed || first.BodyDiffers {
		t.Errorf("the first answer is %+v", first)
	}
	for range 2 {
		if a := b.mustOnce(cmd); !a.Replayed || a.BodyDiffers || string(a.Body) != string(first.Body) {
			t.Errorf("a retry is told %s, first was %s", a.Body, first.Body)
		}
	}
	a, found, err := OnceAnswered(t.Context(), b.db, cmd)
	if err != nil || !found || string(a.Body) != string(first.Body) {
		t.Errorf("a look for the answer finds %t %s, %v", found, a.Body, err)
	}
	if b.works() != 1 || b.keys() != 1 {
		t.Errorf("the work was done %d times, for %d nonces", b.works(), b.keys())
	}
	// It is kept for a day from the answer, as a payment's would be.
	if b.count(`SELECT count(*) FROM idempotency_keys WHERE transaction_id IS NULL AND expires_at >= created_at + interval '24 hours'
		AND expires_at <= clock_timestamp() + interval '24 hours'`) != 1 {
		t.Error("the answer is not kept for a day")
	}
}

// Another nonce, account or mode is somebody else's.
func TestWorkIsDoneForEachNonceOfEachAccountAndMode(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
	others := []OnceCommand{cmd, cmd, cmd, cmd}
	others[1].Nonce = "nonce-2"
	others[2].AccountID = uuid.New()
	others[3].Mode = "live"
	for i, o := range others {
		if a := b.mustOnce(o); a.Replayed {
			t.Errorf("the %d. was told somebody else's answer", i+1)
		}
	}
	if b.works() != len(others) {
		t.Errorf("the work was done %d times", b.works())
	}
}

func TestWorkWithoutANonceIsDoneEachTimeAndNothingIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := onceCommand(t, "yuno", "", `{}`)
	for range 2 {
		if a := b.mustOnce(cmd); a.Replayed {
			t.Error("it was told an answer of before")
		}
	}
	if _, found, err := OnceAnswered(t.Context(), b.db, cmd); found || err != nil {
		t.Errorf("a look for the answer finds one: %t, %v", found, err)
	}
	if n := b.count(`SELECT count(*) FROM idempotency_keys`); b.works() != 2 || n != 0 {
		t.Errorf("the work was done %d times, and %d nonces are kept", b.works(), n)
	}
}

// Of many at the same time one works; the others wait for it and are told what it was.
func TestOfManyWithOneNonceOneWorks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
	const many = 12
	var bodies sync.Map
	var all sync.WaitGroup
	start := make(chan struct{})
	for range many {
		all.Go(func() {
			<-start
			a, err := Once(t.Context(), b.db, cmd, made)
			if err != nil {
				t.Error(err)
				return
			}
			bodies.Store(string(a.Body), true)
			if !a.Replayed {
				bodies.Store("one", true) // beside the body
			}
		})
	}
	close(start)
	all.Wait()
	n := 0
	bodies.Range(func(any, any) bool { n++; return true })
	if n != 2 || b.works() != 1 {
		t.Errorf("%d were told different things, and the work was done %d times", n, b.works())
	}
}

// Whoever waits longer than a lock may be waited for is told to come back, and has done
// nothing.
func TestDuplicateOfWorkThatTakesLongIsToldToComeBack(t *testing.T) {
	t.Parallel()
	for policy, retryAfter := range map[string]int{"yuno": 1, "ietf": 0} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			cmd := onceCommand(t, policy, "nonce-1", `{}`)
			begun, release, done := make(chan struct{}), make(chan struct{}), make(chan OnceAnswer, 1)
			go func() {
				a, err := Once(t.Context(), b.db, cmd, func(tx postgres.Tx) (int, []byte, error) {
					status, body, err := made(tx)
					close(begun)
					<-release
					return status, body, err
				})
				if err != nil {
					t.Error(err)
				}
				done <- a
			}()
			<-begun
			_, err := Once(t.Context(), b.db, cmd, func(postgres.Tx) (int, []byte, error) {
				return 0, nil, errors.New("the duplicate works, too")
			})
			if e := wantCode(t, err, apierr.RequestInProcess); e.RetryAfter != retryAfter || e.KeyProblem != TitleInFlight {
				t.Errorf("it is told %+v", e)
			}
			if _, found, err := OnceAnswered(t.Context(), b.db, cmd); found || err != nil {
				t.Errorf("a look for the answer, before there is one: %t, %v", found, err)
			}
			close(release)
			first := <-done
			if a := b.mustOnce(cmd); !a.Replayed || string(a.Body) != string(first.Body) || b.works() != 1 {
				t.Errorf("afterwards it is told %s, and the work was done %d times", a.Body, b.works())
			}
		})
	}
}

func TestWorkThatFailsLeavesNothingAndTheNonceFree(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := onceCommand(t, "novu", "nonce-1", `{}`) // which keeps errors, of what moves money
	refused := apierr.New(apierr.InvalidParameters, "$.name is another one's")
	for name, work := range map[string]Work{
		"a refusal": func(tx postgres.Tx) (int, []byte, error) {
			_, _, err := made(tx)
			return 400, []byte("{}"), errors.Join(err, refused)
		},
		"a constraint": func(tx postgres.Tx) (int, []byte, error) {
			_, _, err := made(tx)
			return 201, []byte("{}"), errors.Join(err, tx.Exec(`/* test.break */ INSERT INTO instances (id) VALUES (NULL)`).Error)
		},
		"an answer that cannot be kept": func(tx postgres.Tx) (int, []byte, error) {
			_, _, err := made(tx)
			return 1 << 20, []byte("{}"), err
		},
		"a claim that is gone": func(tx postgres.Tx) (int, []byte, error) {
			_, _, err := made(tx)
			return 201, []byte("{}"), errors.Join(err, tx.Exec(`/* test.break */ DELETE FROM idempotency_keys`).Error)
		},
	} {
		if _, err := Once(t.Context(), b.db, cmd, work); err == nil || name == "a refusal" && !errors.Is(err, refused) {
			t.Errorf("%s: %v", name, err)
		}
		if n := b.count(`SELECT count(*) FROM idempotency_keys`); b.works() != 0 || n != 0 {
			t.Fatalf("%s: %d rows of work and %d nonces stay", name, b.works(), n)
		}
	}
	if a := b.mustOnce(cmd); a.Replayed || b.works() != 1 {
		t.Error("the nonce was not free")
	}
}

func TestNonceOfAnotherOperationIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
	b.mustOnce(cmd)
	cmd.Operation = "PATCH /v1/things/:id 1"
	_, err := Once(t.Context(), b.db, cmd, made)
	if e := wantCode(t, err, apierr.IdempotencyKeyReused); e.Messages[0] != "X-Idempotency-Key was used for another operation; use a new key" || e.KeyProblem != TitleReused {
		t.Errorf("it is told %+v", e)
	}
	_, _, err = OnceAnswered(t.Context(), b.db, cmd)
	wantReused(t, err)
	if b.works() != 1 {
		t.Errorf("the work was done %d times", b.works())
	}
}

func TestThePolicyDecidesAboutAnotherBody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for policy, ignores := range map[string]bool{"yuno": true, "novu": false, "fyno": true, "ietf": false} {
		first := b.mustOnce(onceCommand(t, policy, policy, `{"n":1}`))
		a, err := Once(t.Context(), b.db, onceCommand(t, policy, policy, `{"n":2}`), made)
		if !ignores {
			if e := wantCode(t, err, apierr.IdempotencyKeyReused); e.Messages[0] != "Idempotency-Key was used with another body; use a new key" {
				t.Errorf("%s: it is told %+v", policy, e)
			}
		} else if err != nil || !a.Replayed || !a.BodyDiffers || string(a.Body) != string(first.Body) {
			t.Errorf("%s: %+v, %v", policy, a, err)
		}
		// Written otherwise, it is the same.
		if a := b.mustOnce(onceCommand(t, policy, policy, ` { "n" : 1.0 } `)); !a.Replayed || a.BodyDiffers {
			t.Errorf("%s: the same body: %+v", policy, a)
		}
	}
}

func TestExpiredNonceBeginsANewLife(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
	first := b.mustOnce(cmd)
	b.expire()
	if _, found, err := OnceAnswered(t.Context(), b.db, cmd); found || err != nil {
		t.Errorf("a life that is over still answers: %t, %v", found, err)
	}
	cmd.Operation = "POST /v1/others"
	if a := b.mustOnce(cmd); a.Replayed || string(a.Body) == string(first.Body) {
		t.Error("a life that is over was told again")
	}
	if b.works() != 2 || b.keys() != 1 {
		t.Errorf("the work was done %d times, and %d lives are kept", b.works(), b.keys())
	}
}

// Many find the same life over. One begins the next, and none ends that.
func TestOfManyAfterALifeOneBeginsTheNext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
	b.mustOnce(cmd)
	b.expire()
	var all sync.WaitGroup
	start := make(chan struct{})
	for range 8 {
		all.Go(func() {
			<-start
			if _, err := Once(t.Context(), b.db, cmd, made); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	all.Wait()
	if b.works() != 2 || b.keys() != 1 {
		t.Errorf("the work was done %d times, and %d lives are kept", b.works(), b.keys())
	}
}

// payment keeps a payment's nonce, with an answer. Its transaction is resolved or not.
func (b *bench) payment(cmd OnceCommand, resolved bool) {
	b.t.Helper()
	status, lease := "CREATED", "clock_timestamp()"
	if resolved {
		status, lease = "DECLINED", "NULL"
	}
	payment, transaction := uuid.New(), uuid.New()
	pgtest.Exec(b.t, b.url, `INSERT INTO payments (account_id, id, mode, merchant_order_id, status, sub_status, currency, amount, request, created_at, updated_at)
		VALUES ($1, $2, 'test', 'order', 'DECLINED', 'DECLINED', 'USD', 1, '{}', now(), now())`, cmd.AccountID, payment)
	pgtest.Exec(b.t, b.url, `INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, nonce, card,
			lease_holder, instance_id, lease_until, may_send_until, travel_us, next_attempt_at, created_at, updated_at)
		VALUES ($1, $2, $3, 'test', 'PURCHASE', '`+status+`', 'USD', 1, 'P', $4, '{}', $2, $2, `+lease+`, now(), 0, now(), now(), now())`,
		cmd.AccountID, transaction, payment, cmd.Nonce)
	pgtest.Exec(b.t, b.url, `INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, response_status, response_body, created_at, expires_at)
		VALUES ($1, 'test', $2, $3, $4, $5, 201, 'a payment', now(), now() + interval '1 day')`,
		cmd.AccountID, cmd.Nonce, cmd.Operation, cmd.Print.Kept(), transaction)
}

// Whatever it is called, a payment is never told to whoever makes something else; and what
// is not resolved is never forgotten.
func TestNonceOfAPaymentIsRefusedUntilItsLifeIsOver(t *testing.T) {
	t.Parallel()
	for resolved, name := range map[bool]string{true: "resolved", false: "unresolved"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
			b.payment(cmd, resolved)
			_, err := Once(t.Context(), b.db, cmd, made)
			wantReused(t, err)
			b.expire()
			purged, err := Purge{DB: b.db, Retention: DefaultRetention}.RunOnce(t.Context())
			if err != nil || purged != 0 && !resolved {
				t.Fatalf("%d went, %v", purged, err)
			}
			if resolved { // once more, without the purge's help
				b.payment(cmd, true)
				b.expire()
			}
			a, err := Once(t.Context(), b.db, cmd, made)
			if resolved {
				if err != nil || a.Replayed || b.works() != 1 {
					t.Errorf("after its life: %+v, %v", a, err)
				}
				return
			}
			wantReused(t, err)
			if b.works() != 0 {
				t.Error("the work was done")
			}
		})
	}
}

// The answer to the COMMIT is lost: whether it took place is read back.
func TestLostCommitIsReadBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		at    pgproxy.Point
		works int
	}{{"before it", pgproxy.Asked, 0}, {"after it", pgproxy.Answered, 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			proxy := pgproxy.New(t, b.url)
			db, err := postgres.Open(t.Context(), proxy.URL(), pgtest.Options(b.url, postgres.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(db.Close)
			cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
			cut := proxy.Cut("commit", c.at)
			a, err := Once(t.Context(), db, cmd, made)
			cut.Wait(t)
			if c.works == 0 {
				if e := wantCode(t, err, apierr.ServiceUnavailable); e.RetryAfter != 1 || !strings.HasSuffix(e.Messages[0], "retry with the same key") {
					t.Errorf("it is told %+v", e)
				}
			} else if again := b.mustOnce(cmd); err != nil || a.Replayed || !again.Replayed || string(again.Body) != string(a.Body) {
				t.Errorf("it is told %+v, %v, and a retry %s", a, err, again.Body)
			}
			if b.works() != c.works || b.keys() != c.works {
				t.Errorf("the work was done %d times, for %d nonces", b.works(), b.keys())
			}
		})
	}
}

// Somebody who has no nonce cannot ask again.
func TestLostCommitWithoutANonceSaysToLookFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	proxy := pgproxy.New(t, b.url)
	db, err := postgres.Open(t.Context(), proxy.URL(), pgtest.Options(b.url, postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	proxy.Cut("commit", pgproxy.Answered)
	_, err = Once(t.Context(), db, onceCommand(t, "yuno", "", `{}`), made)
	if e := wantCode(t, err, apierr.ServiceUnavailable); e.RetryAfter != 0 || strings.Contains(e.Messages[0], "key") {
		t.Errorf("it is told %+v", e)
	}
}

// Whatever breaks on the way, a retry finds or does the work, once.
func TestWorkIsDoneOnceWhereverTheConnectionBreaks(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{"idem.claim_once", "test.work", "idem.answer_once", "commit", "idem.read_once", "idem.end_once"} {
		for _, at := range []pgproxy.Point{pgproxy.Asked, pgproxy.Answered} {
			t.Run(fmt.Sprint(statement, at), func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				proxy := pgproxy.New(t, b.url)
				db, err := postgres.Open(t.Context(), proxy.URL(), pgtest.Options(b.url, postgres.Options{}))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(db.Close)
				cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
				before := 0
				if strings.HasPrefix(statement, "idem.read") || strings.HasPrefix(statement, "idem.end") { // which looks at a life of before
					b.mustOnce(cmd)
					b.expire()
					before = 1
				}
				cut := proxy.Cut(statement, at)
				first, firstErr := Once(t.Context(), db, cmd, made)
				cut.Wait(t)
				a := b.mustOnce(cmd)
				if firstErr == nil && string(a.Body) != string(first.Body) {
					t.Errorf("it was told %s, and a retry %s", first.Body, a.Body)
				}
				if b.works() != before+1 || b.keys() != 1 {
					t.Errorf("the work was done %d times, for %d nonces", b.works(), b.keys())
				}
			})
		}
	}
}

// Whoever asked has gone away: what they asked for is done whole or not at all.
func TestWorkOfAClientWhoHangsUpIsWholeOrNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Once(ctx, b.db, cmd, func(tx postgres.Tx) (int, []byte, error) {
		status, body, err := made(tx)
		cancel()
		return status, body, err
	})
	if err == nil || b.works() != b.keys() {
		t.Errorf("%v: the work was done %d times, for %d nonces", err, b.works(), b.keys())
	}
	if b.mustOnce(cmd); b.works() != 1 || b.keys() != 1 {
		t.Errorf("after a retry the work was done %d times, for %d nonces", b.works(), b.keys())
	}
}

// A commit that no standby has may be forgotten, so nobody is told of it. Not parallel: the
// standby is everybody's.
func TestWorkThatNoStandbyHasIsNotTold(t *testing.T) { //nolint:paralleltest // see above
	b := newBench(t)
	db, err := postgres.Open(t.Context(), pgtest.Synchronous(b.url), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	cmd := onceCommand(t, "yuno", "nonce-1", `{}`)
	back := pgtest.StandbyAway(t, b.url)
	type told struct {
		a   OnceAnswer
		err error
	}
	done := make(chan told, 1)
	go func() {
		a, err := Once(t.Context(), db, cmd, made)
		done <- told{a, err}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for pgtest.Exec(t, b.url, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event = 'SyncRep' AND query = 'commit'`) == 0 {
		select {
		case <-ctx.Done():
			t.Fatal("no commit waits for the standby")
		case <-time.After(time.Millisecond):
		}
	}
	pgtest.AwaitWaiting(t, b.url, "idem.read_once") // which looks whether it is there, and vouches for it
	select {
	case got := <-done:
		t.Fatalf("without a standby it was told %+v", got)
	default:
	}
	back()
	got := <-done
	if got.err != nil || got.a.Replayed || b.works() != 1 {
		t.Fatalf("with the standby back it was told %+v", got)
	}
	if again := b.mustOnce(cmd); string(again.Body) != string(got.a.Body) {
		t.Errorf("a retry is told %s, first was %s", again.Body, got.a.Body)
	}
}

func TestPurgeRemovesLivesWithoutATransaction(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.mustOnce(onceCommand(t, "yuno", "nonce-1", `{}`))
	b.mustOnce(onceCommand(t, "yuno", "nonce-2", `{}`))
	b.expire()
	b.mustOnce(onceCommand(t, "yuno", "nonce-3", `{}`))
	for _, want := range []int{2, 0} {
		if n, err := (Purge{DB: b.db, Retention: DefaultRetention}).RunOnce(t.Context()); err != nil || n != want {
			t.Errorf("%d went (%v), want %d", n, err, want)
		}
	}
	if b.keys() != 1 {
		t.Errorf("%d lives are left, want the one that goes on", b.keys())
	}
}
