package transactions

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// maxWindow is the longest stretch of a provider's books that one step compares.
	// Shorter ones would only cost more requests where little happens.
	maxWindow = time.Hour

	// maxListPages and maxListed bound what one step takes from a provider's list: what
	// is beyond them is the next step's. Some megabytes at most.
	maxListPages = 20
	maxListed    = 5000

	// maxAsked is how many of ours one step asks about, one by one.
	maxAsked = 200

	// maxShown is how many differences one step tells. It notes all of them.
	maxShown = 100

	// windowEvery is how often a provider's books are looked at, by all instances
	// together, while there is nothing to catch up with.
	windowEvery = 2 * time.Minute

	// bookMargin is how much younger than what may still be on its way a booking must
	// not be: a provider's clock is not ours, and its list may be a little behind.
	bookMargin = time.Minute

	// idSkew is how far the clock of a process, which makes our ids, may be from the
	// database's: twice what the doctor calls bad. What is further off is found if the
	// provider lists it, and not asked about.
	idSkew = 2 * time.Minute
)

// lag is how old a booking must be to be compared: then every transaction of its time
// has ended, unless it is open for a reason, and nothing is on its way any more.
func (r *Reconciler) lag(p providers.Provider) time.Duration {
	t := r.service.terms(p)
	return t.lease + t.travel() + bookMargin
}

// advance compares the next window of a provider's books, if it is anybody's turn, and
// says whether there is more to do at once.
func (r *Reconciler) advance(ctx context.Context, p providers.Provider) (behind bool, err error) {
	every := max(windowEvery, r.service.lease) // a step has a lease's time
	claimed, ours, err := r.service.store.claimWindow(ctx, p.Name(), r.lag(p), every)
	if err != nil || !ours || !claimed.Since.Before(claimed.Until) {
		return false, err
	}
	done, err := r.compare(ctx, p, claimed)
	if err != nil {
		return false, err // the window stays, for whoever comes next
	}
	behind = done.to.Before(claimed.Until)
	waited := time.Duration(0)
	if behind {
		waited = every
	}
	return behind, r.service.store.windowDone(ctx, p.Name(), span{claimed.Since, done.to}, waited)
}

// compared is what came of comparing a window up to a moment.
type compared struct {
	from, to    time.Time
	counts      map[Finding]int
	late        int // of what is missing here: charges that the loop reverses
	differences []Difference
}

// add counts a finding, and holds on to it if somebody may have to look.
func (s *compared) add(d Difference) {
	s.counts[d.Finding]++
	switch d.ProviderStatus {
	case string(providers.Approved), string(providers.Pending):
	default:
		if d.Finding == FoundOpen { // nothing is known that would be worth keeping
			return
		}
	}
	if d.Finding != FoundMatched {
		s.differences = append(s.differences, d)
	}
}

// compare holds a window of a provider's books against ours, from its beginning as far as
// one step goes: to says how far. What it finds is kept, and counted.
func (r *Reconciler) compare(ctx context.Context, p providers.Provider, w span) (compared, error) {
	ctx, cancel := context.WithTimeout(ctx, r.service.lease)
	defer cancel()
	s := compared{from: w.Since, counts: map[Finding]int{}}
	if longest := w.Since.Add(maxWindow); longest.Before(w.Until) {
		w.Until = longest
	}
	var (
		booked []booking
		listed []string // ours among them
	)
	lister, lists := p.(providers.Lister)
	if lists {
		var err error
		if booked, w.Until, err = r.list(ctx, lister, w); err == nil {
			listed, err = r.recognise(ctx, p, booked)
		}
		if err != nil {
			return compared{}, err
		}
	}
	unlisted, err := r.service.store.ofWindow(ctx, p.Name(), w, !lists, listed, maxAsked+1)
	if err != nil {
		return compared{}, err
	}
	if len(unlisted) > maxAsked {
		w.Until, unlisted = justBefore(unlisted[maxAsked], w), unlisted[:maxAsked]
	}
	answers, err := r.askAll(ctx, p, unlisted)
	if err != nil {
		return compared{}, err
	}
	if len(answers) < len(unlisted) {
		w.Until = justBefore(unlisted[len(answers)], w)
	}
	s.to = w.Until
	for i, answer := range answers {
		if err := r.weigh(ctx, p, &s, unlisted[i], answer); err != nil {
			return compared{}, err
		}
	}
	for _, b := range booked {
		if !b.BookedAt.Before(s.to) {
			continue // the next step's
		}
		if err := r.judge(ctx, p, &s, b); err != nil {
			return compared{}, err
		}
	}
	return s, r.keep(ctx, p, s)
}

