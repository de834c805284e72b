package transactions

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
)

// Who tries nonces out, found or not, by path or by query, in either mode, gets
// nowhere; and whatever they find is their own.
func TestH58NoncesCannotBeTriedOut(t *testing.T) {
	t.Parallel()
	const rate = 2
	w := newWorld(t)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	_, stranger := w.newMerchant("Second merchant")

	e := httpapi.New(httpapi.Options{Log: w.service.log, Transient: postgres.IsTransient, Describe: postgres.Describe})
	h := NewHandler(w.service, w.auth)
	h.LimitLookups(httpapi.NewLimiter(rate))
	h.Mount(e)
	server := serve(t, e)
	look := func(pair merchants.KeyPair, path string) response {
		return w.call(http.MethodGet, server.URL+"/v1/idempotency-keys"+path, nil, keys(pair)...)
	}

	for i := range rate / 2 {
		w.want(look(stranger, "/nonce-1"), http.StatusNotFound) // somebody else's, and so unknown
		w.want(look(stranger, "?nonce=guess-"+strconv.Itoa(i)), http.StatusNotFound)
	}
	for _, path := range []string{"/nonce-1", "?nonce=nonce-1", "/a,b", "?nonce="} {
		r := look(stranger, path)
		w.wantError(r, http.StatusTooManyRequests, "RATE_LIMITED", "this account has looked up too many nonces within a minute; wait for Retry-After")
		if seconds, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 60/rate {
			t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
		}
	}

	// The account whose nonce it is has an allowance of its own, for both modes together.
	for i := range rate {
		pair, want := w.test, http.StatusOK
		if i%2 == 1 {
			pair, want = w.live, http.StatusNotFound
		}
		w.want(look(pair, "/nonce-1"), want)
	}
	w.want(look(w.test, "/nonce-1"), http.StatusTooManyRequests)
	w.want(look(w.live, "/nonce-1"), http.StatusTooManyRequests)
	// And nothing else is limited with it: a retry tells as much as a look-up.
	w.want(w.call(http.MethodGet, server.URL+"/v1/payments?merchant_order_id=order-1", nil, keys(w.test)...), http.StatusOK)
	r := w.call(http.MethodPost, server.URL+"/v1/payments", w.body("order-1", nil), append(keys(w.test), "X-Idempotency-Key", "nonce-1")...)
	w.want(r, http.StatusCreated)
	w.wantCharges("order-1", 1)
}
