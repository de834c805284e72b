// Package sandbox is a payment provider that books nothing but its own ledger,
// and misbehaves on demand: it charges and then says nothing, answers 500,
// breaks the connection. A merchant rehearses with it what really hurts, and its
// ledger, which knows nothing of our database, is the referee of our tests.
//
// Its API, for whoever writes an adapter for it in another language. Bodies are
// JSON objects in UTF-8, at most 64 KiB, with the names below and no others.
// account_id and mode (test or live) scope everything but the ledger.
//
//	POST /sandbox/v1/charges
//	     {"reference","account_id","mode","merchant_order_id","amount":"23.57","currency","country","description",
//	      "capture":true,"card":{"number","security_code","holder_name","expiration_month","expiration_year"}}
//	     or "token" in place of "card".
//	  200 {"reference","status":"approved","id","response_code","authorization_code"}: booked, for ever
//	  200 {"reference","status":"declined","id","response_code"}: a final no
//	  400 {"reference","status":"refused","messages"}: invalid, or voided; this request had no effect.
//	      A message names a field and a rule. The reference is left out if it could not be read.
//	  503 {"processed":false}: a guarantee that nothing was processed
//	GET  /sandbox/v1/charges?account_id=&mode=&reference=
//	  200 {"reference","status", …}: approved or declined as above, refused, voided, or
//	      unknown: nothing was decided about this reference up to now.
//	      Never waits for a charge that is still being decided.
//	POST /sandbox/v1/voids  {"reference","account_id","mode","merchant_order_id"}
//	  200 {"reference","status":"voided"}: not booked, and a charge with it is refused from now on;
//	      or approved or declined as above, and nothing changed.
//	POST /sandbox/v1/tokens {"card":{…}}
//	  201 {"token"}
//	GET  /sandbox/v1/ledger?reference=|merchant_order_id=&limit=&after=
//	  200 {"entries":[{"reference","merchant_order_id","account_id","mode","type","amount","currency","status",
//	      "created_at"}],"next"}, newest first, over all accounts. limit is 50, at most 500; next goes into after.
//	GET  /livez
//	  200 as long as the ledger can be written
//
// Anything else (404, 413, 415, 500 …) promises nothing, and a caller that gets it
// must ask.
//
// A reference is an idempotency key for ever: the first charge with it decides,
// later ones get the first one's answer whatever else they say, and those that
// come meanwhile wait. The API has no authentication: it is for a loopback
// address, or a private network.
package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// maxBodyBytes bounds a request. The longest valid charge has 5 KiB.
	maxBodyBytes = 64 << 10
	// bodyTimeout bounds the reading of a request's body.
	bodyTimeout = 10 * time.Second
	// holdTimeout is how long "never answers" holds a connection at most. Twice the
	// longest timeout a caller sensibly has, which the contract puts at 60 s.
	holdTimeout = 2 * time.Minute
	// maxReferenceLength: a reference is one of our transaction ids, 36 characters;
	// other callers may have longer ones.
	maxReferenceLength = 64
	// maxTextLength bounds order id and description, as the contract does.
	maxTextLength = 255

	defaultLimit = 50  // entries on a page
	maxLimit     = 500 // and at most; about 150 KB
)

// Options are the server's knobs. The zero value is for use.
type Options struct {
	// Hold bounds how long "never answers" holds a connection. 0 means 2 minutes.
	Hold time.Duration
}

// Server is the provider over HTTP. It is safe for concurrent use.
type Server struct {
	ledger  *Ledger
	holdFor time.Duration
	mux     *http.ServeMux
	stop    chan struct{}
	once    sync.Once
	// after is time.After; a test decides itself when time has passed.
	after func(time.Duration) <-chan time.Time
}

