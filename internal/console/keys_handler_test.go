package console

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/operators"
)

// key is one as the service has it.
func (w *consoleUnderTest) key(id uuid.UUID) merchants.Key {
	w.t.Helper()
	k, err := w.merchants.Key(w.t.Context(), w.account, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func TestKeyIsMadeAndItsSecretShownOnce(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	path := merchantPath(w.account)
	a := b.post(path+"/keys", sent("mode", "live", "networks", "203.0.113.7\r\n2001:db8::/32\r\n"))
	secret := a.find(t, liveSecret)
	w.wantSecret(a, secret)
	made := w.keysOf(w.account)[0]
	if made.Mode != merchants.Live || len(made.Networks) != 2 {
		t.Errorf("made %+v", made)
	}
	if _, err := w.merchants.Authenticate(made.PublicAPIKey, secret, netip.MustParseAddr("203.0.113.7")); err != nil {
		t.Errorf("the pair that was shown is not taken: %v", err)
	}
	w.wantEntry(b, "key.created", "key/"+made.ID.String())
	b.get(path).want(t, http.StatusOK, "203.0.113.7/32, 2001:db8::/32", `<span class="mode live">live</span>`).lacks(t, secret)
	b.get(keyPath(w.account, made.ID)).want(t, http.StatusOK, "203.0.113.7/32, 2001:db8::/32", made.PublicAPIKey).lacks(t, secret)

	n := w.changed()
	b.post(path+"/keys", sent("mode", "both")).want(t, http.StatusBadRequest, "the mode must be test or live")
	b.post(path+"/keys", sent("mode", "live", "networks", "203.0.113.0/24\nshop.example")).
		want(t, http.StatusBadRequest, "entry 2 of the networks must be a network", "shop.example", "<option selected>live</option>")
	b.post(path+"/keys", sent("mode", "live", "networks", strings.Repeat("203.0.113.7\n", 51))).want(t, http.StatusBadRequest, "the networks must be a list of 1 to 50 networks")
	if w.changed() != n {
		t.Error("a key was made that could not be")
	}
}

func TestRotatedKeyIsCountedDown(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	path := keyPath(w.account, w.keys.ID)
	b.get(path).want(t, http.StatusOK, `action="`+path+`/rotate"`, "In 24 hours, at ", "At once").lacks(t, "hx-get")

	a := b.post(path+"/rotate", sent("overlap_seconds", "86400"))
	secret := a.find(t, testSecret)
	w.wantSecret(a, secret)
	old, successor := w.key(w.keys.ID), w.keysOf(w.account)[0]
	ends := formatTime(*old.ExpiresAt)
	a.want(t, http.StatusCreated, "The old key is good until "+ends)
	for public, secret := range map[string]string{w.keys.PublicAPIKey: w.keys.PrivateSecretKey, successor.PublicAPIKey: secret} {
		if _, err := w.merchants.Authenticate(public, secret, anywhere); err != nil {
			t.Errorf("one of the two is not taken: %v", err)
		}
	}
	w.wantEntry(b, "key.rotated", "key/"+w.keys.ID.String())
	w.wantEntry(b, "key.created", "key/"+successor.ID.String())

	for _, page := range []string{path, merchantPath(w.account)} {
		b.get(page).want(t, http.StatusOK, "expiring", "ends in 23 h 59 min", ends, `hx-trigger="every 30s"`).lacks(t, path+"/rotate")
	}
	for page, text := range map[string]string{path + "/state": `<dl class="facts"`, merchantPath(w.account) + "/keys": `<div class="keys"`} {
		part := b.get(page, "HX-Request", "true").want(t, http.StatusOK, "ends in 23 h 59 min").lacks(t, "<html", "<form")
		if !strings.HasPrefix(strings.TrimSpace(part.body), text) {
			t.Errorf("htmx is not given the part to exchange: %s", part)
		}
	}
	b.get(merchantPath(w.account)+"/keys").leads(t, merchantPath(w.account)+"#keys")
	b.get(path+"/state").leads(t, path)

	b.post(path+"/rotate", sent("overlap_seconds", "0")).want(t, http.StatusConflict, "the key has been rotated already")
	for _, seconds := range []string{"", "-1", "1.5", "x", "2592001", "9223372036854775807"} {
		b.post(keyPath(w.account, successor.ID)+"/rotate", sent("overlap_seconds", seconds)).want(t, http.StatusBadRequest, "the overlap must be a whole number from 0 to 2592000")
	}
	b.post(keyPath(w.account, successor.ID)+"/rotate", sent("overlap_seconds", "0")).want(t, http.StatusCreated, "The old key has ended.")
	if k := w.key(successor.ID); k.Status != merchants.Revoked {
		t.Errorf("the key is %s", k.Status)
	}
}

func TestKeyIsRestrictedAndRevoked(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	path := keyPath(w.account, w.keys.ID)
	b.post(path+"/restrict", sent("networks", "203.0.113.0/24\r\n203.0.113.0/24")).leads(t, path+"?done=key-restricted")
	if k := w.key(w.keys.ID); len(k.Networks) != 1 {
		t.Errorf("its networks are %v", k.Networks)
	}
	w.wantEntry(b, "key.restricted", "key/"+w.keys.ID.String())
	b.get(path+"?done=key-restricted").want(t, http.StatusOK, "The key&#39;s networks were changed.", ">203.0.113.0/24</textarea>")
	b.post(path+"/restrict", sent("networks", "203.0.113.0/33")).want(t, http.StatusBadRequest, "entry 1 of the networks", ">203.0.113.0/33</textarea>")
	b.post(path+"/restrict", sent("networks", " \r\n")).leads(t, path+"?done=key-restricted")
	if k := w.key(w.keys.ID); k.Networks != nil {
		t.Errorf("its networks are %v", k.Networks)
	}

	b.post(path+"/revoke", sent()).leads(t, path+"?done=key-revoked")
	if k := w.key(w.keys.ID); k.Status != merchants.Revoked {
		t.Errorf("it is %s", k.Status)
	}
	w.wantEntry(b, "key.revoked", "key/"+w.keys.ID.String())
	b.get(path).want(t, http.StatusOK, "revoked").lacks(t, `action="/merchants`)
	b.post(path+"/restrict", sent("networks", "203.0.113.0/24")).want(t, http.StatusConflict, "the key is revoked: make another key")
	b.post(path+"/rotate", sent("overlap_seconds", "0")).want(t, http.StatusConflict, "the key is revoked: make another key")
}

func TestKeyIsFoundAtItsOwnMerchantOnly(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	other, _ := w.newMerchant("Other")
	path := keyPath(other, w.keys.ID)
	b.get(path).want(t, http.StatusNotFound)
	b.get(path+"/state", "HX-Request", "true").want(t, http.StatusNotFound)
	for action, form := range map[string][]string{"rotate": {"overlap_seconds", "0"}, "revoke": nil, "restrict": {"networks", ""}} {
		b.post(path+"/"+action, sent(form...)).want(t, http.StatusNotFound)
	}
	if k := w.key(w.keys.ID); k.Status != merchants.Active {
		t.Errorf("it is %s", k.Status)
	}
}

// A key whose list cannot be read is taken from nowhere, and must not be shown as one that
// is taken from anywhere.
func TestListOfNetworksIsShownAsItCounts(t *testing.T) {
	t.Parallel()
	for want, networks := range map[string][]netip.Prefix{
		"anywhere":                      nil,
		"nowhere":                       {},
		"203.0.113.0/24":                {netip.MustParsePrefix("203.0.113.0/24")},
		"203.0.113.0/24, 2001:db8::/32": {netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")},
	} {
		if got := keyLineOf(merchants.Key{Networks: networks}, time.Time{}).From(); got != want {
			t.Errorf("got %q, not %q", got, want)
		}
	}
}
