package sandbox

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// browser follows no redirects: where it is sent is what is looked at.
var browser = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// page is what a browser gets.
type page struct {
	code   int
	header http.Header
	body   string
}

func visit(t testing.TB, method, address, media, body string) page {
	t.Helper()
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	res, err := browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return page{res.StatusCode, res.Header, string(b)}
}

const formMedia = "application/x-www-form-urlencoded"

func get(t testing.TB, address string) page {
	t.Helper()
	return visit(t, http.MethodGet, address, "", "")
}

func enter(t testing.TB, address, code string) page {
	t.Helper()
	return visit(t, http.MethodPost, address, formMedia, url.Values{"code": {code}}.Encode())
}

func (p page) want(t testing.TB, code int, texts ...string) {
	t.Helper()
	if p.code != code {
		t.Errorf("status %d, want %d: %s", p.code, code, p.body)
	}
	for _, text := range texts {
		if !strings.Contains(p.body, text) {
			t.Errorf("the page does not say %q: %s", text, p.body)
		}
	}
}

func TestAChallengeIsServedAndDecides(t *testing.T) {
	for code, want := range map[string]struct {
		status status
		code   string
	}{
		"1234": {statusApproved, succeeded},
		"1111": {statusDeclined, "AUTHENTICATION_FAILED_THREE_D_SECURE"},
		"2222": {statusDeclined, "DECLINED_BY_BANK"},
		"3333": {statusDeclined, "REJECTED_THREE_D_SECURE_REQUIRED"},
		"4444": {statusDeclined, "AUTHENTICATION_ATTEMPT"},
	} {
		t.Run(code, func(t *testing.T) {
			dir := t.TempDir()
			r := newReceiver(t)
			s := newSiteWith(t, dir, Options{CallbackSecret: testSecret})
			answered, first := s.charge("description", "sandbox:challenge", "merchant_order_id", "<o&1>", "callback_url", r.url,
				"return_url", "https://shop.example/done?order=1&x=<y>")
			s.want("the charge", answered, first, http.StatusOK, statusPending, codeChallenge)
			if !strings.HasPrefix(first.RedirectURL, s.url+"/sandbox/v1/challenges/") {
				t.Fatalf("%+v", first)
			}
			if re := s.inquire("r1"); fmt.Sprint(re) != fmt.Sprint(first) {
				t.Errorf("the inquiry says %+v", re)
			}
			s.decideAll() // time alone decides nothing

			// It survives a restart, at another address.
			s.end()
			s = newSiteWith(t, dir, Options{CallbackSecret: testSecret, PublicURL: "https://bank.example/base/"})
			re := s.inquire("r1")
			path, ok := strings.CutPrefix(re.RedirectURL, "https://bank.example/base")
			if !ok || !strings.HasSuffix(first.RedirectURL, path) {
				t.Fatalf("%+v", re)
			}
			p := get(t, s.url+path)
			p.want(t, http.StatusOK, "Confirm your payment", "45.67 USD", "&lt;o&amp;1&gt;", `<label for="code">`, `autocomplete="one-time-code"`)
			policy := p.header.Get("Content-Security-Policy")
			if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "form-action 'self' https://shop.example") ||
				strings.Contains(policy, "unsafe") || p.header.Get("Referrer-Policy") != "no-referrer" || p.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v", p.header)
			}
			if strings.Contains(p.body, "<script") || strings.Contains(p.body, "style=") {
				t.Errorf("%s", p.body)
			}
			enter(t, s.url+path, "9999").want(t, http.StatusUnprocessableEntity, `role="alert"`, `aria-invalid="true"`, "Confirm your payment")
			enter(t, s.url+path, "").want(t, http.StatusUnprocessableEntity)
			if s.inquire("r1").Status != statusPending {
				t.Error("a wrong code decided")
			}

			p = enter(t, s.url+path, code)
			if p.code != http.StatusSeeOther || p.header.Get("Location") != "https://shop.example/done?order=1&x=<y>" {
				t.Errorf("%d %v", p.code, p.header)
			}
			if re := s.inquire("r1"); re.Status != want.status || re.ResponseCode != want.code || re.RedirectURL != "" {
				t.Errorf("%+v", re)
			}
			if n := s.bookings("<o&1>"); (n == 1) != (want.status == statusApproved) {
				t.Errorf("%d bookings", n)
			}
			got := r.waitFor(t, 1)[0]
			if c, err := mustNotifier(t, testSecret).ReadCallback(got.header, got.body); err != nil || c.Result.ResponseCode != want.code {
				t.Errorf("%+v %v", c, err)
			}
			title := map[status]string{statusApproved: "Payment confirmed", statusDeclined: "Payment declined"}[want.status]
			get(t, s.url+path).want(t, http.StatusOK, title, "Back to the shop", "https://shop.example/done?order=1&amp;x=%3cy%3e")
			for _, again := range []string{"1234", "1111", "9999"} {
				enter(t, s.url+path, again).want(t, http.StatusConflict, title)
			}
			if len(r.all()) != 1 || s.inquire("r1").ResponseCode != want.code {
				t.Error("it was decided again")
			}
		})
	}
}

