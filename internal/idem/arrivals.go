package idem

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

// Verdict is what a request with a nonce met: one vocabulary for log, metrics and
// timeline.
type Verdict string

// The closed set of verdicts.
const (
	New       Verdict = "new"        // claimed the nonce
	Replayed  Verdict = "replayed"   // was told the first answer again
	InProcess Verdict = "in_process" // was told to wait
	Mismatch  Verdict = "mismatch"   // the nonce names another operation
	Resumed   Verdict = "resumed"    // took over what was left unresolved
	Rejected  Verdict = "rejected"   // was refused before anything began
)

// Arrival is one request with a nonce.
type Arrival struct {
	AccountID     uuid.UUID
	Mode          string
	Nonce         string
	Verdict       Verdict
	TransactionID uuid.NullUUID
	RequestID     string
	BodyDiffers   bool
	Differs       []string // names of the first level that differ, where known
	At            time.Time

	id uuid.UUID // given by Record
}

const (
	// arrivalsWaiting bounds the memory of a recorder whose database is away. At a
	// few hundred bytes each that is some megabytes.
	arrivalsWaiting = 16_384
	// arrivalsBatch is how many go into one statement.
	arrivalsBatch = 500
)

// Arrivals writes down what requests met, in batches and after the answer, so it
// costs the hot path no commit. It may lose its last second in a crash, and what
// comes while the database is away for long: money never depends on it.
type Arrivals struct {
	store store
	log   *slog.Logger

	mu      sync.Mutex
	waiting []Arrival
	dropped int

	writing sync.Mutex // one batch at a time, so Flush also waits for the loop's
}

// NewArrivals makes a recorder. Somebody must call Flush now and then.
func NewArrivals(db *postgres.DB, log *slog.Logger) *Arrivals {
	return &Arrivals{store: store{db}, log: log}
}

// Record notes an arrival. It never blocks on the database. At is a reading of this
// process's clock; what is written is how long ago that was.
func (r *Arrivals) Record(a Arrival) {
	a.id = uuid.Must(uuid.NewV7())
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) >= arrivalsWaiting {
		r.dropped++
		return
	}
	r.waiting = append(r.waiting, a)
}

// Flush writes what waits and returns how many it wrote.
func (r *Arrivals) Flush(ctx context.Context) (int, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	written := 0
	for {
		batch, dropped := r.next()
		if dropped > 0 {
			r.log.WarnContext(ctx, "arrivals were dropped, because the database did not take them in time", "count", dropped)
		}
		if len(batch) == 0 {
			return written, nil
		}
		if err := r.store.insertArrivals(ctx, batch); err != nil {
			r.putBack(batch)
			return written, err
		}
		written += len(batch)
	}
}

func (r *Arrivals) next() (batch []Arrival, dropped int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.waiting), arrivalsBatch)
	batch = r.waiting[:n:n]
	r.waiting = r.waiting[n:]
	dropped, r.dropped = r.dropped, 0
	return batch, dropped
}

func (r *Arrivals) putBack(batch []Arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(batch, r.waiting...)
}
