package transactions

import (
	"fmt"
	"net/http"
	"testing"
)

// A connection that breaks in the middle of what is said. A payment's begin and finish
// are one question each, which PostgreSQL commits when it has the last byte of it, and one
// answer: each of the two is cut after every byte that could matter, on either way.

const (
	// closeBy is how many of a question's last bytes are tried one by one: all that
	// executes and commits what was said before them (22), and the end of that.
	closeBy = 24

	// stride is the distance between the tries before: within the parameters, of which
	// PostgreSQL does nothing before it has them all. A prime, so that the tries fall on
	// different bytes of what is repeated.
	stride = 127
)

// brokenOffEverywhere pays once for every place at which what is said about a
// statement may be cut: the statement itself, or its answer. mayAskBack allows that the
// client is told to come back.
func brokenOffEverywhere(t *testing.T, statement string, answer, mayAskBack bool) {
	w := newWorld(t)
	i, db, wire := w.onFaultyWire()
	l := &lifetime{w: w, i: i, db: db, wire: wire, name: "cut", first: map[string]response{}}
	tries := 0
	for n, whole := 0, 1; n < whole; tries++ {
		what := fmt.Sprintf("after-%05d", n) // as long as any other, and so is the statement
		wire.arm(wireTrap{statement, 1, fault{worked: answer, arrives: n}})
		r := l.send(what)
		if _, left := wire.executed(); left != 0 {
			t.Fatalf("after %d bytes: nothing was cut", n)
		}
		whole = wire.broken()
		if r.status != http.StatusCreated {
			if !mayAskBack {
				t.Errorf("after %d bytes of %d: told %s", n, whole, r)
			}
			r = l.pay(what)
		}
		w.wantCharges("order-"+l.nonce(what), 1)
		w.wantReplay(r, w.create(l.nonce(what), w.body("order-"+l.nonce(what), nil)), false)
		if n++; !answer && n < whole-closeBy {
			n = min(n-1+stride, whole-closeBy)
		}
	}
	w.recoverOn(w.instance)
	w.wantNothingOpen()
	w.wantSends(tries, tries)
	t.Logf("cut after %d different numbers of bytes of %d", tries, wire.broken())
}

// A begin that was cut before its end never took place: the client retries.
func TestH04BeginBrokenOffAfterAnyByteChargesOnce(t *testing.T) {
	t.Parallel()
	for way, answer := range map[string]bool{"the statement": false, "its answer": true} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			brokenOffEverywhere(t, "transactions.begin", answer, !answer)
		})
	}
}

func TestH05SaveBrokenOffAfterAnyByteChargesOnceAndIsAnswered(t *testing.T) {
	t.Parallel()
	for way, answer := range map[string]bool{"the statement": false, "its answer": true} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			brokenOffEverywhere(t, "transactions.finish", answer, false)
		})
	}
}

// refundBrokenOffEverywhere refunds once for every such place. Its end is a database
// transaction of several statements, which takes place with its commit or not at all.
func refundBrokenOffEverywhere(t *testing.T, statement string, answer, mayAskBack bool) {
	w := newWorld(t)
	i, db, wire := w.onFaultyWire()
	c := &course{lifetime: &lifetime{w: w, i: i, db: db, wire: wire, name: "cut", first: map[string]response{}}}
	tries := 0
	for n, whole := 0, 1; n < whole; tries++ {
		what := fmt.Sprintf("after-%05d", n) // as long as any other, and so is the statement
		d := w.sold("order-"+c.nonce(what), "100").refund("60")
		wire.arm(wireTrap{statement, 1, fault{worked: answer, arrives: n}})
		r := w.actOn(i, c.nonce(what), d)
		if _, left := wire.executed(); left != 0 {
			t.Fatalf("after %d bytes: nothing was cut", n)
		}
		whole = wire.broken()
		if r.status != http.StatusOK {
			if !mayAskBack {
				t.Errorf("after %d bytes of %d: told %s", n, whole, r)
			}
			r = c.until(what, func() response { return w.actOn(i, c.nonce(what), d) })
		}
		w.wantReplay(r, w.act(c.nonce(what), d), false)
		if n++; !answer && n < whole-closeBy {
			n = min(n-1+stride, whole-closeBy)
		}
	}
	w.recoverOn(w.instance)
	w.wantBalanced()
	w.wantSends(2*tries, 2*tries)
	t.Logf("cut after %d different numbers of bytes of %d", tries, wire.broken())
}

func TestH04BeginOfARefundBrokenOffAfterAnyByteRefundsOnce(t *testing.T) {
	t.Parallel()
	for way, answer := range map[string]bool{"the statement": false, "its answer": true} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			refundBrokenOffEverywhere(t, "transactions.begin_action", answer, !answer)
		})
	}
}

func TestH05SaveOfARefundBrokenOffAfterAnyByteRefundsOnceAndIsAnswered(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{"transactions.finish", commit} {
		for way, answer := range map[string]bool{"the statement": false, "its answer": true} {
			t.Run(statement+", "+way, func(t *testing.T) {
				t.Parallel()
				refundBrokenOffEverywhere(t, statement, answer, false)
			})
		}
	}
}