// weigh compares one of ours with what the provider says of it. What it would not tell,
// and what came late, is left to a look of its own, where the provider can be asked: what
// came of a reversal can be known nowhere else.
func (r *Reconciler) weigh(ctx context.Context, p providers.Provider, s *compared, c counterpart, answer providers.Result) error {
	s.add(c.difference(c.finding(answer), answer))
	if !p.Traits().Queryable {
		return nil
	}
	late := answer.Outcome == providers.Approved && c.late()
	if late {
		s.late++
	}
	if late || answer.Outcome == providers.Unclear && c.Status.Terminal() {
		return r.service.store.watchSoon(ctx, c.AccountID, c.ID)
	}
	return nil
}

// justBefore ends a window where c, of which it has not been asked, begins. More than
// two hundred transactions do not begin in one microsecond.
func justBefore(c counterpart, w span) time.Time {
	if c.CreatedAt.After(w.Since) {
		return c.CreatedAt
	}
	return w.Since.Add(time.Microsecond)
}

// keep notes and counts what a step has found. A late charge is counted by the look
// that reverses it.
func (r *Reconciler) keep(ctx context.Context, p providers.Provider, s compared) error {
	if err := r.service.store.noteDifferences(ctx, s.differences); err != nil {
		return err
	}
	for _, f := range Findings {
		n := s.counts[f]
		if f == FoundMissingHere {
			n -= s.late
		}
		for range n {
			r.found(f, NotReversed)
		}
	}
	if s.counts[FoundMissingHere]+s.counts[FoundMissingThere]+s.counts[FoundAmountDiffers] > 0 {
		r.service.log.WarnContext(ctx, "the provider's books differ", "provider", p.Name(), "from", s.from, "to", s.to,
			"missing_here", s.counts[FoundMissingHere], "missing_there", s.counts[FoundMissingThere], "amount_differs", s.counts[FoundAmountDiffers])
	}
	return nil
}

// booking is what a provider has booked under one reference: all of it, should it be
// there more than once. Several currencies stand beside each other, and match none.
type booking struct {
	providers.Booking
	ours     *counterpart // nil: nobody's here
	reversal bool         // of ours, and not ours itself
}

// names is the transaction that a booking is about, if its reference can be one of ours.
func (b booking) names() (account, id uuid.UUID, reversal, ok bool) {
	reference, reversal := strings.CutSuffix(b.Order.Reference, reversalSuffix)
	id, isID := fields.ParseID(reference)
	account, isAccount := fields.ParseID(b.Order.AccountID)
	return account, id, reversal, isID && isAccount
}

// list takes a window of a provider's books. It says up to when they are complete: where
// there is more than one step takes, not to the end of the window.
func (r *Reconciler) list(ctx context.Context, p providers.Lister, w span) ([]booking, time.Time, error) {
	type key struct{ account, mode, reference string }
	var (
		books = map[key]*booking{}
		order []*booking
		last  = w.Since
		after string
	)
	for pages := 1; ; pages++ {
		page, next, err := r.page(ctx, p, w, after)
		if err != nil {
			return nil, w.Until, err
		}
		for _, b := range page {
			last = b.BookedAt
			k := key{b.Order.AccountID, b.Order.Mode, b.Order.Reference}
			same := books[k]
			if same == nil {
				books[k] = &booking{Booking: b}
				order = append(order, books[k])
				continue
			}
			same.Amount = same.Amount.Add(b.Amount)
			if b.Currency != same.Currency {
				same.Currency += "/" + b.Currency
			}
		}
		if next == "" {
			last = w.Until
			break
		}
		if next == after {
			return nil, w.Until, fmt.Errorf("%w: a page leads to itself", providers.ErrList)
		}
		if after = next; (pages >= maxListPages || len(order) >= maxListed) && last.After(w.Since) {
			break
		}
	}
	complete := slices.DeleteFunc(order, func(b *booking) bool { return !b.BookedAt.Before(last) })
	bookings := make([]booking, len(complete))
	for i, b := range complete {
		bookings[i] = *b
	}
	return bookings, last, nil
}

// page takes one page of a list.
func (r *Reconciler) page(ctx context.Context, p providers.Lister, w span, after string) ([]providers.Booking, string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Traits().Timeout)
	defer cancel()
	return p.List(ctx, w.Since, w.Until, after)
}

