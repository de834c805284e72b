package transactions

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/money"
)

const (
	// maxLives is a page of lives. A nonce rarely has more than two.
	maxLives = 20
	// maxTimeline bounds what is told of each source of one life's timeline, the
	// latest first to go: a storm of duplicates must not make the page unreadable.
	maxTimeline = 200
)

// KeyState is what has become of a nonce in one life.
type KeyState string

// The closed set of key states.
const (
	KeyOpen       KeyState = "open"       // somebody is working on it
	KeyUnresolved KeyState = "unresolved" // the outcome is not known yet
	KeyParked     KeyState = "parked"     // a person must look
	KeyAnswered   KeyState = "answered"   // replays its answer
	KeyReleased   KeyState = "released"   // had no effect and was given back
	KeyExpired    KeyState = "expired"    // its time is over
)

// Scope says whose lives may be seen. The zero Scope is everybody's.
type Scope struct {
	AccountID uuid.UUID // Nil: every account
	Mode      string    // "": both
}

// Lives is what a nonce can be asked, the newest life first.
type Lives struct {
	Nonce string `json:"nonce"`
	Lives []Life `json:"lives"`
	// Next is the id to go on after, if there are more.
	Next string `json:"-"`
}

// Life is one life of a nonce.
type Life struct {
	AccountID string   `json:"account_id"`
	Mode      string   `json:"mode"`
	Policy    string   `json:"idempotency_policy"`
	KeyState  KeyState `json:"key_state"`
	// AnswerStatus is what the key answers, while it does.
	AnswerStatus *int            `json:"answer_status"`
	PaymentID    string          `json:"payment_id"`
	Transaction  LifeTransaction `json:"transaction"`
	Charges      int             `json:"charges"`
	Verdict      string          `json:"verdict"`
	Timeline     []Moment        `json:"timeline"`
	Truncated    bool            `json:"timeline_truncated,omitempty"`
}

// LifeTransaction is the transaction behind a life. Attempts is how many holders
// have worked on it.
type LifeTransaction struct {
	ID       string `json:"id"`
	Type     Type   `json:"type"`
	Status   Status `json:"status"`
	Fence    int64  `json:"fence"`
	Attempts int64  `json:"attempts"`
}

// Moment is one line of a timeline. Kind is request, send, inquire, void, reverse,
// callback, takeover, observation, event, parked or resolution; which of the others are
// there depends on it.
type Moment struct {
	At          string   `json:"at"`
	Kind        string   `json:"kind"`
	Verdict     string   `json:"verdict,omitempty"`
	RequestID   string   `json:"request_id,omitempty"`
	BodyDiffers *bool    `json:"body_differs,omitempty"`
	Differs     []string `json:"differs,omitempty"`
	Provider    string   `json:"provider,omitempty"`
	Reference   string   `json:"reference,omitempty"`
	Outcome     string   `json:"outcome,omitempty"`
	DurationMS  *int64   `json:"duration_ms,omitempty"`
	By          string   `json:"by,omitempty"`
	Reason      string   `json:"reason,omitempty"`
	at          time.Time
}

// Lookup tells what became of a nonce, whether or not its record is still there.
// after is the Next of the page before, or Nil.
func (s *Service) Lookup(ctx context.Context, scope Scope, nonce string, after uuid.UUID) (Lives, error) {
	// What this process has just answered must be on the timeline. If it can't be
	// written now, what is written is told.
	_, _ = s.arrivals.Flush(ctx)
	rows, err := s.store.lives(ctx, scope, idem.KeyOf(nonce), orNone(after), maxLives+1)
	if err != nil {
		return Lives{}, err
	}
	found := Lives{Nonce: nonce, Lives: []Life{}}
	if len(rows) > maxLives {
		rows = rows[:maxLives]
		found.Next = rows[maxLives-1].ID.String()
	}
	for i, row := range rows {
		timeline, truncated, err := s.timeline(ctx, row, lifeEnd(rows, i))
		if err != nil {
			return Lives{}, err
		}
		found.Lives = append(found.Lives, row.life(timeline, truncated))
	}
	return found, nil
}

// lifeEnd is when the next life of the same nonce began, for rows in order of
// newest first: what met no transaction belongs to the life of its time.
func lifeEnd(rows []lifeRow, i int) *time.Time {
	for j := i - 1; j >= 0; j-- {
		if rows[j].AccountID == rows[i].AccountID && rows[j].Mode == rows[i].Mode {
			return &rows[j].CreatedAt
		}
	}
	return nil
}

// answers says whether the key replays an answer.
func (r lifeRow) answers() bool { return r.ResponseStatus != nil && !r.Expired }

func (r lifeRow) keyState() KeyState {
	switch {
	case r.Released:
		return KeyReleased
	case r.ParkedAt != nil:
		return KeyParked
	case r.answers():
		return KeyAnswered
	case !r.Status.Terminal() && !r.LeaseOver && !r.HolderGone:
		return KeyOpen
	case !r.Status.Terminal():
		return KeyUnresolved
	}
	return KeyExpired
}

func (r lifeRow) life(timeline []Moment, truncated bool) Life {
	l := Life{
		AccountID: r.AccountID.String(), Mode: r.Mode, Policy: r.Policy, KeyState: r.keyState(), PaymentID: r.PaymentID.String(),
		Transaction: LifeTransaction{ID: r.ID.String(), Type: r.Type, Status: r.Status, Fence: r.Fence, Attempts: r.Holders},
		Timeline:    timeline, Truncated: truncated,
	}
	if r.Status == Succeeded && r.Type.takes() {
		l.Charges = 1
	}
	if r.answers() {
		l.AnswerStatus = r.ResponseStatus
	}
	l.Verdict = r.verdict(timeline, truncated)
	return l
}

