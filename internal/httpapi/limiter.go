package httpapi

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/oncepay/oncepay/internal/apierr"
)

// maxBuckets is how many buckets a generation of a Limiter has, and there are two:
// together a few megabytes, whoever calls.
const maxBuckets = 8192

// Limiter allows each key, such as an account or an address, so many events a
// minute: at once, or spread over it. It counts for its own process only. A nil
// Limiter allows everything.
//
// Its memory is bounded. A key that is left alone for a minute has got everything
// back, so it is forgotten: buckets live in two generations, the older of which is
// dropped when the younger has lasted a minute, or is full. In the second case
// somebody may be forgotten who had spent something: more than 8,192 keys in one
// minute get more than they should, and nobody gets less.
type Limiter struct {
	perMinute int
	now       func() time.Time

	mu         sync.Mutex
	young, old map[string]*rate.Limiter
	born       time.Time // of the younger generation
}

// NewLimiter allows each key that many events a minute, which must be positive.
func NewLimiter(perMinute int) *Limiter {
	return &Limiter{perMinute: perMinute, now: time.Now, young: map[string]*rate.Limiter{}}
}

// Take counts an event of a key. It returns 0, or, if that was one too many, how
// long it will be until the next is allowed; then it has not been counted.
func (l *Limiter) Take(key string) (wait time.Duration) {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b := l.bucket(key, now)
	r := b.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// bucket finds or makes the bucket of a key, in the younger generation.
func (l *Limiter) bucket(key string, now time.Time) *rate.Limiter {
	if now.Sub(l.born) >= time.Minute {
		l.age(now)
	}
	b, known := l.young[key]
	if known {
		return b
	}
	if len(l.young) >= maxBuckets {
		l.age(now)
	}
	if b, known = l.old[key]; !known {
		b = rate.NewLimiter(rate.Limit(float64(l.perMinute)/time.Minute.Seconds()), l.perMinute)
	}
	l.young[key] = b
	return b
}

// age makes the younger generation the older one, and forgets what was older.
func (l *Limiter) age(now time.Time) {
	l.old, l.young, l.born = l.young, map[string]*rate.Limiter{}, now
}

// TooMany is the answer to who must wait.
func TooMany(message string, wait time.Duration) *apierr.Error {
	return apierr.New(apierr.RateLimited, message).Retry(max(1, int(math.Ceil(wait.Seconds()))))
}
