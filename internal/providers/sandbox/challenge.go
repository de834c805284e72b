package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed" // the page and its style
	"errors"
	"html/template"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"
)

// maxFormBytes bounds a form. Ours has a code of four digits.
const maxFormBytes = 4 << 10

//go:embed challenge.html
var challengeHTML string

//go:embed challenge.css
var challengeCSS []byte

var challengePage = template.Must(template.New("challenge").Parse(challengeHTML))

// otpCodes is what each one-time code of the published set answers. All but the first
// end the payment: this bank books nothing whose payer it did not recognise.
var otpCodes = map[string]string{
	"1234": succeeded,
	"1111": "AUTHENTICATION_FAILED_THREE_D_SECURE", // N: not authenticated
	"2222": "DECLINED_BY_BANK",                     // R: the bank refuses to authenticate at all
	"3333": "REJECTED_THREE_D_SECURE_REQUIRED",     // U: it could not be tried
	"4444": "AUTHENTICATION_ATTEMPT",               // A: it was tried, and nobody answered
}

// challenge is a page on which a payer answers the bank. Whoever knows the secret
// part of its URL is taken for the payer.
type challenge struct {
	key                                refKey
	order, amount, currency, returnURL string
}

// newSecret is the secret part of a challenge's URL: 130 bits.
func newSecret() string { return rand.Text() }

// challengeView is what the page shows.
type challengeView struct {
	Amount, Order string
	// Status is that of the payment, and what the page depends on.
	Status status
	// Problem says why the page is shown once more, or stands for a page that is
	// nothing else.
	Problem string
	// Return is where the payer goes on; "" for nowhere.
	Return string
}

// Waiting says whether there is still something to be answered.
func (v challengeView) Waiting() bool { return v.Status == statusPending }

// Title is the page's heading.
func (v challengeView) Title() string {
	switch v.Status {
	case statusPending:
		return "Confirm your payment"
	case statusApproved:
		return "Payment confirmed"
	case statusDeclined:
		return "Payment declined"
	case statusVoided:
		return "Payment cancelled"
	case statusUnknown, statusRefused, statusError:
	}
	return "Nothing to confirm"
}

// getChallenge shows a challenge's page.
func (s *Server) getChallenge(w http.ResponseWriter, r *http.Request) {
	v, _, code := s.challenge(r)
	showChallenge(w, code, v)
}

// challenge is the page that the request's secret names, and the status it has.
func (s *Server) challenge(r *http.Request) (v challengeView, c challenge, code int) {
	c, ok := s.ledger.challenge(r.PathValue("secret"))
	if !ok {
		return challengeView{Problem: "This address is not, or not any more, one of a payment."}, c, http.StatusNotFound
	}
	st, err := s.ledger.standing(c.key)
	if err != nil {
		return challengeView{Problem: "The sandbox cannot use its ledger. Nothing was decided."}, c, http.StatusInternalServerError
	}
	v = challengeView{Amount: c.amount + " " + c.currency, Order: c.order, Status: st.status}
	if u, err := url.Parse(c.returnURL); err == nil && isWebURL(c.returnURL) && hostForm.MatchString(u.Host) {
		v.Return = c.returnURL
	}
	return v, c, http.StatusOK
}

func (l *Ledger) challenge(secret string) (challenge, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c, ok := l.challenges[secret]
	return c, ok
}

// postChallenge takes the payer's answer. Of several answers, from two tabs or a
// second click, one decides; the others are told what was decided.
func (s *Server) postChallenge(w http.ResponseWriter, r *http.Request) {
	v, c, code := s.challenge(r)
	form, problem := readForm(w, r)
	switch {
	case code != http.StatusOK:
	case !v.Waiting():
		code = http.StatusConflict
	case problem != 0:
		code, v.Problem = problem, "The answer could not be read. Please enter the code again."
	default:
		answer, known := otpCodes[form.Get("code")]
		if !known {
			code, v.Problem = http.StatusUnprocessableEntity, "This code is not right. Please enter it again."
			break
		}
		// What is begun is finished, whether the browser waits for it or not.
		ended, err := s.conclude(context.WithoutCancel(r.Context()), c.key, answer)
		v, _, code = s.challenge(r)
		switch {
		case err != nil:
			v, code = challengeView{Problem: "The sandbox cannot use its ledger. Nobody knows yet what was decided."}, http.StatusInternalServerError
		case !ended:
			code = http.StatusConflict
		case v.Return != "":
			setChallengeHeader(w.Header(), v)
			http.Redirect(w, r, v.Return, http.StatusSeeOther)
			return
		}
	}
	showChallenge(w, code, v)
}

// readForm reads a form's body. problem is the status to answer with if it is none.
func readForm(w http.ResponseWriter, r *http.Request) (form url.Values, problem int) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFormBytes))
	_ = c.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, http.StatusRequestEntityTooLarge
	case err != nil:
		panic(http.ErrAbortHandler) // half a form is nothing to answer
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return nil, http.StatusUnsupportedMediaType
	}
	form, err = url.ParseQuery(string(body))
	if err != nil {
		return nil, http.StatusBadRequest
	}
	return form, 0
}

func showChallenge(w http.ResponseWriter, code int, v challengeView) {
	var b bytes.Buffer
	if err := challengePage.Execute(&b, v); err != nil {
		panic("sandbox: the challenge's page cannot be made: " + err.Error()) // a programmer's mistake
	}
	setChallengeHeader(w.Header(), v)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

// hostForm is a host that can be written into a policy, which would take a semicolon
// for its own.
var hostForm = regexp.MustCompile(`^[0-9A-Za-z.:\[\]-]+$`)

// setChallengeHeader allows the page its style and its form, and nothing else. Browsers
// hold form-action against the redirect after the form, too, so the shop's origin
// must be in it. Who may frame the page is left open: shops show a challenge within
// their checkout.
func setChallengeHeader(h http.Header, v challengeView) {
	action := "'self'"
	if u, err := url.Parse(v.Return); err == nil && v.Return != "" {
		action += " " + u.Scheme + "://" + u.Host
	}
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action "+action)
	h.Set("Referrer-Policy", "no-referrer") // the URL is a secret
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

func (s *Server) getChallengeStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "max-age=3600")
	_, _ = w.Write(challengeCSS)
}

// challengeURL is where the payer has to go.
func (s *Server) challengeURL(r *http.Request, secret string) string {
	base := s.publicURL
	if base == "" {
		base = "http://" + r.Host
		if r.TLS != nil {
			base = "https://" + r.Host
		}
	}
	return base + "/sandbox/v1/challenges/" + secret
}
