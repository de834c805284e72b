package transactions

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// What the cases of the policies have in common: a merchant whose program knows the rules
// of its policy, as they are published, and nothing else of us. What it is told it holds
// against those rules, and after each case the referee counts what the provider booked.

// The policies other than the default one: they keep errors.
var keepers = []string{"novu", "fyno", "ietf"}

// manner is what a program knows of its policy. It is written down here once more, so
// that nothing is compared with itself.
type manner struct {
	header, replayed string
	echo, quoted     bool
	live             bool // its keys count in live mode only
	retryAfter       bool // with a 409 for a request in flight
	minds            bool // another body is 422
	errors           apierr.Style
}

var manners = map[string]manner{
	"yuno": {header: "X-Idempotency-Key", replayed: "Idempotent-Replayed", retryAfter: true, errors: apierr.Envelope},
	"novu": {header: "Idempotency-Key", replayed: "Idempotency-Replay", echo: true, retryAfter: true, minds: true, errors: apierr.Nest},
	"fyno": {header: "Idempotency-Key", live: true, errors: apierr.Envelope},
	"ietf": {header: "Idempotency-Key", replayed: "Idempotent-Replayed", quoted: true, minds: true, errors: apierr.Problem},
}

// client is one merchant's program.
type client struct {
	manner
	w       *world
	policy  string
	account uuid.UUID
	pair    merchants.KeyPair
}

// newClient is a client in a world of its own, whose instances stay alive.
func newClient(t *testing.T, policy string) *client {
	t.Helper()
	w := newWorld(t)
	w.steady()
	return w.client(policy)
}

// client is a merchant with that policy, in the mode in which its keys count.
func (w *world) client(policy string) *client {
	w.t.Helper()
	m, pair, err := w.auth.Create(w.t.Context(), "A merchant with the policy "+policy, policy)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &client{manner: manners[policy], w: w, policy: policy, account: m.AccountID, pair: pair}
	if c.live {
		c.pair = c.newKey(merchants.Live)
	}
	return c
}

// newKey is another pair of keys of the client's merchant.
func (c *client) newKey(mode string) merchants.KeyPair {
	c.w.t.Helper()
	pair, err := c.w.auth.CreateKey(c.w.t.Context(), c.account, mode)
	if err != nil {
		c.w.t.Fatal(err)
	}
	return pair
}

// becomes changes the merchant's policy. The program goes on as it was; a new one, which
// knows the new rules, is returned.
func (c *client) becomes(policy string) *client {
	c.w.t.Helper()
	if _, err := c.w.auth.Update(c.w.t.Context(), c.account, merchants.Update{IdempotencyPolicy: &policy}); err != nil {
		c.w.t.Fatal(err)
	}
	after := *c
	after.manner, after.policy = manners[policy], policy
	if after.live {
		after.pair = after.newKey(merchants.Live)
	}
	return &after
}

// judge is the referee. It comes last, deferred, and fails the test unless all has ended
// and agrees with the provider's books.
func (c *client) judge() {
	c.w.t.Helper()
	if c.w.t.Failed() {
		return
	}
	c.w.wantBalanced()
	c.w.wantInvariants()
}

// written is how the client writes a nonce.
func (m manner) written(nonce string) string {
	if m.quoted {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(nonce) + `"`
	}
	return nonce
}

// body is a payment of this merchant's; see world.body.
func (c *client) body(order string, changes map[string]any) []byte {
	c.w.t.Helper()
	all := map[string]any{"account_id": c.account.String()}
	for name, v := range changes {
		all[name] = v
	}
	return c.w.body(order, all)
}

// call sends a request with the client's credentials, and no nonce but what is among the
// headers.
func (c *client) call(method, path string, body []byte, headers ...string) response {
	c.w.t.Helper()
	return c.w.call(method, c.w.public.URL+path, body, append(keys(c.pair), headers...)...)
}

// get is a GET with the client's credentials.
func (c *client) get(path string) response {
	c.w.t.Helper()
	return c.call(http.MethodGet, path, nil)
}

// pay creates a payment with such headers.
func (c *client) pay(body []byte, headers ...string) response {
	c.w.t.Helper()
	return c.call(http.MethodPost, "/v1/payments", body, headers...)
}

// create creates a payment under a nonce, as the client writes it.
func (c *client) create(nonce string, body []byte) response {
	c.w.t.Helper()
	return c.createOn(c.w.instance, nonce, body)
}

