package oncepay

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Retries bound a call. Zero means the default.
type Retries struct {
	// Attempts is how many requests a call sends at most.
	Attempts int
	// AttemptTimeout bounds one request, from its connection to the last byte of its
	// answer. The API answers within a minute.
	AttemptTimeout time.Duration
	// Total bounds the call, pauses included. A call that would have to pause beyond it,
	// or beyond its context's deadline, ends at once instead.
	Total time.Duration
	// FirstPause is the pause before the second attempt, where the API names none. Each
	// further one is twice as long, up to LongestPause. Between half and all of a pause is
	// taken, at random, so that those who failed together don't come back together.
	FirstPause, LongestPause time.Duration
}

// defaultRetries are for a call in a request of the merchant's own customers, who wait
// that long: what is still open then is for a job in the background.
var defaultRetries = Retries{
	Attempts: 8, AttemptTimeout: time.Minute, Total: 2 * time.Minute, FirstPause: 250 * time.Millisecond, LongestPause: 8 * time.Second,
}

// maxRetryAfter bounds a Retry-After: a longer one is as good as "not in this call".
const maxRetryAfter = 24 * time.Hour

func (r Retries) complete() (Retries, error) {
	if r.Attempts < 0 || r.AttemptTimeout < 0 || r.Total < 0 || r.FirstPause < 0 || r.LongestPause < 0 {
		return r, errors.New("oncepay: a bound on retries is negative")
	}
	d := defaultRetries
	if r.Attempts != 0 {
		d.Attempts = r.Attempts
	}
	for _, b := range []struct{ own, given *time.Duration }{
		{&d.AttemptTimeout, &r.AttemptTimeout}, {&d.Total, &r.Total}, {&d.FirstPause, &r.FirstPause}, {&d.LongestPause, &r.LongestPause},
	} {
		if *b.given != 0 {
			*b.own = *b.given
		}
	}
	return d, nil
}

// pause is how long to wait after the n-th attempt, the first being 1. It is never shorter
// than the API has asked for. draw returns something from 0 up to its argument.
func (r Retries) pause(n int, asked time.Duration, draw func(time.Duration) time.Duration) time.Duration {
	back := min(r.FirstPause, r.LongestPause)
	for ; n > 1 && back < r.LongestPause; n-- {
		back = min(2*back, r.LongestPause)
	}
	pause := back/2 + draw(back/2)
	if asked > 0 {
		pause = max(pause, asked+draw(min(r.FirstPause, r.LongestPause)))
	}
	return pause
}

func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// retryAfter reads the header in both of its forms; 0 means that it says nothing.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), int64(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// Decision is what follows from an attempt.
type Decision struct {
	// Retry says whether the same request is sent again.
	Retry bool
	// Reason says why, or why not, in a few words.
	Reason string
	// Open says whether the attempt may have had an effect that nobody was told of.
	Open bool
}

// attempt is what came of one request.
type attempt struct {
	err     error // nil: it was answered, with a 2xx that can be read
	unsent  bool  // with err: it is certain that not a byte of the request was written
	status  int   // of the answer; 0: none had begun
	refused bool  // err is an *Error: something else than a 2xx was answered
	code    Code  // of an *Error; "" if it was not the API that answered
	kept    bool  // the *Error is the nonce's answer, and was told before

	ended   error // why the caller's context is over; nil: it is not
	number  int   // 1 for the first
	limit   int   // how many there may be
	overdue bool  // there is no time left for the pause
}

// decide says whether an attempt is followed by another with the same nonce. That is safe
// at any time, because a nonce moves money once; the question is only whether it helps.
func decide(a attempt) Decision {
	d := judge(a)
	if !d.Retry {
		return d
	}
	why := d.Reason
	switch {
	case a.ended != nil:
		d.Reason = "the caller has ended the call (" + why + ")"
	case a.number >= a.limit:
		d.Reason = "the attempts of this call are used up (" + why + ")"
	case a.overdue:
		d.Reason = "the time of this call is used up, or would be before the next attempt (" + why + ")"
	default:
		return d
	}
	d.Retry = false
	return d
}

// judge says what an attempt means, whatever is left of the call's time.
func judge(a attempt) Decision {
	switch {
	case a.err == nil:
		return Decision{Reason: "it is answered"}
	case !a.refused:
		return judgeSilence(a)
	case a.kept:
		return Decision{Open: a.status >= http.StatusInternalServerError, Reason: "the nonce keeps this error as its answer: look it up"}
	case a.status == http.StatusConflict && (a.code == CodeRequestInProcess || a.code == ""):
		return Decision{Retry: true, Open: true, Reason: "a request with this nonce, or one that changes the same payment, is under way"}
	case a.status == http.StatusTooManyRequests:
		return Decision{Retry: true, Open: a.code == "", Reason: "too many requests: this one was not looked at"}
	case a.status == http.StatusRequestTimeout:
		return Decision{Retry: true, Open: a.code == "", Reason: "the request arrived too slowly: it was not looked at"}
	case a.status >= http.StatusInternalServerError:
		return Decision{Retry: true, Open: true, Reason: "the API, or the provider behind it, could not say what came of it"}
	case a.status < http.StatusBadRequest:
		return Decision{Open: true, Reason: "a redirect: the base URL is not the API's, and keys are not taken elsewhere"}
	case a.code == "":
		return Decision{Open: true, Reason: "something in between has refused it, and not the API"}
	}
	return judgeRefusal(a)
}

// judgeSilence judges an attempt without an answer.
func judgeSilence(a attempt) Decision {
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(a.err, &untrusted):
		return Decision{Open: !a.unsent, Reason: "the server's certificate is not to be trusted"}
	case a.unsent:
		return Decision{Retry: true, Reason: "no connection could be made: nothing was sent"}
	case a.status != 0:
		return Decision{Retry: true, Open: true, Reason: "the answer is cut short, or cannot be read"}
	case errors.Is(a.err, context.DeadlineExceeded):
		return Decision{Retry: true, Open: true, Reason: "no answer came in time"}
	}
	return Decision{Retry: true, Open: true, Reason: "the connection broke before an answer was there"}
}

// judgeRefusal judges what the API has refused. It would be refused again.
func judgeRefusal(a attempt) Decision {
	switch {
	case a.status == http.StatusUnauthorized && (a.code == CodeInvalidToken || a.code == CodeTokenInUse):
		return Decision{Reason: "the card token is not good (any more): make another one"}
	case a.status == http.StatusUnauthorized:
		return Decision{Reason: "the keys, or the address that they are used from, are refused"}
	case a.status == http.StatusForbidden:
		return Decision{Reason: "these keys may not do that"}
	case a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed:
		return Decision{Reason: "there is no such thing at the API"}
	case a.status == http.StatusConflict:
		return Decision{Reason: "it does not go with the state of things, and waiting changes nothing"}
	case a.status == http.StatusUnprocessableEntity:
		return Decision{Reason: "the nonce stands for something else: make another operation"}
	}
	return Decision{Reason: "the request is not valid: correct it"}
}
