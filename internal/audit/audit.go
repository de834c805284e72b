// Package audit keeps what operators did and what became of credentials, in a log that
// can only grow. Its entries are numbered without gaps, and each carries the SHA-256 of
// its contents and of the hash before it: whoever changes, removes or swaps a row breaks
// the chain from there, and Verify says where.
//
// An entry is written in the database transaction of what it tells of, as its last
// statement. So there is none without the other; and the end of the chain, one row that
// everybody who writes must hold, is held no longer than a commit takes.
//
// # The hash
//
// An entry's hash is the SHA-256 of these thirteen texts, in UTF-8 and in this order,
// each as a netstring: its length in bytes, in decimal digits, a colon, the bytes and a
// comma, as in "5:hello,".
//
//  1. "oncepay.audit.1", which also is the version of this list
//  2. the previous entry's hash, in lower-case hexadecimal digits; 64 zeros for the first
//  3. seq, in decimal digits
//  4. at, in microseconds since 1970-01-01 00:00 UTC, in decimal digits
//  5. actor_kind
//  6. actor_id
//  7. actor
//  8. address
//  9. request_id
//  10. action
//  11. account_id in lower-case digits with hyphens; empty where there is none
//  12. target
//  13. details, byte by byte as they are stored
//
// docs/operate/audit.md has the same as a statement that any client of PostgreSQL can
// run.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

// Kind is what kind of caller somebody is.
type Kind string

// The kinds that there are.
const (
	KindOperator   Kind = "operator"    // a person who has signed in
	KindToken      Kind = "token"       // a program with an API token
	KindAdminToken Kind = "admin_token" // whoever has PAYMENTS_ADMIN_TOKEN
	KindSystem     Kind = "system"      // the product itself, or a command on its machine
	KindNobody     Kind = "nobody"      // somebody unknown, such as who gives a wrong password
)

// Actor is who did something, and from where. Nothing in it is secret.
type Actor struct {
	Kind      Kind
	ID        string // an operator's or a token's; "" for the rest
	Name      string // an operator's, or a token's
	Address   string // the IP address; "" where there is none
	RequestID string // of the request in which it was done; "" where there is none
}

type actorKey struct{}

// By says who does what is done with the context that it returns.
func By(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf is who was named by By: the product itself, where nobody was.
func ActorOf(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return a
	}
	return Actor{Kind: KindSystem, Name: "system"}
}

// Entry is what was done, and to what.
type Entry struct {
	// Action is a noun and what became of it, such as "merchant.created".
	Action string
	// AccountID is the merchant that it concerns; uuid.Nil for none.
	AccountID uuid.UUID
	// Target is a noun and its id or name, such as "key/0198…" or "operator/ada".
	Target string
	// Details say what exactly, and what was there before. No secret may be in them. A
	// value has at most 4000 characters, and fewer where there are many; a longer one is
	// cut, and ends with "…".
	Details map[string]string
}

// Limits of an entry's texts, in characters: far above what is written there, so that
// somebody who sends us a megabyte for a name leaves no megabyte here.
const (
	maxText = 255
	// maxValue holds the longest list that a key has, fifty networks, and any reason.
	maxValue = 4000
	// maxDetails, in bytes, is what the table takes.
	maxDetails = 16384
)

// Append writes what the context's actor did, as the last statements of the caller's
// database transaction: from here to its end, nobody else can append. If that
// transaction is undone, there was no entry.
func Append(ctx context.Context, tx postgres.Tx, e Entry) error {
	if e.Action == "" || e.Target == "" {
		return errors.New("an audit entry needs an action and a target")
	}
	a := ActorOf(ctx)
	details, err := EncodeDetails(e.Details)
	if err != nil {
		return err
	}
	r := row{
		ActorKind: string(a.Kind), ActorID: plain(a.ID, maxText), Actor: plain(a.Name, maxText),
		Address: plain(a.Address, maxText), RequestID: plain(a.RequestID, maxText),
		Action: plain(e.Action, maxText), AccountID: uuid.NullUUID{UUID: e.AccountID, Valid: e.AccountID != uuid.Nil},
		Target: plain(e.Target, maxText), Details: details,
	}
	h, err := lockHead(tx)
	if err != nil {
		return err
	}
	r.Seq, r.PreviousHash = h.Seq+1, h.Hash
	if r.At, err = now(tx, h.Seq); err != nil {
		return err
	}
	r.Hash = r.sum()
	return insert(tx, r)
}

// Log is the log of one database.
type Log struct{ DB *postgres.DB }

// Append writes an entry in a database transaction of its own, for what changes nothing
// else, such as a password that was refused.
func (l Log) Append(ctx context.Context, e Entry) error {
	return l.DB.InTx(ctx, func(tx postgres.Tx) error { return Append(ctx, tx, e) })
}

// Record is an entry as it was written.
type Record struct {
	Seq   int64     // from 1, without gaps
	At    time.Time // by the database's clock; never before that of the entry before
	Actor Actor
	Entry
	Hash []byte // 32 bytes, unless somebody has altered them
}

// plain is a text as PostgreSQL and a terminal can take it, of at most so many characters.
func plain(text string, limit int) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) && c != '\n' && c != '\t' {
			return unicode.ReplacementChar
		}
		return c
	}, strings.ToValidUTF8(text, string(unicode.ReplacementChar)))
	if utf8.RuneCountInString(text) <= limit {
		return text
	}
	return string([]rune(text)[:max(limit-1, 0)]) + "…"
}

// EncodeDetails makes a JSON object of details: the names sorted, the values cut until
// they fit into the table.
func EncodeDetails(details map[string]string) (string, error) {
	for limit := maxValue; ; limit /= 2 {
		cut := make(map[string]string, len(details))
		for name, value := range details {
			cut[plain(name, maxText)] = plain(value, limit)
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false) // a browser is shown it by a template, which escapes
		if err := enc.Encode(cut); err != nil {
			return "", fmt.Errorf("encode the details of an audit entry: %w", err)
		}
		text := strings.TrimSuffix(b.String(), "\n")
		if len(text) <= maxDetails {
			return text, nil
		}
		if limit == 0 {
			return "", errors.New("an audit entry has too many details")
		}
	}
}
