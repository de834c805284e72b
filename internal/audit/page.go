package audit

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// Limits of a page.
const (
	// MaxPage is how many entries one page has at most.
	MaxPage = 100
	// maxWalk is how many entries are looked at for one page, where no index knows which of
	// them match: some milliseconds' work, and more than a busy day's.
	maxWalk = 2000
)

// Filter says which entries are asked for: those that match all of what is given, exactly.
type Filter struct {
	Target    string
	Actor     string // a name
	Action    string
	AccountID uuid.UUID // uuid.Nil: any
}

// walks says whether more has to be looked at than matches. Of a target, or else of an actor,
// an index knows the entries.
func (f Filter) walks() bool {
	beside := f.Action != "" || f.AccountID != uuid.Nil
	return beside || f.Target != "" && f.Actor != ""
}

// Page is some entries, the newest first.
type Page struct {
	Records []Record
	// Next is what to give as before for the page behind this one; 0 if this is the last.
	Next int64
	// Partial says that this page ends where it has looked at enough entries, not where it is
	// full: it may have few, or none, although there are more behind Next.
	Partial bool
}

// Page reads the entries before that number, or the newest if it is 0: as many as limit says,
// at most and by default MaxPage.
func (l Log) Page(ctx context.Context, f Filter, before int64, limit int) (Page, error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	walk := limit + 1
	if f.walks() {
		walk = maxWalk
	}
	rows, err := l.page(ctx, f, before, walk, limit+1)
	if err != nil {
		return Page{}, err
	}
	p := Page{Records: make([]Record, 0, limit)}
	for _, s := range rows {
		switch {
		case s.Row.Seq == 0: // what was looked at did not match
		case len(p.Records) == limit:
			p.Next = p.Records[limit-1].Seq
			return p, nil
		default:
			p.Records = append(p.Records, s.Row.record())
		}
	}
	if s := rows[0]; s.Looked == walk && s.Last > 1 {
		p.Next, p.Partial = s.Last, true
	}
	return p, nil
}

// record is what a row says. One that somebody has altered may say less.
func (r row) record() Record {
	rec := Record{
		Seq: r.Seq, Hash: r.Hash,
		Actor: Actor{Kind: Kind(r.ActorKind), ID: r.ActorID, Name: r.Actor, Address: r.Address, RequestID: r.RequestID},
		Entry: Entry{Action: r.Action, AccountID: r.AccountID.UUID, Target: r.Target},
	}
	if us, err := strconv.ParseInt(r.At, 10, 64); err == nil {
		rec.At = time.UnixMicro(us).UTC()
	}
	if json.Unmarshal([]byte(r.Details), &rec.Details) != nil {
		rec.Details = map[string]string{"unreadable": r.Details}
	}
	return rec
}
