package oncepay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestWhatFollowsFromEachEndOfAnAttempt(t *testing.T) {
	t.Parallel()
	refused := func(status int, code Code) attempt {
		return attempt{err: &Error{Status: status, Code: code}, refused: true, status: status, code: code}
	}
	kept := refused(504, CodeRequestTimeout)
	kept.kept = true
	keptRefusal := refused(400, CodeInvalidRequest)
	keptRefusal.kept = true
	untrusted := &tls.CertificateVerificationError{Err: errors.New("signed by nobody")}
	for _, c := range []struct {
		name        string
		a           attempt
		retry, open bool
		reason      string // a part of it
	}{
		{"answered", attempt{status: 201}, false, false, "answered"},
		{"connection broken", attempt{err: io.ErrUnexpectedEOF}, true, true, "connection broke"},
		{"no connection", attempt{err: io.EOF, unsent: true}, true, false, "nothing was sent"},
		{"time-out", attempt{err: context.DeadlineExceeded}, true, true, "in time"},
		{"cut short", attempt{err: io.ErrUnexpectedEOF, status: 201}, true, true, "cut short"},
		{"untrusted, before anything was sent", attempt{err: untrusted, unsent: true}, false, false, "certificate"},
		{"untrusted, perhaps after something was sent", attempt{err: untrusted}, false, true, "certificate"},
		{"in process", refused(409, CodeRequestInProcess), true, true, "under way"},
		{"conflict of somebody's", refused(409, ""), true, true, "under way"},
		{"conflict that stays", refused(409, CodeInvalidState), false, false, "waiting changes nothing"},
		{"rate limited", refused(429, CodeRateLimited), true, false, "too many"},
		{"rate limited by somebody", refused(429, ""), true, true, "too many"},
		{"slow upload", refused(408, CodeRequestTimeout), true, false, "too slowly"},
		{"slow upload, says somebody", refused(408, ""), true, true, "too slowly"},
		{"fault", refused(500, CodeInternalError), true, true, "could not say"},
		{"provider unclear", refused(502, CodeProviderError), true, true, "could not say"},
		{"away", refused(503, CodeServiceUnavailable), true, true, "could not say"},
		{"provider not reached", refused(503, CodeProviderUnavailable), true, true, "could not say"},
		{"provider time-out", refused(504, CodeRequestTimeout), true, true, "could not say"},
		{"a gateway's own", refused(502, ""), true, true, "could not say"},
		{"kept time-out", kept, false, true, "look it up"},
		{"kept refusal", keptRefusal, false, false, "look it up"},
		{"redirect", refused(307, ""), false, true, "redirect"},
		{"invalid", refused(400, CodeInvalidAmount), false, false, "not valid"},
		{"too large", refused(413, CodeRequestTooLarge), false, false, "not valid"},
		{"other type", refused(415, CodeUnsupportedMediaType), false, false, "not valid"},
		{"wrong keys", refused(401, CodeInvalidCredentials), false, false, "keys"},
		{"wrong address", refused(401, CodeUnknownIPAddress), false, false, "keys"},
		{"wrong token", refused(401, CodeInvalidToken), false, false, "token"},
		{"used token", refused(401, CodeTokenInUse), false, false, "token"},
		{"forbidden", refused(403, CodeAuthorizationRequired), false, false, "may not"},
		{"forbidden by somebody", refused(403, ""), false, true, "in between"},
		{"nothing there", refused(404, CodeNotFound), false, false, "no such thing"},
		{"no such method", refused(405, CodeUnsupportedMethod), false, false, "no such thing"},
		{"nonce of something else", refused(422, CodeIdempotencyKeyReused), false, false, "another operation"},
		{"a code of a later release", refused(400, "NEVER_HEARD_OF"), false, false, "not valid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := c.a
			a.number, a.limit = 1, 3
			d := decide(a)
			if d.Retry != c.retry || d.Open != c.open || !strings.Contains(d.Reason, c.reason) {
				t.Errorf("%+v", d)
			}
			for _, end := range []func(*attempt){
				func(a *attempt) { a.number = 3 },
				func(a *attempt) { a.overdue = true },
				func(a *attempt) { a.ended = context.Canceled },
			} {
				last := a
				end(&last)
				if e := decide(last); e.Retry || e.Open != c.open || e.Reason == "" || c.retry == (e.Reason == d.Reason) {
					t.Errorf("at the end of the call: %+v", e)
				}
			}
		})
	}
}

func TestPausesGrowAndAreNeverShorterThanTheAPIAsks(t *testing.T) {
	t.Parallel()
	r := Retries{FirstPause: 100 * time.Millisecond, LongestPause: time.Second}
	least := func(time.Duration) time.Duration { return 0 }
	most := func(d time.Duration) time.Duration { return d }
	for _, c := range []struct {
		n         int
		asked     time.Duration
		low, high time.Duration
	}{
		{1, 0, 50 * time.Millisecond, 100 * time.Millisecond},
		{2, 0, 100 * time.Millisecond, 200 * time.Millisecond},
		{4, 0, 400 * time.Millisecond, 800 * time.Millisecond},
		{5, 0, 500 * time.Millisecond, time.Second},
		{1 << 30, 0, 500 * time.Millisecond, time.Second},
		{1, 2 * time.Second, 2 * time.Second, 2100 * time.Millisecond},
		{9, 10 * time.Millisecond, 500 * time.Millisecond, time.Second},
	} {
		if low, high := r.pause(c.n, c.asked, least), r.pause(c.n, c.asked, most); low != c.low || high != c.high {
			t.Errorf("after attempt %d, asked for %s: %s to %s, want %s to %s", c.n, c.asked, low, high, c.low, c.high)
		}
	}
	if d := jitter(0); d != 0 {
		t.Errorf("nothing to draw from gives %s", d)
	}
}

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "1": time.Second, " 60 ": time.Minute, "-3": 0, "soon": 0, "1.5": 0, "999999999999": maxRetryAfter,
		"99999999999999999999":                            0, // no number of ours
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
		now.AddDate(50, 0, 0).Format(http.TimeFormat):     maxRetryAfter,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestRetriesKeepTheirDefaultsWhereNothingIsSaid(t *testing.T) {
	t.Parallel()
	r, err := Retries{Attempts: 2, Total: time.Second}.complete()
	want := defaultRetries
	want.Attempts, want.Total = 2, time.Second
	if err != nil || r != want {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := (Retries{Total: -1}).complete(); err == nil {
		t.Error("a negative time is taken")
	}
}
