package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/test/harness"
)

// Four clients, each as a shop of one of the four systems would have it in its backend:
// it knows what that system publishes about its keys, and nothing of Oncepay. They share
// no rule, so that none of them owes its understanding to another; only the address, the
// credentials and the JSON of a payment are the same.

// shop is such a backend.
type shop interface {
	// newKey is a key as its system's clients make them.
	newKey() string
	// pay comes back with the key until it knows what its system promises that it will
	// know. An empty key is none.
	pay(ctx context.Context, key string, body []byte) conclusion
}

// verdict is what a shop makes of what it was told.
type verdict string

const (
	isPaid    verdict = "the payment is there, approved or declined"
	isInvalid verdict = "the request is to be corrected, and the key is free"
	isTaken   verdict = "the key is another request's"
	isFinal   verdict = "the error is the key's answer, and stays it"
	isShutOut verdict = "the credentials are refused"
	isLost    verdict = "nothing that this shop understands"
)

// conclusion is what a shop knows in the end.
type conclusion struct {
	verdict  verdict
	status   int
	body     []byte
	replayed bool   // it was told that this answer had been given before
	why      string // in words, for who reads a failed test
}

func (c conclusion) String() string {
	return fmt.Sprintf("%d, %s: %s %s", c.status, c.verdict, c.why, bytes.TrimSpace(c.body))
}

// outcome is the status of the payment that a shop was told of.
func (c conclusion) outcome() string {
	var p struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	if c.verdict != isPaid || json.Unmarshal(c.body, &p) != nil || len(p.ID) != 36 {
		return "none"
	}
	return p.Status
}

// shortly is when a shop comes back that was not told when to.
const shortly = 100 * time.Millisecond

// wire is how all of them reach the API. It holds every exchange against openapi.yaml,
// and can hang up on the one under way.
type wire struct {
	t    *testing.T
	keys harness.Keys
	http *http.Client

	mu       sync.Mutex
	base     string
	statuses map[int]int
	waits    []string // what Retry-After said with each 409
	cut      context.CancelFunc
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func newWire(t *testing.T, base string, keys harness.Keys) *wire {
	t.Helper()
	w := &wire{t: t, keys: keys, base: base, statuses: map[int]int{}, http: &http.Client{Timeout: harness.Patience, Transport: &http.Transport{}}}
	t.Cleanup(w.http.CloseIdleConnections)
	return w
}

// moveTo says where the API is now.
func (w *wire) moveTo(base string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.base = base
}

// heard is how often a status came back.
func (w *wire) heard(status int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.statuses[status]
}

// told is what Retry-After said with each 409: "" where it was not there.
func (w *wire) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.waits)
}

// hangUp breaks the exchange that was begun last.
func (w *wire) hangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut()
}

func (w *wire) post(ctx context.Context, header http.Header, body []byte) (reply, error) {
	return w.do(ctx, http.MethodPost, "/v1/payments", header, body)
}

// do is one exchange; there is no other attempt behind it.
func (w *wire) do(ctx context.Context, method, path string, header http.Header, body []byte) (reply, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	base := w.base
	w.cut = cancel
	w.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	req.GetBody = nil // or Go's transport repeats what carries an Idempotency-Key by itself
	req.Header = header.Clone()
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("public-api-key", w.keys.PublicAPIKey)
	req.Header.Set("private-secret-key", w.keys.PrivateSecretKey)
	res, err := w.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return reply{}, err
	}
	apitest.Check(w.t, req, body, res, got)
	w.mu.Lock()
	w.statuses[res.StatusCode]++
	if res.StatusCode == http.StatusConflict {
		w.waits = append(w.waits, res.Header.Get("Retry-After"))
	}
	w.mu.Unlock()
	return reply{res.StatusCode, res.Header, got}, nil
}