// NewServer makes the handler of a ledger. The ledger stays the caller's to
// close, after the server.
func NewServer(l *Ledger, o Options) *Server {
	s := &Server{ledger: l, holdFor: o.Hold, mux: http.NewServeMux(), stop: make(chan struct{}), after: time.After}
	if s.holdFor <= 0 {
		s.holdFor = holdTimeout
	}
	s.mux.HandleFunc("POST /sandbox/v1/charges", s.postCharge)
	s.mux.HandleFunc("GET /sandbox/v1/charges", s.getCharge)
	s.mux.HandleFunc("POST /sandbox/v1/voids", s.postVoid)
	s.mux.HandleFunc("POST /sandbox/v1/tokens", s.postToken)
	s.mux.HandleFunc("GET /sandbox/v1/ledger", s.getLedger)
	s.mux.HandleFunc("GET /livez", s.getLivez)
	return s
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// HTTP is an http.Server for s with its timeouts and limits, whose Shutdown
// releases the requests that s holds.
func (s *Server) HTTP(addr string) *http.Server {
	h := &http.Server{
		Addr:              addr,
		Handler:           s,
		ReadHeaderTimeout: bodyTimeout,
		// No ReadTimeout: it would end a request that is held, see read.
		// The longest request waits for a slow one, and is then held.
		WriteTimeout: s.holdFor + maxSlow + bodyTimeout,
		// Longer than our client keeps a connection, so that it is the client who
		// closes, and no request meets a closed one.
		IdleTimeout:    90 * time.Second,
		MaxHeaderBytes: 16 << 10,
	}
	h.RegisterOnShutdown(s.Close)
	return h
}

// Close releases the requests that are held: "never answers" closes its
// connection, a slow charge is booked and answered at once. New requests still
// work, but nothing is held any more.
func (s *Server) Close() { s.once.Do(func() { close(s.stop) }) }

type cardFields struct {
	Number          string `json:"number"`
	SecurityCode    string `json:"security_code"`
	HolderName      string `json:"holder_name"`
	ExpirationMonth int    `json:"expiration_month"`
	ExpirationYear  int    `json:"expiration_year"`
}

type order struct {
	Reference       string `json:"reference"`
	AccountID       string `json:"account_id"`
	Mode            string `json:"mode"`
	MerchantOrderID string `json:"merchant_order_id"`
}

type chargeRequest struct {
	order
	Amount      string      `json:"amount"`
	Currency    string      `json:"currency"`
	Country     string      `json:"country"`
	Description string      `json:"description"`
	Capture     *bool       `json:"capture"`
	Card        *cardFields `json:"card,omitempty"`
	Token       string      `json:"token,omitempty"`
}

type tokenRequest struct {
	Card *cardFields `json:"card"`
}

// reply is every answer about a reference.
type reply struct {
	Reference         string   `json:"reference,omitempty"`
	Status            status   `json:"status"`
	ID                string   `json:"id,omitempty"`
	ResponseCode      string   `json:"response_code,omitempty"`
	AuthorizationCode string   `json:"authorization_code,omitempty"`
	Messages          []string `json:"messages,omitempty"`
}

// answer is a reply on its way, and how it is given.
type answer struct {
	code   int
	reply  reply
	manner manner
}

func refused(reference, message string) answer {
	return answer{code: http.StatusBadRequest, reply: reply{Reference: reference, Status: statusRefused, Messages: []string{message}}}
}

// about answers with what became of a reference.
func about(reference string, st standing) answer {
	return answer{code: http.StatusOK, reply: reply{Reference: reference, Status: st.status, ID: st.id,
		ResponseCode: st.responseCode, AuthorizationCode: st.authorizationCode}}
}

func (s *Server) postCharge(w http.ResponseWriter, r *http.Request) {
	var q chargeRequest
	if !s.read(w, r, &q) {
		return
	}
	if problem := q.problem(); problem != "" {
		s.give(w, r, refused(echo(q.Reference), problem))
		return
	}
	h, err := s.ledger.hold(r.Context(), q.key())
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone; nothing was begun
	}
	a, err := s.charge(h, &q)
	h.release() // before the answer, which may take minutes
	if err != nil {
		s.fail(w)
		return
	}
	s.give(w, r, a)
}

