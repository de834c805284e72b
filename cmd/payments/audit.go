package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/postgres"
)

// auditCmd reads the audit log straight from the database: it is asked where an instance's
// word is in doubt.
type auditCmd struct {
	Verify auditVerifyCmd `cmd:"" help:"Recompute the audit log's chain of hashes, and name the first entry that is not as it was written; fails if there is one."`
	List   auditListCmd   `cmd:"" help:"List what operators did and what became of keys, the newest first."`
}

// auditDatabase is where the log is.
type auditDatabase struct {
	PgBouncer bool   `name:"pgbouncer" help:"DATABASE_URL leads to PgBouncer in transaction mode: isolation and time-outs are the role's settings, and a start without them is refused."`
	DataDir   string `default:".data" help:"Folder of the running dev, where DATABASE_URL is not set." type:"path"`
	JSON      bool   `name:"json" help:"Print JSON."`
}

// read runs f on the log of DATABASE_URL, or of the running dev.
func (c auditDatabase) read(ctx context.Context, f func(audit.Log) error) error {
	url, err := databaseURL()
	if errors.Is(err, errNoDatabaseURL) {
		if d, notRunning := readDevInfo(c.DataDir); notRunning == nil && d.DatabaseURL != "" {
			url, err = d.DatabaseURL, nil
		}
	}
	if err != nil {
		return err
	}
	db, err := openMigrated(ctx, url, c.PgBouncer)
	if err != nil {
		return err
	}
	defer db.Close()
	err = f(audit.Log{DB: db})
	if postgres.IsUnavailable(err) {
		return unavailableError("the audit log cannot be read: %s", postgres.Describe(err))
	}
	return err
}

// progressEvery is how often somebody who waits is told how far it is.
const progressEvery = time.Second

type auditVerifyCmd struct {
	auditDatabase
	Anchor *audit.Anchor `env:"-" help:"An end of the chain that was noted elsewhere, as this command prints it: finds a chain that was rebuilt, or cut off." placeholder:"SEQ:HASH"`
}

// errBroken is why `payments audit verify` fails where it has found something.
var errBroken = errors.New("the audit log is not as it was written; docs/operate/audit.md says what to do")

// Run verifies the log, and prints its end, to be noted.
func (c auditVerifyCmd) Run(ctx context.Context, s streams) error {
	var r audit.Report
	err := c.read(ctx, func(l audit.Log) (err error) {
		told := time.Now()
		r, err = l.Verify(ctx, audit.VerifyOptions{Anchor: c.Anchor, Progress: func(done, of int64) {
			if time.Since(told) >= progressEvery {
				told = time.Now()
				fmt.Fprintf(s.err, "%d of %d entries\n", done, of)
			}
		}})
		return err
	})
	if err != nil {
		return err
	}
	if c.JSON {
		if err := json.NewEncoder(s.out).Encode(r); err != nil {
			return err
		}
	} else {
		printVerified(s.out, r)
	}
	if r.Broken != nil {
		return errBroken
	}
	return nil
}

func printVerified(w io.Writer, r audit.Report) {
	if b := r.Broken; b != nil {
		fmt.Fprintf(w, "entry %d is %s: %s\n", b.Seq, map[audit.Fault]string{
			audit.FaultMissing: "missing", audit.FaultAltered: "altered", audit.FaultRewritten: "rewritten",
			audit.FaultExtra: "not ours", audit.FaultHead: "not the head's", audit.FaultAnchor: "not the anchor's",
		}[b.Fault], b.Says)
		fmt.Fprintf(w, "from the first on, %s\n", entries(r.Entries, "is as it was written", "are as they were written"))
		return
	}
	fmt.Fprintf(w, "%s, each as it was written\nhead %s\n", entries(r.Entries, "", ""), r.Head)
}

// entries is how many there are, and what of them.
func entries(n int64, one, more string) string {
	if n == 1 {
		return strings.TrimSpace("1 entry " + one)
	}
	return strings.TrimSpace(fmt.Sprintf("%d entries %s", n, more))
}

type auditListCmd struct {
	auditDatabase
	Target    string `env:"-" help:"Only what was done to this, such as merchant/01a2…, key/…, transaction/… or operator/ada." placeholder:"TARGET"`
	Actor     string `env:"-" help:"Only what this operator, or this token, did." placeholder:"NAME"`
	Action    string `env:"-" help:"Only this, such as key.revoked." placeholder:"ACTION"`
	AccountID string `env:"-" help:"Only what concerns this merchant." placeholder:"UUID"`
	Before    int64  `env:"-" help:"Only entries before this number (default: from the newest on)." placeholder:"SEQ"`
	Limit     int    `env:"-" default:"100" help:"At most so many entries, from 1 to 100000."`
}

// maxListedEntries bounds one listing, whose reader has a terminal or a pipe.
const maxListedEntries = 100_000

// Run prints the entries that match, each on a line.
func (c auditListCmd) Run(ctx context.Context, s streams) error {
	if c.Limit < 1 || c.Limit > maxListedEntries {
		return usage("--limit must be from 1 to %d", maxListedEntries)
	}
	f := audit.Filter{Target: c.Target, Actor: c.Actor, Action: c.Action}
	if c.AccountID != "" {
		id, err := uuid.Parse(c.AccountID)
		if err != nil {
			return usage("--account-id must be a UUID")
		}
		f.AccountID = id
	}
	return c.read(ctx, func(l audit.Log) error {
		for left, before := c.Limit, c.Before; ; {
			p, err := l.Page(ctx, f, before, min(left, audit.MaxPage))
			if err != nil {
				return err
			}
			for _, r := range p.Records {
				if err := c.print(s.out, r); err != nil {
					return err
				}
			}
			left -= len(p.Records)
			if before = p.Next; before == 0 || left == 0 {
				return nil
			}
		}
	})
}

// auditView is an entry as JSON.
type auditView struct {
	Seq       int64             `json:"seq"`
	At        time.Time         `json:"at"`
	ActorKind audit.Kind        `json:"actor_kind"`
	ActorID   string            `json:"actor_id"`
	Actor     string            `json:"actor"`
	Address   string            `json:"address"`
	RequestID string            `json:"request_id"`
	Action    string            `json:"action"`
	AccountID *uuid.UUID        `json:"account_id"` // null: it concerns no merchant
	Target    string            `json:"target"`
	Details   map[string]string `json:"details"`
	Hash      string            `json:"hash"`
}

func (c auditListCmd) print(w io.Writer, r audit.Record) error {
	if c.JSON {
		v := auditView{
			r.Seq, r.At, r.Actor.Kind, r.Actor.ID, r.Actor.Name, r.Actor.Address, r.Actor.RequestID,
			r.Action, nil, r.Target, r.Details, hex.EncodeToString(r.Hash),
		}
		if r.AccountID != uuid.Nil {
			v.AccountID = &r.AccountID
		}
		return json.NewEncoder(w).Encode(v)
	}
	// Quoted: whoever altered a row may have put into it what a terminal takes for a command.
	line := []string{
		fmt.Sprint(r.Seq), r.At.Format("2006-01-02T15:04:05.000000Z"), fmt.Sprintf("%q", r.Action), fmt.Sprintf("%q", r.Target),
		fmt.Sprintf("by %q (%s)", r.Actor.Name, r.Actor.Kind),
	}
	if r.Actor.Address != "" {
		line = append(line, fmt.Sprintf("from %q", r.Actor.Address))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Details)) {
		line = append(line, fmt.Sprintf("%q=%q", name, r.Details[name]))
	}
	_, err := fmt.Fprintln(w, strings.Join(line, "  "))
	return err
}