// rest pauses between two attempts. It is false when the time is over.
func rest(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// seconds is what Retry-After says; 0: it does not say.
func (a reply) seconds() time.Duration {
	n, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || n < 1 {
		return 0
	}
	return time.Duration(n) * time.Second
}

func (a reply) concluded(v verdict, why string) conclusion {
	return conclusion{verdict: v, status: a.status, body: a.body, why: why}
}

var overtime = conclusion{verdict: isLost, why: "the time was over before it knew"}

// yunoShop goes by the contract's reference: a key names one payment. While the outcome
// is unclear it comes back with the same key; a request that was malformed has not used
// its key up.
type yunoShop struct{ *wire }

func (yunoShop) newKey() string { return uuid.NewString() }

func (s yunoShop) pay(ctx context.Context, key string, body []byte) conclusion {
	header := http.Header{}
	if key != "" {
		header.Set("X-Idempotency-Key", key)
	}
	for ctx.Err() == nil {
		a, err := s.post(ctx, header, body)
		if err != nil {
			rest(ctx, shortly)
			continue
		}
		if a.status == http.StatusCreated {
			c := a.concluded(isPaid, "")
			c.replayed = a.header.Get("Idempotent-Replayed") == "true"
			return c
		}
		var e struct {
			Code     string   `json:"code"`
			Messages []string `json:"messages"`
		}
		if json.Unmarshal(a.body, &e) != nil || e.Code == "" || len(e.Messages) == 0 {
			return a.concluded(isLost, "an error without code or messages")
		}
		switch {
		case a.status == http.StatusConflict && e.Code == "REQUEST_IN_PROCESS":
			if a.seconds() == 0 {
				return a.concluded(isLost, "in process, and not when to come back")
			}
			rest(ctx, a.seconds())
		case a.status >= http.StatusInternalServerError:
			rest(ctx, max(a.seconds(), shortly))
		case a.status == http.StatusBadRequest:
			return a.concluded(isInvalid, e.Code)
		case a.status == http.StatusUnauthorized && e.Code == "INVALID_CREDENTIALS":
			return a.concluded(isShutOut, e.Code)
		default:
			return a.concluded(isLost, e.Code)
		}
	}
	return overtime
}

// novuShop goes by what its system says of 409 (wait for Retry-After), of 422 (the key
// belongs to another body), and of replays, errors included, which are marked and carry
// the key.
type novuShop struct{ *wire }

func (novuShop) newKey() string { return "novu " + uuid.NewString() }

func (s novuShop) pay(ctx context.Context, key string, body []byte) conclusion {
	header := http.Header{}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	for ctx.Err() == nil {
		a, err := s.post(ctx, header, body)
		if err != nil {
			rest(ctx, shortly)
			continue
		}
		replayed := a.header.Get("Idempotency-Replay") == "true"
		switch echo := a.header.Get("Idempotency-Key"); {
		case replayed && (key == "" || echo != key):
			return a.concluded(isLost, "a replay of the key "+echo)
		case key == "" && echo != "":
			return a.concluded(isLost, "a key came back, and none was sent")
		}
		if a.status == http.StatusCreated {
			c := a.concluded(isPaid, "")
			c.replayed = replayed
			return c
		}
		why, readable := nestError(a)
		switch {
		case !readable:
			return a.concluded(isLost, "an error without message, error or statusCode")
		case replayed:
			c := a.concluded(isFinal, why)
			c.replayed = true
			return c
		case a.status == http.StatusConflict:
			if a.seconds() == 0 {
				return a.concluded(isLost, "in flight, and not when to come back")
			}
			rest(ctx, a.seconds())
		case a.status >= http.StatusInternalServerError:
			rest(ctx, max(a.seconds(), shortly))
		case a.status == http.StatusUnprocessableEntity:
			return a.concluded(isTaken, why)
		case a.status == http.StatusBadRequest:
			return a.concluded(isInvalid, why)
		case a.status == http.StatusUnauthorized:
			return a.concluded(isShutOut, why)
		default:
			return a.concluded(isLost, why)
		}
	}
	return overtime
}

// nestError reads an error of a server that was built with NestJS.
func nestError(a reply) (why string, ok bool) {
	var e struct {
		Message    any    `json:"message"`
		Error      string `json:"error"`
		StatusCode int    `json:"statusCode"`
	}
	if json.Unmarshal(a.body, &e) != nil || e.Error == "" || e.StatusCode != a.status {
		return "", false
	}
	switch m := e.Message.(type) {
	case string:
		return m, m != ""
	case []any:
		return fmt.Sprint(m...), len(m) > 1
	}
	return "", false
}

// fynoShop lives in live mode, where the first response is the key's, whatever it was and
// whatever is sent later. Nothing marks a replay, so an error that came three times with
// the same bytes is the answer. It may say for how long it wants that.
type fynoShop struct {
	*wire
	keep string // seconds, or nothing
}

// newKey has more than the 256 characters that are recommended.
func (fynoShop) newKey() string {
	return strings.Repeat("order of a customer, ", 13) + "#" + rand.Text() // 300 characters
}

func (s fynoShop) pay(ctx context.Context, key string, body []byte) conclusion {
	const often = 3
	header := http.Header{}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	if s.keep != "" {
		header.Set("X-Idempotency-Expiration", s.keep)
	}
	var last []byte
	for same := 0; ctx.Err() == nil; {
		a, err := s.post(ctx, header, body)
		if err != nil {
			rest(ctx, shortly)
			continue
		}
		if a.status == http.StatusCreated {
			return a.concluded(isPaid, "")
		}
		var e struct {
			Code     string   `json:"code"`
			Messages []string `json:"messages"`
		}
		if json.Unmarshal(a.body, &e) != nil || e.Code == "" || len(e.Messages) == 0 {
			return a.concluded(isLost, "an error without code or messages")
		}
		switch {
		case a.status == http.StatusConflict:
			rest(ctx, shortly)
		case a.status >= http.StatusInternalServerError:
			if same++; last != nil && !bytes.Equal(a.body, last) {
				return a.concluded(isLost, "the first response was another: "+string(last))
			}
			if last = a.body; same == often {
				return a.concluded(isFinal, e.Code)
			}
			rest(ctx, shortly)
		case a.status == http.StatusBadRequest:
			return a.concluded(isInvalid, e.Code)
		case a.status == http.StatusUnauthorized:
			return a.concluded(isShutOut, e.Code)
		default:
			return a.concluded(isLost, e.Code)
		}
	}
	return overtime
}

// ietfShop goes by the draft: keys are strings of a structured field, errors are problem
// details (RFC 9457) that lead to what the server publishes about its keys, 409 means
// "later", 422 "never", and the result of a completed request is given again, be it a
// success or an error.
type ietfShop struct{ *wire }

// newKey has what RFC 9651 wants escaped.
func (ietfShop) newKey() string { return `cart "7", try \1\ ` + uuid.NewString() }

// quotedKey writes a key as sf-string.
func quotedKey(key string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(key) {
		if c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String() + `"`
}

func (s ietfShop) pay(ctx context.Context, key string, body []byte) conclusion {
	header := http.Header{}
	if key != "" {
		header.Set("Idempotency-Key", quotedKey(key))
	}
	for ctx.Err() == nil {
		a, err := s.post(ctx, header, body)
		if err != nil {
			rest(ctx, shortly)
			continue
		}
		replayed := a.header.Get("Idempotent-Replayed") == "true"
		if a.status == http.StatusCreated {
			c := a.concluded(isPaid, "")
			c.replayed = replayed
			return c
		}
		title, wrong := s.problem(ctx, a)
		switch {
		case wrong != "":
			return a.concluded(isLost, wrong)
		case replayed:
			c := a.concluded(isFinal, title)
			c.replayed = true
			return c
		case a.status == http.StatusConflict && title == "A request is outstanding for this Idempotency-Key":
			rest(ctx, shortly)
		case a.status >= http.StatusInternalServerError:
			rest(ctx, shortly)
		case a.status == http.StatusUnprocessableEntity && title == "Idempotency-Key is already used":
			return a.concluded(isTaken, title)
		case a.status == http.StatusBadRequest:
			return a.concluded(isInvalid, title)
		case a.status == http.StatusUnauthorized:
			return a.concluded(isShutOut, title)
		default:
			return a.concluded(isLost, title)
		}
	}
	return overtime
}

// problem reads problem details, and follows them to the published page.
func (s ietfShop) problem(ctx context.Context, a reply) (title, wrong string) {
	var p struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}
	if a.header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(a.body, &p) != nil {
		return "", "an error that is no problem details"
	}
	if p.Type == "" || p.Title == "" || p.Detail == "" || p.Status != a.status {
		return "", "problem details without type, title or detail, or of another status"
	}
	link := regexp.MustCompile(`^<([^>]+)>(?:;[^;]*)*; ?rel="describedby"`).FindStringSubmatch(a.header.Get("Link"))
	if link == nil {
		return "", "no link to the specification: " + a.header.Get("Link")
	}
	where, err := url.Parse(link[1])
	if err != nil || where.IsAbs() {
		return "", "a link to nowhere: " + link[1]
	}
	page, err := s.do(ctx, http.MethodGet, where.String(), http.Header{}, nil)
	switch {
	case err != nil:
		return p.Title, "" // the next problem leads there, too
	case page.status != http.StatusOK || !strings.HasPrefix(page.header.Get("Content-Type"), "text/html"):
		return "", fmt.Sprintf("the specification is not there: %d %s", page.status, page.body)
	case !bytes.Contains(page.body, []byte("Idempotency-Key")):
		return "", "the specification says nothing of Idempotency-Key"
	}
	return p.Title, ""
}