// charge decides about a charge. From here on it does not care whether the
// client is still there: what is begun is finished.
func (s *Server) charge(h *hold, q *chargeRequest) (answer, error) {
	st, err := h.standing()
	if err != nil {
		return answer{}, err
	}
	if st.status != statusUnknown {
		return again(q.Reference, st), nil
	}
	f, faulty, problem := parseFault(q.Description)
	if problem != "" {
		return refused(q.Reference, "description: "+problem), nil
	}
	code, problem := s.cardCode(q)
	if problem != "" {
		return refused(q.Reference, problem), nil
	}
	if h.firstSend(q.MerchantOrderID) && faulty {
		return s.misbehave(h, q, f)
	}
	code = truth(code, q.Description)
	if class, _ := providers.ClassOf(code); class == providers.ClassSucceeded {
		st, err = h.book(q.booking(code, ""))
	} else {
		st, err = h.decline(q.MerchantOrderID, code)
	}
	return about(q.Reference, st), err
}

// misbehave decides about a charge as its fault says. What the fault does is on
// the disk before anybody can notice it.
func (s *Server) misbehave(h *hold, q *chargeRequest, f fault) (answer, error) {
	if f.then == refusing {
		st, err := h.refuse(q.MerchantOrderID, f.word)
		return again(q.Reference, st), err
	}
	if f.slow > 0 || !f.books {
		if err := h.meet(q.MerchantOrderID, f.word); err != nil {
			return answer{}, err
		}
	}
	if f.slow > 0 {
		select {
		case <-s.after(f.slow):
		case <-s.stop:
		}
	}
	if !f.books {
		return answer{manner: f.then}, nil
	}
	st, err := h.book(q.booking(succeeded, f.word))
	a := about(q.Reference, st)
	a.manner = f.then
	return a, err
}

// again answers a charge whose reference was decided before.
func again(reference string, st standing) answer {
	switch st.status {
	case statusRefused:
		return refused(reference, "description: sandbox:reject asked for this refusal")
	case statusVoided:
		return refused(reference, "reference: was voided, and can never be charged")
	case statusUnknown, statusApproved, statusDeclined, statusError:
	}
	return about(reference, st)
}

// cardCode is the response code of the charge's card, which may stand behind a
// token.
func (s *Server) cardCode(q *chargeRequest) (code, problem string) {
	if q.Card != nil {
		return cardCode(q.Card.Number), ""
	}
	code, ok := s.ledger.token(q.Token)
	if !ok {
		return "", "token: is not known"
	}
	return code, ""
}

func (s *Server) getCharge(w http.ResponseWriter, r *http.Request) {
	q, problem := params(r.URL, "account_id", "mode", "reference")
	o := order{Reference: q["reference"], AccountID: q["account_id"], Mode: q["mode"]}
	if problem == "" {
		problem = o.problem()
	}
	if problem != "" {
		s.give(w, r, answer{code: http.StatusBadRequest, reply: reply{Status: statusError, Messages: []string{problem}}})
		return
	}
	st, err := s.ledger.standing(o.key())
	if err != nil {
		s.fail(w)
		return
	}
	s.give(w, r, about(o.Reference, st))
}

func (s *Server) postVoid(w http.ResponseWriter, r *http.Request) {
	var q order
	if !s.read(w, r, &q) {
		return
	}
	problem := q.problem()
	if problem == "" {
		problem = q.orderProblem()
	}
	if problem != "" {
		s.give(w, r, refused(echo(q.Reference), problem))
		return
	}
	// A charge that is being decided has the hold. The void then comes after it.
	h, err := s.ledger.hold(r.Context(), q.key())
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	st, err := h.standing()
	if err == nil && (st.status == statusUnknown || st.status == statusRefused) {
		st, err = h.void(q.MerchantOrderID)
	}
	h.release()
	if err != nil {
		s.fail(w)
		return
	}
	s.give(w, r, about(q.Reference, st))
}

func (s *Server) postToken(w http.ResponseWriter, r *http.Request) {
	var q tokenRequest
	if !s.read(w, r, &q) {
		return
	}
	if q.Card == nil {
		s.give(w, r, refused("", "card: is missing"))
		return
	}
	if problem := q.Card.problem(); problem != "" {
		s.give(w, r, refused("", problem))
		return
	}
	token, err := s.ledger.issueToken(cardCode(q.Card.Number))
	if err != nil {
		s.fail(w)
		return
	}
	writeJSON(w, http.StatusCreated, map[string]string{"token": token})
}

