package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
)

// tamper does what nobody may: as whoever owns the tables can.
func (b *book) tamper(sql string) {
	b.t.Helper()
	pgtest.Exec(b.t, b.url, `ALTER TABLE audit_entries DISABLE TRIGGER ALL;
		`+sql+`;
		ALTER TABLE audit_entries ENABLE TRIGGER ALL`)
}

// rehash gives the entries from that one on, and the head, the hashes that their contents
// should have: what somebody does who knows how this works.
func (b *book) rehash(from, to int64) {
	b.t.Helper()
	rows, err := b.batch(b.t.Context(), from-2, to)
	if err != nil {
		b.t.Fatal(err)
	}
	previous := make([]byte, sha256.Size)
	for _, r := range rows {
		if r.Seq >= from {
			r.PreviousHash = previous
			b.tamper(fmt.Sprintf(`UPDATE audit_entries SET previous_hash = '\x%x', hash = '\x%x' WHERE seq = %d`, previous, r.sum(), r.Seq))
			r.Hash = r.sum()
		}
		previous = r.Hash
	}
}

func TestLogCanOnlyGrow(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.fill(3)
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(b.url)) // as the owner of the tables
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the test is over
	for _, sql := range []string{
		`UPDATE audit_entries SET actor = 'eve' WHERE seq = 2`, `DELETE FROM audit_entries WHERE seq = 3`, `TRUNCATE audit_entries`,
		`DELETE FROM audit_entries WHERE false`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	b.wantWhole(3)
}

func TestEveryAlterationIsFoundWhereItIs(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.fill(7)
	pgtest.Exec(t, b.url, `CREATE TABLE kept AS TABLE audit_entries; CREATE TABLE kept_head AS TABLE audit_head`)
	const swap = `UPDATE audit_entries SET seq = 100 WHERE seq = %[1]d; UPDATE audit_entries SET seq = %[1]d WHERE seq = %[2]d; UPDATE audit_entries SET seq = %[2]d WHERE seq = 100`
	type alteration struct {
		sql   string
		seq   int64
		fault Fault
	}
	cases := []alteration{
		{`DELETE FROM audit_entries WHERE seq = 1`, 1, FaultMissing},
		{`DELETE FROM audit_entries WHERE seq = 4`, 4, FaultMissing},
		{`DELETE FROM audit_entries WHERE seq = 7`, 7, FaultMissing},
		{`DELETE FROM audit_entries WHERE seq > 5`, 6, FaultMissing},
		{`DELETE FROM audit_entries`, 1, FaultMissing},
		{`DELETE FROM audit_entries WHERE seq = 3; UPDATE audit_entries SET seq = seq - 1 WHERE seq > 3; UPDATE audit_head SET seq = 6`, 3, FaultAltered},
		{fmt.Sprintf(swap, 1, 2), 1, FaultAltered},
		{fmt.Sprintf(swap, 3, 6), 3, FaultAltered},
		{fmt.Sprintf(swap, 6, 7), 6, FaultAltered},
		{`UPDATE audit_head SET seq = 5`, 5, FaultHead}, // the head's hash is that of another
		{`UPDATE audit_head SET seq = 5, hash = (SELECT hash FROM audit_entries WHERE seq = 5)`, 6, FaultExtra},
		{`UPDATE audit_head SET seq = 9`, 8, FaultMissing},
		{`UPDATE audit_head SET seq = 9223372036854775807`, 8, FaultMissing},
		{`UPDATE audit_head SET hash = sha256('x')`, 7, FaultHead},
		{`UPDATE audit_head SET hash = ''`, 7, FaultHead},
		{`INSERT INTO audit_entries SELECT 8, at, actor_kind, actor_id, actor, address, request_id, 'key.revoked', account_id, target, details, hash, sha256('x') FROM audit_entries WHERE seq = 7`, 8, FaultExtra},
		{`INSERT INTO audit_entries SELECT 8, at, actor_kind, actor_id, actor, address, request_id, 'key.revoked', account_id, target, details, hash, sha256('x') FROM audit_entries WHERE seq = 7;
			UPDATE audit_head SET seq = 8, hash = sha256('x')`, 8, FaultAltered},
		{`ALTER TABLE audit_entries DROP CONSTRAINT audit_entries_seq_positive; UPDATE audit_entries SET seq = 0 WHERE seq = 1`, 0, FaultExtra},
		{`ALTER TABLE audit_entries DROP CONSTRAINT audit_entries_pkey; INSERT INTO audit_entries SELECT * FROM audit_entries WHERE seq = 4`, 4, FaultExtra},
	}
	for column, value := range map[string]string{
		"at": "at + interval '1 microsecond'", "actor_kind": "'system'", "actor_id": "''", "actor": "'eve'", "address": "'192.0.2.8'",
		"request_id": "request_id || ' '", "action": "'key.revoked'", "account_id": "NULL", "target": "'key/9'", "details": `'{"mode": "test"}'`,
		"previous_hash": "sha256('x')", "hash": "sha256('x')",
	} {
		for _, seq := range []int64{1, 4, 7} {
			cases = append(cases, alteration{fmt.Sprintf(`UPDATE audit_entries SET %s = %s WHERE seq = %d`, column, value, seq), seq, FaultAltered})
		}
	}
	cases = append(cases,
		alteration{`UPDATE audit_entries SET at = 'infinity' WHERE seq = 4`, 4, FaultAltered},
		alteration{`UPDATE audit_entries SET account_id = '00000000-0000-0000-0000-000000000000' WHERE seq = 4`, 4, FaultAltered},
		// What is moved from one text to the next makes the same bytes where lengths are not told.
		alteration{`UPDATE audit_entries SET actor = 'ad', address = 'a' || address WHERE seq = 4`, 4, FaultAltered},
	)
	for _, c := range cases {
		b.tamper(c.sql)
		r := b.verify(VerifyOptions{})
		whole := max(c.seq-1, 0)
		if c.fault == FaultHead || c.fault == FaultExtra && c.seq == 4 { // the entry itself is fine
			whole = c.seq
		}
		if r.Broken == nil || r.Broken.Seq != c.seq || r.Broken.Fault != c.fault || r.Entries != whole {
			t.Errorf("%s: %d entries are whole, broken at %+v, want %s at %d", c.sql, r.Entries, r.Broken, c.fault, c.seq)
		}
		b.tamper(`DELETE FROM audit_entries; INSERT INTO audit_entries SELECT * FROM kept; UPDATE audit_head SET (seq, hash) = (SELECT seq, hash FROM kept_head)`)
		if r := b.verify(VerifyOptions{}); r.Broken != nil {
			t.Fatalf("restored after %s: broken at %+v", c.sql, r.Broken)
		}
	}
}