// askAll asks about transactions of ours one by one, several at a time, in their order,
// as long as there is time for it: there may be fewer answers than transactions, and at
// least one. What has not ended is not asked about, that is recovery's.
func (r *Reconciler) askAll(ctx context.Context, p providers.Provider, cs []counterpart) ([]providers.Result, error) {
	var (
		wg      sync.WaitGroup
		answers = make([]providers.Result, len(cs))
		slots   = make(chan struct{}, reconcileWorkers)
		begun   = time.Now()
		asked   int
	)
	end, _ := ctx.Deadline()
	for i, c := range cs {
		answers[i].Outcome = providers.Unclear
		if c.Status.Terminal() && p.Traits().Queryable {
			slots <- struct{}{}
			if i > 0 && time.Until(end) < p.Traits().Timeout+saveTime {
				break
			}
			wg.Go(func() {
				defer func() { <-slots }()
				answers[i] = r.begin(c, begun, p).ask(ctx, c.ID.String())
			})
		}
		asked = i + 1
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", providers.ErrList, err)
	}
	return answers[:asked], nil
}

// recognise finds our side of what is booked, and returns the ids of those that are ours.
func (r *Reconciler) recognise(ctx context.Context, p providers.Provider, booked []booking) (listed []string, err error) {
	var accounts, ids []string
	for _, b := range booked {
		if account, id, _, ok := b.names(); ok {
			accounts, ids = append(accounts, account.String()), append(ids, id.String())
		}
	}
	found, err := r.service.store.listed(ctx, p.Name(), accounts, ids)
	if err != nil {
		return nil, err
	}
	type key struct {
		account, id uuid.UUID
		mode        string
	}
	ours := map[key]*counterpart{}
	for i := range found {
		ours[key{found[i].AccountID, found[i].ID, found[i].Mode}] = &found[i]
	}
	for i := range booked {
		b := &booked[i]
		account, id, reversal, _ := b.names()
		b.ours, b.reversal = ours[key{account, id, b.Order.Mode}], reversal
		if b.ours != nil && !reversal {
			listed = append(listed, id.String())
		}
	}
	return listed, nil
}

// judge holds one booking against ours.
func (r *Reconciler) judge(ctx context.Context, p providers.Provider, s *compared, b booking) error {
	switch {
	case b.ours == nil:
		s.add(b.difference(p.Name(), FoundMissingHere))
	case !b.reversal:
		return r.weigh(ctx, p, s, *b.ours, providers.Result{Outcome: providers.Approved, Amount: b.Amount, Currency: plain(b.Currency)})
	case b.ours.Status.Terminal() && !b.ours.stands(): // a late charge was taken back
		s.add(b.difference(p.Name(), FoundMatched))
	default:
		s.add(b.difference(p.Name(), FoundMissingHere))
	}
	return nil
}

// difference describes a finding about what is no transaction of ours.
func (b booking) difference(provider string, f Finding) Difference {
	return Difference{
		Provider: provider, AccountID: plain(b.Order.AccountID), Reference: plain(b.Order.Reference), Finding: f,
		ProviderStatus: string(providers.Approved), ProviderAmount: fitting(b.Amount), Currency: plain(b.Currency),
	}
}

// plain makes a provider's text fit to be kept.
func plain(text string) string {
	return storable(providers.Result{ProviderReference: text}).ProviderReference
}

// firstID is the smallest id that is made at that time, by the clock that makes it.
func firstID(at time.Time) uuid.UUID {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(max(at.UnixMilli(), 0))<<16)
	return id
}

// Counts are how many references came to each finding.
type Counts struct {
	Matched       int `json:"matched"`
	MissingHere   int `json:"missing_here"`
	MissingThere  int `json:"missing_there"`
	AmountDiffers int `json:"amount_differs"`
	Open          int `json:"open"`
}

// Differences are all that did not match, but for what is not decided yet.
func (c Counts) Differences() int { return c.MissingHere + c.MissingThere + c.AmountDiffers }

// Plus adds two counts up.
func (c Counts) Plus(o Counts) Counts {
	return Counts{c.Matched + o.Matched, c.MissingHere + o.MissingHere, c.MissingThere + o.MissingThere, c.AmountDiffers + o.AmountDiffers, c.Open + o.Open}
}

// Reconciliation is one step of a comparison, as an operator is told.
type Reconciliation struct {
	Provider string `json:"provider"`
	From     string `json:"from"`
	To       string `json:"to"`
	Counts   Counts `json:"counts"`
	// Differences are the first hundred; all of them are kept.
	Differences []Difference `json:"differences"`
	// Next asks for the next step; nil after the last one.
	Next *string `json:"next"`
}