func (s *Server) getLedger(w http.ResponseWriter, r *http.Request) {
	q, problem := params(r.URL, "reference", "merchant_order_id", "limit", "after")
	limit, err1 := number(q, "limit", defaultLimit, maxLimit)
	before, err2 := number(q, "after", 0, math.MaxInt32)
	switch {
	case problem != "":
	case err1 != nil:
		problem = err1.Error()
	case err2 != nil:
		problem = err2.Error()
	}
	if problem != "" {
		s.give(w, r, answer{code: http.StatusBadRequest, reply: reply{Status: statusError, Messages: []string{problem}}})
		return
	}
	if s.ledger.Err() != nil {
		s.fail(w)
		return
	}
	entries, next := s.ledger.Entries(Query{Reference: q["reference"], MerchantOrderID: q["merchant_order_id"], Limit: limit, Before: before})
	page := struct {
		Entries []Entry `json:"entries"`
		Next    *string `json:"next"`
	}{Entries: entries}
	if entries == nil {
		page.Entries = []Entry{}
	}
	if next > 0 {
		cursor := strconv.Itoa(next)
		page.Next = &cursor
	}
	writeJSON(w, http.StatusOK, page)
}

func (s *Server) getLivez(w http.ResponseWriter, _ *http.Request) {
	if err := s.ledger.Err(); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "error", "reason": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// read decodes the body, or answers and returns false.
func (s *Server) read(w http.ResponseWriter, r *http.Request, v any) bool {
	problem, code := "", http.StatusBadRequest
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		problem, code = "Content-Type: must be application/json", http.StatusUnsupportedMediaType
	}
	// The deadline is for the body only. Left in place it would later look as if
	// the client had gone, and end a request that is held.
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	_ = c.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		problem, code = "body: must be at most 64 KiB", http.StatusRequestEntityTooLarge
	case err != nil:
		panic(http.ErrAbortHandler) // half a body is nothing to answer
	case problem == "":
		if err := decodeStrict(body, v); err != nil {
			problem = "body: " + err.Error()
		}
	}
	if problem != "" {
		writeJSON(w, code, reply{Status: statusRefused, Messages: []string{problem}})
	}
	return problem == ""
}

// give answers in the answer's manner.
func (s *Server) give(w http.ResponseWriter, r *http.Request, a answer) {
	switch a.manner {
	case truthfully, refusing:
		writeJSON(w, a.code, a.reply)
	case unprocessed:
		writeJSON(w, http.StatusServiceUnavailable, map[string]bool{"processed": false})
	case with500:
		writeJSON(w, http.StatusInternalServerError, reply{Status: statusError, Messages: []string{"description: asked for this error"}})
	case never:
		select {
		case <-r.Context().Done():
		case <-s.after(s.holdFor):
		case <-s.stop:
		}
		panic(http.ErrAbortHandler) // closes the connection without a word
	case halfway:
		b, err := json.Marshal(a.reply)
		if err == nil {
			setJSON(w, len(b))
			_, _ = w.Write(b[:len(b)/2])
			_ = http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler)
	}
}

// fail answers when the ledger cannot be written: nobody knows what is in it.
func (s *Server) fail(w http.ResponseWriter) {
	writeJSON(w, http.StatusInternalServerError, reply{Status: statusError, Messages: []string{"the ledger cannot be used, see /livez"}})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("sandbox: an answer cannot be encoded: %v", err)) // a programmer's mistake
	}
	setJSON(w, len(b))
	w.WriteHeader(code)
	_, _ = w.Write(b) // a client that has gone asks again
}

func setJSON(w http.ResponseWriter, length int) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(length))
	w.Header().Set("Cache-Control", "no-store")
}

func (o *order) key() refKey { return refKey{o.AccountID, o.Mode, o.Reference} }

// booking is what the charge wants booked.
func (q *chargeRequest) booking(code, fault string) booking {
	b := booking{order: q.MerchantOrderID, kind: typeAuthorize, amount: q.Amount, currency: q.Currency, responseCode: code, fault: fault}
	if *q.Capture {
		b.kind = typePurchase
	}
	return b
}