// verdict is a sentence or two that anyone understands.
func (r lifeRow) verdict(timeline []Moment, truncated bool) string {
	units, _ := money.MinorUnits(r.Currency)
	sum := r.Amount.StringFixed(int32(units)) + " " + r.Currency //nolint:gosec // 0 to 4
	when := r.UpdatedAt.UTC().Format("2006-01-02 15:04:05") + " UTC"
	did, done := r.Type.verbs()
	var told string
	switch {
	case r.Status == Succeeded:
		told = fmt.Sprintf("%s once: %s on %s.", did, sum, when)
	case r.Status == Expired && r.AuthorizationCode != "": // it had succeeded before
		told = fmt.Sprintf("Authorized once: %s, which nobody captured before it expired on %s.", sum, when)
	case r.Status == Expired:
		told = fmt.Sprintf("Not %s: %s was not decided in time and expired on %s.", done, sum, when)
	case r.Status.Terminal() && r.Released:
		told = fmt.Sprintf("Not %s: the attempt over %s had no effect, and the key was given back on %s.", done, sum, when)
	case r.Status.Terminal():
		told = fmt.Sprintf("Not %s: %s was declined (%s) on %s.", done, sum, cmp.Or(r.ResponseCode, string(r.Status)), when)
	case r.ParkedAt != nil:
		told = fmt.Sprintf("Not known: nobody could tell whether %s was %s, at most once. A person must look.", sum, done)
	case r.Status == Pending && r.RedirectURL != "":
		told = fmt.Sprintf("Not decided: the payer has not confirmed %s yet; it will be %s at most once.", sum, done)
	case r.Status == Pending:
		told = fmt.Sprintf("Not decided: the provider has accepted %s; it will be %s at most once.", sum, done)
	case r.keyState() == KeyOpen:
		told = fmt.Sprintf("In process: %s, %s at most once.", sum, done)
	default:
		told = fmt.Sprintf("Not known yet: %s was %s at most once. It is being asked about.", sum, done)
	}
	if r.answers() && *r.ResponseStatus >= http.StatusBadRequest {
		told += fmt.Sprintf(" Its key keeps answering %d; what counts is said here.", *r.ResponseStatus)
	}
	return told + replays(timeline, truncated)
}

// takes says whether it takes money, or holds it.
func (t Type) takes() bool { return t == Purchase || t == Authorize || t == Capture }

// verbs say what a transaction of that type did, at the head of a sentence, and what is
// not known to be done, in one.
func (t Type) verbs() (did, done string) {
	v := map[Type][2]string{
		Purchase: {"Charged", "charged"}, Authorize: {"Authorized", "charged"}, Verify: {"Verified", "verified"},
		Capture: {"Captured", "captured"}, Cancel: {"Canceled", "canceled"}, Refund: {"Refunded", "refunded"},
	}[t]
	return v[0], v[1]
}

// replays says how often, and how differently, the request was repeated.
func replays(timeline []Moment, truncated bool) string {
	n, different, amount := 0, 0, 0
	for _, m := range timeline {
		if m.Kind != "request" || m.Verdict != string(idem.Replayed) {
			continue
		}
		n++
		if m.BodyDiffers != nil && *m.BodyDiffers {
			different++
			if slices.Contains(m.Differs, "amount") {
				amount++
			}
		}
	}
	if n == 0 {
		return ""
	}
	told := " Replayed " + times(n)
	if truncated { // what is not on the timeline was not counted
		told = " Replayed at least " + times(n)
	}
	switch {
	case amount > 0:
		told += fmt.Sprintf(", %s with a different amount, which was ignored", times(amount))
	case different > 0:
		told += fmt.Sprintf(", %s with a different body, which was ignored", times(different))
	}
	return told + "."
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// timeline is everything that is known of one life, in the order of its times.
func (s *Service) timeline(ctx context.Context, r lifeRow, until *time.Time) ([]Moment, bool, error) {
	rows, err := s.store.moments(ctx, r, until, maxTimeline)
	if err != nil {
		return nil, false, err
	}
	perSource := map[string]int{}
	timeline := make([]Moment, 0, len(rows))
	truncated := false
	for _, m := range rows {
		perSource[m.Source]++
		if perSource[m.Source] > maxTimeline {
			truncated = true
			continue
		}
		timeline = append(timeline, m.moment())
	}
	slices.SortStableFunc(timeline, func(a, b Moment) int { return a.at.Compare(b.at) })
	return timeline, truncated, nil
}

func (m momentRow) moment() Moment {
	out := Moment{
		At: httpapi.Timestamp(m.At), Kind: m.Kind, Verdict: m.Verdict, RequestID: m.RequestID, Provider: m.Provider,
		Reference: m.Reference, Outcome: m.Outcome, DurationMS: m.DurationMS, By: m.By, Reason: m.Reason, at: m.At,
	}
	if m.Kind == "request" {
		out.BodyDiffers = &m.BodyDiffers
		if m.Differs != "" {
			out.Differs = strings.Split(m.Differs, ",")
		}
	}
	return out
}

// lifeRow is a transaction with the state of its nonce.
type lifeRow struct {
	ResponseStatus *int // what the key answers, while there is one
	Expired        bool
	LeaseOver      bool
	HolderGone     bool
	Holders        int64
	Transaction    `gorm:"embedded"`
}