// stretch is what an operator wants compared, and how far it is. As text it is the
// cursor from one step to the next, so that each is about the same.
type stretch struct {
	Provider string    `json:"p"`
	Since    time.Time `json:"s"`
	At       time.Time `json:"a"`
	Until    time.Time `json:"u"`
	Only     bool      `json:"o,omitempty"` // this provider and no other
}

func (s stretch) cursor() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a text and times of this millennium
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

var errCursor = apierr.New(apierr.InvalidParameters, "$.after must be the next of the step before")

// stretchOf reads a cursor.
func stretchOf(cursor string) (s stretch, err error) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil || s.Since.Year() < 2000 || s.At.Before(s.Since) || !s.At.Before(s.Until) {
		return s, errCursor
	}
	return s, nil
}

// wish is a request to compare: a stretch of time at one provider, or at all of them; or
// the next step of one.
type wish struct {
	Since, Until time.Time     // Until zero: as late as can be
	Ago          time.Duration // instead of Since
	Provider     string        // "": all
	After        string        // and then nothing else
}

// Step compares the next window of what an operator asks for. It neither moves the loop's
// own progress, nor depends on it.
func (r *Reconciler) Step(ctx context.Context, w wish) (Reconciliation, error) {
	s, p, err := r.stretch(ctx, w)
	if err != nil {
		return Reconciliation{}, err
	}
	done, err := r.compare(ctx, p, span{s.At, s.Until})
	if errors.Is(err, providers.ErrList) && ctx.Err() == nil {
		r.service.log.WarnContext(ctx, "a provider does not show its books", "provider", p.Name(), "error", err.Error())
		return Reconciliation{}, apierr.New(apierr.ProviderUnavailable, "the provider did not show its books in time; try again").Retry(retryParked)
	}
	if err != nil {
		return Reconciliation{}, err
	}
	told := Reconciliation{
		Provider: p.Name(), From: httpapi.Timestamp(done.from), To: httpapi.Timestamp(done.to),
		Counts: Counts{done.counts[FoundMatched], done.counts[FoundMissingHere], done.counts[FoundMissingThere],
			done.counts[FoundAmountDiffers], done.counts[FoundOpen]},
		Differences: append([]Difference{}, done.differences[:min(len(done.differences), maxShown)]...),
	}
	if next, ok := r.after(s, done.to); ok {
		cursor := next.cursor()
		told.Next = &cursor
	}
	return told, nil
}

// after is the next step of a stretch: the next window, or the next provider.
func (r *Reconciler) after(s stretch, to time.Time) (stretch, bool) {
	if to.Before(s.Until) {
		s.At = to
		return s, true
	}
	for _, p := range r.providers() {
		if !s.Only && cmp.Less(s.Provider, p.Name()) {
			s.Provider, s.At = p.Name(), s.Since
			return s, true
		}
	}
	return s, false
}

// stretch is what a wish comes to, and the provider whose turn it is.
func (r *Reconciler) stretch(ctx context.Context, w wish) (s stretch, p providers.Provider, err error) {
	if w.After != "" {
		if s, err = stretchOf(w.After); err != nil {
			return s, nil, err
		}
	} else {
		s = stretch{Provider: w.Provider, Since: w.Since, Only: w.Provider != ""}
		if s.Provider == "" {
			if all := r.providers(); len(all) > 0 {
				s.Provider = all[0].Name()
			}
		}
	}
	p, ok := r.service.providers.Named(s.Provider)
	if !ok {
		return s, nil, apierr.New(apierr.InvalidParameters, "$.provider must be a provider that is configured")
	}
	if !reconcilable(p) {
		return s, nil, apierr.New(apierr.InvalidState, "the provider neither shows its books nor can be asked about a reference")
	}
	now, err := r.service.store.databaseTime(ctx)
	if err != nil {
		return s, nil, err
	}
	latest := now.Add(-r.lag(p)).Truncate(time.Microsecond)
	if w.After != "" {
		if s.Until.After(latest) { // by another's cursor
			s.Until = latest
		}
		if !s.At.Before(s.Until) {
			return s, nil, errCursor
		}
		return s, p, nil
	}
	if w.Ago > 0 {
		s.Since = now.Add(-w.Ago)
	}
	s.Since, s.Until = s.Since.Truncate(time.Microsecond), latest
	if !w.Until.IsZero() && w.Until.Before(latest) {
		s.Until = w.Until.Truncate(time.Microsecond)
	}
	s.At = s.Since
	if !s.Since.Before(s.Until) {
		return s, nil, apierr.New(apierr.InvalidParameters, fmt.Sprintf(
			"$.since must be before $.until, and at least %s ago: what is younger may still be on its way", r.lag(p).Round(time.Second)))
	}
	return s, p, nil
}