var (
	idForm       = regexp.MustCompile(`^[!-~]+$`) // visible ASCII
	currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)
	countryForm  = regexp.MustCompile(`^[A-Z]{2}$`)
	numberForm   = regexp.MustCompile(`^[0-9]{12,19}$`) // ISO/IEC 7812
	codeForm     = regexp.MustCompile(`^([0-9]{3,4})?$`)
)

func validID(s string) bool { return len(s) <= maxReferenceLength && idForm.MatchString(s) }

func validText(s string) bool { return s != "" && utf8.RuneCountInString(s) <= maxTextLength }

// echo is the reference for an answer, or nothing if it is none.
func echo(reference string) string {
	if !validID(reference) {
		return ""
	}
	return reference
}

// problem names the first field that is wrong, and its rule; never its value.
func (o *order) problem() string {
	switch {
	case !validID(o.Reference):
		return "reference: must be 1 to 64 visible ASCII characters"
	case !validID(o.AccountID):
		return "account_id: must be 1 to 64 visible ASCII characters"
	case o.Mode != "test" && o.Mode != "live":
		return "mode: must be test or live"
	}
	return ""
}

func (o *order) orderProblem() string {
	if !validText(o.MerchantOrderID) {
		return "merchant_order_id: must be 1 to 255 characters"
	}
	return ""
}

func (q *chargeRequest) problem() string {
	if p := q.order.problem(); p != "" {
		return p
	}
	if p := q.orderProblem(); p != "" {
		return p
	}
	switch {
	case !amountForm.MatchString(q.Amount), strings.Trim(q.Amount, "0.") == "":
		return "amount: must be a positive decimal string with at most 4 places, at most 9999999999.9999"
	case !currencyForm.MatchString(q.Currency):
		return "currency: must be three capital letters"
	case !countryForm.MatchString(q.Country):
		return "country: must be two capital letters"
	case !validText(q.Description):
		return "description: must be 1 to 255 characters"
	case q.Capture == nil:
		return "capture: must be true or false"
	case (q.Card == nil) == (q.Token == ""):
		return "card: either a card or a token must be given"
	case q.Card != nil:
		return q.Card.problem()
	}
	return ""
}

func (c *cardFields) problem() string {
	switch {
	case !numberForm.MatchString(c.Number):
		return "card.number: must be 12 to 19 digits"
	case !codeForm.MatchString(c.SecurityCode):
		return "card.security_code: must be 3 or 4 digits, or empty"
	case utf8.RuneCountInString(c.HolderName) > maxTextLength:
		return "card.holder_name: must be at most 255 characters"
	case c.ExpirationMonth < 1 || c.ExpirationMonth > 12:
		return "card.expiration_month: must be 1 to 12"
	case c.ExpirationYear < 2000 || c.ExpirationYear > 2099:
		return "card.expiration_year: must be a year of four digits"
	}
	return ""
}

// params are the query's parameters: only known ones, each at most once, none
// of them empty. A misspelt filter must not select everything.
func params(u *url.URL, known ...string) (values map[string]string, problem string) {
	all, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, "query: is malformed"
	}
	values = map[string]string{}
	for _, name := range known {
		list, ok := all[name]
		delete(all, name)
		switch {
		case !ok:
		case len(list) != 1 || list[0] == "":
			return nil, name + ": must be given once and not be empty"
		case utf8.RuneCountInString(list[0]) > maxTextLength:
			return nil, name + ": must be at most 255 characters"
		default:
			values[name] = list[0]
		}
	}
	if len(all) > 0 {
		return nil, "query: the only parameters are " + strings.Join(known, ", ")
	}
	return values, ""
}

// number is a parameter from 1 to maximum.
func number(values map[string]string, name string, absent, maximum int) (int, error) {
	v, ok := values[name]
	if !ok {
		return absent, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > maximum {
		return 0, fmt.Errorf("%s: must be a number from 1 to %d", name, maximum)
	}
	return n, nil
}