func (c *client) createOn(i instance, nonce string, body []byte) response {
	c.w.t.Helper()
	r, err := c.tryOn(c.w.t.Context(), i, "/v1/payments", nonce, body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.wantEcho(r, nonce)
	return r
}

// tryOn is a POST that may be made from any goroutine.
func (c *client) tryOn(ctx context.Context, i instance, path, nonce string, body []byte) (response, error) {
	return request(ctx, http.MethodPost, i.public.URL+path, body, append(keys(c.pair), c.header, c.written(nonce))...)
}

// background is one create whose answer the test collects later.
func (c *client) background(nonce string, body []byte) <-chan response {
	return atOnce(1, func(int) (response, error) {
		return c.tryOn(c.w.t.Context(), c.w.instance, "/v1/payments", nonce, body)
	})
}

// act asks for a deed under a nonce.
func (c *client) act(nonce string, d deed) response {
	c.w.t.Helper()
	body, err := json.Marshal(d.body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	r, err := c.tryOn(c.w.t.Context(), c.w.instance, d.path(), nonce, body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.wantEcho(r, nonce)
	return r
}

// saleIn is what an answer says was paid.
func saleIn(r response) sale { return sale{textAt(r, "id"), textAt(r, "transactions", "id")} }

// sells makes a payment to act on.
func (c *client) sells(nonce, order, amount string) sale {
	c.w.t.Helper()
	r := c.create(nonce, c.body(order, map[string]any{"amount": json.Number(amount)}))
	c.wantNew(r)
	return saleIn(r)
}

// wantEcho fails the test unless the nonce comes back where the policy gives it back, as
// it was sent, and nowhere else.
func (c *client) wantEcho(r response, nonce string) {
	c.w.t.Helper()
	want := ""
	if c.echo {
		want = c.written(nonce)
	}
	if got := r.header.Get("Idempotency-Key"); got != want {
		c.w.t.Fatalf("Idempotency-Key is %q in the answer %d, want %q", got, r.status, want)
	}
	if got := r.header.Get("X-Idempotency-Key"); got != "" {
		c.w.t.Fatalf("X-Idempotency-Key is %q in the answer %d", got, r.status)
	}
}

// wantMarked fails the test unless an answer is marked as a replay in this manner and in
// no other one.
func (c *client) wantMarked(r response, by manner, replayed bool) {
	c.w.t.Helper()
	for _, name := range []string{"Idempotent-Replayed", "Idempotency-Replay"} {
		want := ""
		if replayed && name == by.replayed {
			want = "true"
		}
		if got := r.header.Get(name); got != want {
			c.w.t.Fatalf("%s is %q in the answer %d, want %q", name, got, r.status, want)
		}
	}
	if got := r.header.Get(headerMismatch); got != "" {
		c.w.t.Fatalf("%s is %q, of which the policy knows nothing", headerMismatch, got)
	}
}

// wantNew fails the test unless r made a payment, and was no replay.
func (c *client) wantNew(r response) {
	c.w.t.Helper()
	c.w.want(r, http.StatusCreated)
	c.wantMarked(r, c.manner, false)
}

// wantReplay fails the test unless again repeats first byte for byte, and is marked as
// this client's policy has it.
func (c *client) wantReplay(first, again response) {
	c.w.t.Helper()
	c.wantReplayIn(c.manner, first, again)
}

// wantReplayIn is wantReplay of a life that began in another manner than the client's.
func (c *client) wantReplayIn(of manner, first, again response) {
	c.w.t.Helper()
	if at := differAt(first.body, again.body); again.status != first.status || at >= 0 {
		c.w.t.Fatalf("the first answer was %s, the replay is %s", first, again)
	}
	for _, name := range []string{"Content-Type", "Content-Length", "Link"} {
		if first.header.Get(name) != again.header.Get(name) {
			c.w.t.Fatalf("%s was %q and is %q in the replay", name, first.header.Get(name), again.header.Get(name))
		}
	}
	for _, r := range []response{first, again} {
		if wait := r.header.Get("Retry-After"); wait != "" {
			c.w.t.Fatalf("Retry-After is %q with an answer that will not change", wait)
		}
	}
	c.wantMarked(again, of, true)
}

// wantError fails the test unless r is exactly that error, in the client's style.
func (c *client) wantError(r response, status int, code apierr.Code, messages ...string) {
	c.w.t.Helper()
	c.wantStyled(c.errors, r, status, code, "", messages...)
}

// wantKeyError is wantError of an error about the nonce itself, of which a problem has the
// draft's title and leads to the published specification.
func (c *client) wantKeyError(r response, status int, code apierr.Code, title string, messages ...string) {
	c.w.t.Helper()
	c.wantStyled(c.errors, r, status, code, title, messages...)
}

func (c *client) wantStyled(style apierr.Style, r response, status int, code apierr.Code, title string, messages ...string) {
	c.w.t.Helper()
	c.wantMarked(r, c.manner, false)
	if style == apierr.Envelope {
		c.w.wantError(r, status, string(code), messages...)
		return
	}
	var want map[string]any
	contentType, link := "application/json", ""
	switch style {
	case apierr.Nest:
		want = map[string]any{"message": any(messages[0]), "error": http.StatusText(status), "statusCode": float64(status)}
		if len(messages) > 1 {
			want["message"] = messages
		}
	case apierr.Problem:
		kind := "/docs/idempotency"
		if title == "" {
			words := strings.ToLower(strings.ReplaceAll(string(code), "_", " "))
			kind, title = "/docs/errors/"+string(code), strings.ToUpper(words[:1])+words[1:]
		}
		want = map[string]any{
			"type": kind, "title": title, "status": float64(status), "detail": strings.Join(messages, "; "), "code": string(code),
			"request_id": r.header.Get(httpapi.HeaderRequestID),
		}
		contentType, link = "application/problem+json", `</docs/idempotency>; rel="describedby"; type="text/html"`
	case apierr.Envelope:
	}
	if r.status != status || !sameJSON(r.body, want) {
		c.w.t.Fatalf("got %s, want %d %v", r, status, want)
	}
	if got := r.header.Get("Content-Type"); got != contentType {
		c.w.t.Fatalf("an error of content type %q, want %q", got, contentType)
	}
	if got := r.header.Get("Link"); got != link {
		c.w.t.Fatalf("Link is %q, want %q", got, link)
	}
}

// sameJSON says whether a body is that object, with all its members and no others.
func sameJSON(body []byte, want map[string]any) bool {
	var got any
	expected, err := json.Marshal(want)
	if err != nil || json.Unmarshal(body, &got) != nil {
		return false
	}
	told, err := json.Marshal(got) // both have their names in order
	return err == nil && bytes.Equal(told, expected)
}

// wantInFlight fails the test unless r tells a duplicate that the first request is still
// at work, and when to come back, where the policy says so.
func (c *client) wantInFlight(r response) {
	c.w.t.Helper()
	c.wantKeyError(r, http.StatusConflict, apierr.RequestInProcess, "A request is outstanding for this Idempotency-Key", inProcessMessage)
	want := ""
	if c.retryAfter {
		want = "1"
	}
	if got := r.header.Get("Retry-After"); got != want {
		c.w.t.Fatalf("Retry-After is %q, want %q", got, want)
	}
}

// wantReused fails the test unless r refuses a nonce that was used for something else.
func (c *client) wantReused(r response, how string) {
	c.w.t.Helper()
	c.wantKeyError(r, http.StatusUnprocessableEntity, apierr.IdempotencyKeyReused, "Idempotency-Key is already used",
		c.header+" was used "+how+"; use a new key")
	if got := r.header.Get("Retry-After"); got != "" {
		c.w.t.Fatalf("Retry-After is %q with an answer that will not change", got)
	}
}

// life is the one life that a nonce has, as the merchant is told it.
func (c *client) life(nonce string) Life {
	c.w.t.Helper()
	lives := c.lives(nonce)
	if len(lives) != 1 {
		c.w.t.Fatalf("the nonce has %d lives, want 1", len(lives))
	}
	return lives[0]
}

func (c *client) lives(nonce string) []Life {
	c.w.t.Helper()
	r := c.w.call(http.MethodGet, c.w.public.URL+"/v1/idempotency-keys?nonce="+url.QueryEscape(nonce), nil, keys(c.pair)...)
	c.w.want(r, http.StatusOK)
	var found Lives
	if err := json.Unmarshal(r.body, &found); err != nil {
		c.w.t.Fatal(err)
	}
	if found.Nonce != nonce {
		c.w.t.Fatalf("the look-up tells of another nonce, %q", found.Nonce)
	}
	return found.Lives
}

// settle lets recovery end what a nonce stands for, when everything that was sent has
// arrived or never will.
func (w *world) settle(nonce string) {
	w.t.Helper()
	w.shift(nonce, untilProof)
	w.dueAgain(nonce)
	if n := w.recoverOn(w.instance); n != 1 {
		w.t.Fatalf("recovery took %d transactions, want 1", n)
	}
}

// everywhere runs a case under each of those policies.
func everywhere(t *testing.T, policies []string, scene func(t *testing.T, c *client)) {
	t.Helper()
	for _, policy := range slices.Sorted(slices.Values(policies)) {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, policy)
			defer c.judge()
			scene(t, c)
		})
	}
}

// chargeThenError books a charge, and answers with an error of the provider's own.
func chargeThenError(ctx context.Context, p *psp, c providers.Charge) providers.Result {
	p.book(c)
	return serverError(ctx, p, c)
}

// backwards is the same body with the members of every object in the opposite order.
func backwards(t *testing.T, body []byte) []byte {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return appendBackwards(nil, v)
}

// appendBackwards writes v as encoding/json does, which sorts the names, the other way
// round.
func appendBackwards(to []byte, v any) []byte {
	object, is := v.(map[string]any)
	if !is {
		plain, _ := json.Marshal(v)
		return append(to, plain...)
	}
	names := slices.Sorted(maps.Keys(object))
	slices.Reverse(names)
	open := byte('{')
	for _, name := range names {
		quoted, _ := json.Marshal(name)
		to = append(append(append(to, open), quoted...), ':')
		to, open = appendBackwards(to, object[name]), ','
	}
	if open == '{' {
		to = append(to, open)
	}
	return append(to, '}')
}