func TestAChallengeFromManyTabsIsDecidedOnce(t *testing.T) {
	s := newSite(t, t.TempDir())
	_, re := s.charge("description", "sandbox:challenge")
	var mu sync.Mutex
	codes := map[int]int{}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			p := enter(t, re.RedirectURL, []string{"1234", "1111"}[i%2])
			mu.Lock()
			defer mu.Unlock()
			codes[p.code]++
		})
	}
	wg.Wait()
	if codes[http.StatusOK] != 1 || codes[http.StatusConflict] != 19 {
		t.Errorf("answers %v", codes)
	}
	if st := s.inquire("r1").Status; (s.bookings("o1") == 1) != (st == statusApproved) {
		t.Errorf("%d bookings, %s", s.bookings("o1"), st)
	}
}

func TestAVoidedChallengeSaysSo(t *testing.T) {
	s := newSite(t, "")
	_, re := s.charge("description", "sandbox:challenge", "return_url", "https://shop.example/")
	s.void("r1")
	get(t, re.RedirectURL).want(t, http.StatusOK, "Payment cancelled", "Back to the shop")
	enter(t, re.RedirectURL, "1234").want(t, http.StatusConflict, "Payment cancelled")
	if s.inquire("r1").Status != statusVoided || s.bookings("o1") != 0 {
		t.Error("it was decided all the same")
	}
}

// A return URL that is none of the web's, or would write into the policy, is nowhere
// to go; the page shows the result instead.
func TestOnlyTheWebIsReturnedTo(t *testing.T) {
	s := newSite(t, "")
	for i, back := range []string{"javascript:alert(1)", "shop://done", "/done", "http://", "https://h;script-src *", "https://h;script-src", "%zz", "ö"} {
		id := fmt.Sprint("r", i)
		_, re := s.charge("reference", id, "merchant_order_id", id, "description", "sandbox:challenge", "return_url", back)
		p := get(t, re.RedirectURL)
		if policy := p.header.Get("Content-Security-Policy"); !strings.HasSuffix(policy, "form-action 'self'") {
			t.Errorf("%s: %s", back, policy)
		}
		p = enter(t, re.RedirectURL, "1234")
		p.want(t, http.StatusOK, "Payment confirmed")
		if strings.Contains(p.body, "Back to") || p.header.Get("Location") != "" {
			t.Errorf("%s: %v %s", back, p.header, p.body)
		}
	}
}

func TestChallengesByCard(t *testing.T) {
	s := newSite(t, "")
	card := func(number string) map[string]any {
		c := charge()["card"].(map[string]any)
		c["number"] = number
		return c
	}
	for i, number := range []string{"4000000000003220", "4916994064252017"} {
		id := fmt.Sprint("r", i)
		code, re := s.charge("reference", id, "card", card(number), "description", "DO_NOT_HONOR") // the card beats it
		s.want(number, code, re, http.StatusOK, statusPending, codeChallenge)
		enter(t, re.RedirectURL, "1234").want(t, http.StatusOK, "Payment confirmed")
		if re := s.inquire(id); re.ResponseCode != succeeded {
			t.Errorf("%+v", re)
		}
	}
	code, re := s.charge("reference", "fault", "merchant_order_id", "o2", "card", card("4000000000003220"), "description", "sandbox:slow=1ms")
	s.want("a fault beats the card", code, re, http.StatusOK, statusApproved, succeeded)
	status, b, err := s.do(t.Context(), http.MethodPost, "/sandbox/v1/tokens", map[string]any{"card": card("4000000000003220")})
	if err != nil || status != http.StatusCreated {
		t.Fatal(status, b, err)
	}
	token := strings.Split(b, `"`)[3]
	code, re = s.charge("reference", "token", "card", nil, "token", token)
	s.want("its token", code, re, http.StatusOK, statusPending, codeChallenge)
}

func TestBadFormsAndAddressesAreAnsweredWithAPage(t *testing.T) {
	s := newSite(t, "")
	_, re := s.charge("description", "sandbox:challenge")
	unknown := re.RedirectURL[:len(re.RedirectURL)-1] + "-"
	get(t, unknown).want(t, http.StatusNotFound, "Nothing to confirm")
	enter(t, unknown, "1234").want(t, http.StatusNotFound)
	enter(t, re.RedirectURL, strings.Repeat("1", maxFormBytes)).want(t, http.StatusRequestEntityTooLarge, "Confirm your payment")
	for media, code := range map[string]int{"application/json": http.StatusUnsupportedMediaType, "": http.StatusUnsupportedMediaType} {
		visit(t, http.MethodPost, re.RedirectURL, media, "code=1234").want(t, code)
	}
	visit(t, http.MethodPost, re.RedirectURL, formMedia, "code=%zz").want(t, http.StatusBadRequest)
	if s.inquire("r1").Status != statusPending {
		t.Error("something decided")
	}
	style := get(t, s.url+"/sandbox/v1/challenges/style.css")
	style.want(t, http.StatusOK, "prefers-color-scheme: dark")
	if style.header.Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("%v", style.header)
	}
}