// Somebody who knows how hashes are made gives an altered entry the one that fits. The next
// one tells, as long as it is left alone.
func TestEntryThatWasRewrittenWithItsHashIsFoundByTheNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		altered, rehashed, want int64
		fault                   Fault
	}{
		{1, 1, 1, FaultRewritten},
		{3, 3, 3, FaultRewritten},
		{6, 6, 6, FaultRewritten}, // vouched for by nobody but the head
		{7, 7, 7, FaultHead},
		{3, 5, 5, FaultRewritten}, // 3 and 4 are chained anew, up to 5: only an anchor knows about 3
		{3, 7, 7, FaultHead},
	} {
		b := newBook(t)
		b.fill(7)
		b.tamper(fmt.Sprintf(`UPDATE audit_entries SET actor = 'eve' WHERE seq = %d`, c.altered))
		b.rehash(c.altered, c.rehashed)
		if r := b.verify(VerifyOptions{}); r.Broken == nil || r.Broken.Seq != c.want || r.Broken.Fault != c.fault {
			t.Errorf("%d altered, and rehashed up to %d: broken at %+v, want %s at %d", c.altered, c.rehashed, r.Broken, c.fault, c.want)
		}
	}
}

// One entry that was taken over from another chain does not follow from the one before.
func TestEntryOfAnotherChainIsFound(t *testing.T) {
	t.Parallel()
	b, other := newBook(t), newBook(t)
	b.fill(7)
	other.fill(7)
	rows, err := other.batch(t.Context(), 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	r := rows[0]
	b.tamper(fmt.Sprintf(`UPDATE audit_entries SET at = timestamptz 'epoch' + %s * interval '1 microsecond', previous_hash = '\x%x', hash = '\x%x' WHERE seq = 4`,
		r.At, r.PreviousHash, r.Hash))
	if got := b.verify(VerifyOptions{}); got.Broken == nil || got.Broken.Seq != 4 || got.Broken.Fault != FaultRewritten || got.Entries != 3 {
		t.Errorf("%d entries are whole, broken at %+v, want %s at 4", got.Entries, got.Broken, FaultRewritten)
	}
}

func TestOnlyAnAnchorFindsWhatWasRebuiltAsAWhole(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.fill(4)
	early := b.wantWhole(4).Head
	b.fill(3)
	late := b.wantWhole(7).Head
	for _, a := range []Anchor{early, late, {Seq: 0, Hash: make([]byte, sha256.Size)}} {
		if r := b.verify(VerifyOptions{Anchor: &a}); r.Broken != nil {
			t.Errorf("with the anchor %s: broken at %+v", a, r.Broken)
		}
	}

	b.tamper(`UPDATE audit_entries SET actor = 'eve' WHERE seq = 6`)
	b.rehash(6, 7)
	b.tamper(`UPDATE audit_head SET hash = (SELECT hash FROM audit_entries WHERE seq = 7)`)
	b.wantWhole(7) // which is what a chain cannot show
	if r := b.verify(VerifyOptions{Anchor: &early}); r.Broken != nil {
		t.Errorf("an anchor of before: %+v", r.Broken)
	}
	if r := b.verify(VerifyOptions{Anchor: &late}); r.Broken == nil || r.Broken.Seq != 7 || r.Broken.Fault != FaultAnchor {
		t.Errorf("an anchor of behind: %+v", r.Broken)
	}

	b.tamper(`DELETE FROM audit_entries WHERE seq > 5; UPDATE audit_head SET seq = 5, hash = (SELECT hash FROM audit_entries WHERE seq = 5)`)
	b.wantWhole(5) // nor that it was cut off
	if r := b.verify(VerifyOptions{Anchor: &late}); r.Broken == nil || r.Broken.Seq != 6 || r.Broken.Fault != FaultAnchor {
		t.Errorf("an anchor of what was cut off: %+v", r.Broken)
	}

	b.tamper(`DELETE FROM audit_entries; UPDATE audit_head SET seq = 0, hash = decode(repeat('00', 32), 'hex')`)
	b.wantWhole(0)
	if r := b.verify(VerifyOptions{Anchor: &early}); r.Broken == nil || r.Broken.Seq != 1 || r.Broken.Fault != FaultAnchor {
		t.Errorf("an anchor of a log that was emptied: %+v", r.Broken)
	}
	pgtest.Exec(t, b.url, `DELETE FROM audit_head`)
	if _, err := b.Verify(t.Context(), VerifyOptions{}); !errors.Is(err, errNoHead) {
		t.Errorf("without a head: %v", err)
	}
	if err := b.Append(t.Context(), Entry{Action: "key.created", Target: "key/1"}); !errors.Is(err, errNoHead) {
		t.Errorf("appended without a head: %v", err)
	}
}

func TestVerifyingGoesByBatchesAndEndsWhenItIsToldTo(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	const n = 2*batchSize + 100
	b.fill(n)
	var told []int64
	r := b.verify(VerifyOptions{Progress: func(done, of int64) {
		if of != n {
			t.Errorf("of %d, want %d", of, n)
		}
		told = append(told, done)
		if done == batchSize {
			b.fill(1) // while it goes on: none of its business
		}
	}})
	if r.Broken != nil || r.Entries != n || fmt.Sprint(told) != "[1000 2000 2100]" {
		t.Errorf("verified %+v, broken at %+v, told of %v", r, r.Broken, told)
	}
	for _, seq := range []int64{batchSize, batchSize + 1, 2 * batchSize} { // around the borders of batches
		b.tamper(fmt.Sprintf(`CREATE TABLE removed AS SELECT * FROM audit_entries WHERE seq = %[1]d; DELETE FROM audit_entries WHERE seq = %[1]d`, seq))
		if r := b.verify(VerifyOptions{}); r.Broken == nil || *r.Broken != (Break{seq, FaultMissing, "it is missing"}) || r.Entries != seq-1 {
			t.Errorf("without %d: %+v", seq, r.Broken)
		}
		b.tamper(`INSERT INTO audit_entries SELECT * FROM removed; DROP TABLE removed`)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := b.Verify(ctx, VerifyOptions{Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("told to end, it ended with %v", err)
	}
}

func TestAnchorIsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	a := Anchor{Seq: 1234, Hash: bytes.Repeat([]byte{0xab}, sha256.Size)}
	text, err := a.MarshalText()
	var read Anchor
	if err != nil || read.UnmarshalText(text) != nil || read.Seq != a.Seq || !bytes.Equal(read.Hash, a.Hash) || string(text) != "1234:"+strings.Repeat("ab", 32) {
		t.Errorf("%s is read as %s (%v)", text, read, err)
	}
	for _, odd := range []string{"", "1234", "1234:", "1234:abcd", ":" + strings.Repeat("ab", 32), "-1:" + strings.Repeat("ab", 32), "x:" + strings.Repeat("ab", 32), string(text) + "00"} {
		if new(Anchor).UnmarshalText([]byte(odd)) == nil {
			t.Errorf("%q was taken for an anchor", odd)
		}
	}
}

// The page for operators has a statement that recomputes the chain without this program.
func TestStatementOfThePageFindsTheSame(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operate/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```sql\n")
	sql, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("the page has no statement")
	}
	b := newBook(t)
	b.fill(20)
	if n := pgtest.Exec(t, b.url, sql); n != 0 {
		t.Fatalf("of a whole log the page's statement finds %d", n)
	}
	for _, c := range []struct {
		alter string
		want  int64
	}{
		{`UPDATE audit_entries SET account_id = NULL WHERE seq = 3`, 1},
		{`UPDATE audit_entries SET details = details || ' ' WHERE seq = 5`, 2},
		{`DELETE FROM audit_entries WHERE seq = 9`, 3},
	} {
		b.tamper(c.alter)
		if n := pgtest.Exec(t, b.url, sql); n != c.want {
			t.Errorf("after %s the page's statement finds %d, want %d", c.alter, n, c.want)
		}
	}
}
