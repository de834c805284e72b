// Package sandbox is a payment provider that books nothing but its own ledger,
// and misbehaves on demand: it charges and then says nothing, answers 500,
// breaks the connection, makes up its mind later. A merchant rehearses with it what
// really hurts, and its ledger, which knows nothing of our database, is the referee of
// our tests.
//
// Its API, for whoever writes an adapter for it in another language. Bodies are
// JSON objects in UTF-8, at most 64 KiB, with the names below and no others.
// account_id and mode (test or live) scope everything but the ledger.
//
//	POST /sandbox/v1/charges
//	     {"reference","account_id","mode","merchant_order_id","amount":"23.57","currency","country","description",
//	      "capture":true,"card":{"number","security_code","holder_name","expiration_month","expiration_year"}}
//	     or "token" in place of "card"; and, if wanted, "callback_url", "return_url" for after a challenge, and
//	     "verify":true with an amount of "0": only whether the card could be charged, which the ledger does not show.
//	POST /sandbox/v1/captures | /sandbox/v1/cancels | /sandbox/v1/refunds
//	     {"reference","account_id","mode","merchant_order_id","target","amount","currency"}; and, if wanted,
//	     "description", "callback_url". target is the reference of what it acts on, with the same account and mode:
//	     an authorization for captures and cancels, a purchase or a capture for refunds.
//	     Captures together never exceed their authorization, nor refunds their target; nothing is captured after a
//	     cancel, and nothing cancelled after a capture; a cancel is of the whole. What is pending counts as if it
//	     were booked. Else it is declined: TRANSACTION_NOT_FOUND (no such target), INVALID_STATUS (of another type,
//	     not approved, or cancelled, or captured), CURRENCY_NOT_ALLOWED, INVALID_AMOUNT.
//	  200 {"reference","status":"approved","id","response_code","authorization_code","type","amount","currency"}:
//	      booked, for ever
//	  200 {"reference","status":"declined","id","response_code","type","amount","currency"}: a final no
//	  200 {"reference","status":"pending","id","response_code","type","amount","currency"}: decided later.
//	      response_code is PENDING_PROVIDER_CONFIRMATION, or CHALLENGE_REQUIRED, and then there is "redirect_url",
//	      the page on which the payer decides.
//	  400 {"reference","status":"refused","messages"}: invalid, or voided, or used for something else before; this
//	      request had no effect. A message names a field and a rule. The reference is left out if it could not be read.
//	  503 {"processed":false}: a guarantee that nothing was processed
//	GET  /sandbox/v1/charges?account_id=&mode=&reference=
//	  200 {"reference","status", …}, for operations as for charges: approved, declined or pending as above,
//	      refused, voided, or unknown: nothing was decided about this reference up to now.
//	      Never waits for what is still being decided.
//	POST /sandbox/v1/voids  {"reference","account_id","mode","merchant_order_id"}
//	  200 {"reference","status":"voided"}: not booked, and a charge or an operation with it is refused from now on;
//	      or approved or declined as above, and nothing changed. What is pending is voided.
//	POST /sandbox/v1/tokens {"card":{…}}
//	  201 {"token"}
//	POST /sandbox/v1/disputes {"reference","account_id","mode","stage"}; and, if wanted, "amount", "id", "callback_url"
//	     Without an id it opens a dispute of something booked by a purchase or a capture; stage is received, and the
//	     amount what was neither refunded nor lost. With its id it moves one: received, pending_review, won or lost,
//	     never back. A booking has at most one dispute that is not over. Until it is won, its amount counts as
//	     if it were refunded.
//	  200 {"id","stage","amount","currency"}
//	  400 as above
//	GET  /sandbox/v1/challenges/{secret}, and POST: the payer's page, for a browser
//	GET  /sandbox/v1/ledger?reference=|merchant_order_id=&limit=&after=
//	  200 {"entries":[{"reference","merchant_order_id","account_id","mode","type","amount","currency","status",
//	      "created_at"}],"next"}, newest first, over all accounts. limit is 50, at most 500; next goes into after.
//	GET  /sandbox/v1/bookings?from=&to=&limit=&after=
//	  200 the same, oldest first, from one moment (RFC 3339) up to, and without, another; both may be left out
//	GET  /livez
//	  200 as long as the ledger can be written
//
// Anything else (404, 413, 415, 500 …) promises nothing, and a caller that gets it
// must ask.
//
// A reference is an idempotency key for ever: the first request with it decides,
// later ones get the first one's answer whatever else they say, and those that
// come meanwhile wait. The API has no authentication, and calls whatever callback_url
// it is given: it is for a loopback address, or a private network.
//
// Cards and descriptions choose what happens, see magic.go. A description that begins
// with sandbox: chooses a fault of the first send for its account, mode and order, and
// an operation's that of the first of its kind: timeout, charge-then-timeout, 500,
// charge-then-500, charge-then-reset, unavailable, reject, slow=3s,
// pending-then-approve=3s, pending-then-decline=3s, pending-then-approve-twice=3s, and
// for charges challenge. Later sends are answered truthfully.
//
// What was pending is told to its callback_url when it is decided, unless it is
// voided; a dispute at each stage, to the callback_url of what is disputed, or that of
// the request.
//
//	POST {"id","type":"transaction","reference","account_id","mode","merchant_order_id","status":"approved"|"declined",
//	      "provider_id","response_code","authorization_code","amount","currency","created_at"}
//	  or {"id","type":"dispute","reference","account_id","mode","merchant_order_id","dispute":{"id","stage","amount",
//	      "currency"},"created_at"}
//	Sandbox-Signature: v1=<HMAC-SHA256 of the body, in hexadecimal>
//
// A 2xx acknowledges it. Otherwise it is sent again after 1 s, 2 s, 4 s … 1 min, at
// most 20 times, and again after a restart of the sandbox. A message has the same id
// whenever it is sent. They come in no order.
package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
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
	maxLimit     = 500 // and at most; about 150 KB, and 1 MB with the longest ids
)

// Options are the server's knobs. The zero value is for use.
type Options struct {
	// Hold bounds how long "never answers" holds a connection. 0 means 2 minutes.
	Hold time.Duration
	// CallbackSecret is what callbacks are signed with. Without one none are sent; what
	// was to be told waits in the ledger for a process that has one.
	CallbackSecret []byte
	// PublicURL is where payers' browsers reach the sandbox, http(s)://host[:port][/path].
	// "" means the address that a request came to.
	PublicURL string
}

// Server is the provider over HTTP. It is safe for concurrent use.
type Server struct {
	ledger    *Ledger
	holdFor   time.Duration
	secret    []byte
	publicURL string
	mux       *http.ServeMux
	stop      chan struct{}
	once      sync.Once

	decisions  *agenda[refKey] // what is pending, to be decided
	deliveries *agenda[letter]
	caller     *http.Transport
	cancel     context.CancelFunc // ends the agendas
	agendas    sync.WaitGroup
	// after is time.After; a test decides itself when time has passed.
	after func(time.Duration) <-chan time.Time
}

// NewServer makes the handler of a ledger, and goes on with what the ledger says is
// pending, or was not acknowledged. It must be closed; the ledger stays the caller's
// to close, after it.
func NewServer(l *Ledger, o Options) *Server {
	s := &Server{ledger: l, holdFor: o.Hold, secret: slices.Clone(o.CallbackSecret), publicURL: strings.TrimRight(o.PublicURL, "/"),
		mux: http.NewServeMux(), stop: make(chan struct{}), caller: newCaller(), after: time.After}
	if s.holdFor <= 0 {
		s.holdFor = holdTimeout
	}
	s.mux.HandleFunc("POST /sandbox/v1/charges", s.postCharge)
	s.mux.HandleFunc("GET /sandbox/v1/charges", s.getCharge)
	for _, known := range operations {
		s.mux.HandleFunc("POST "+known.path, s.postOperation(known.name))
	}
	s.mux.HandleFunc("POST /sandbox/v1/voids", s.postVoid)
	s.mux.HandleFunc("POST /sandbox/v1/tokens", s.postToken)
	s.mux.HandleFunc("POST /sandbox/v1/disputes", s.postDispute)
	s.mux.HandleFunc("GET /sandbox/v1/ledger", s.getLedger)
	s.mux.HandleFunc("GET /sandbox/v1/bookings", s.getBookings)
	s.mux.HandleFunc("GET /sandbox/v1/challenges/style.css", s.getChallengeStyle)
	s.mux.HandleFunc("GET /sandbox/v1/challenges/{secret}", s.getChallenge)
	s.mux.HandleFunc("POST /sandbox/v1/challenges/{secret}", s.postChallenge)
	s.mux.HandleFunc("GET /livez", s.getLivez)
	s.resume()
	return s
}

// resume starts the agendas, with what a process before left undone.
func (s *Server) resume() {
	s.decisions = newAgenda(maxDeciding, s.decide)
	s.deliveries = newAgenda(maxDelivering, s.deliver)
	for key, due := range s.ledger.due() {
		s.decisions.add(due, key)
	}
	if len(s.secret) > 0 {
		for _, l := range s.ledger.letters("") {
			s.deliveries.add(l.due, l)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.agendas.Go(func() { s.decisions.run(ctx) })
	s.agendas.Go(func() { s.deliveries.run(ctx) })
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
// work, but nothing is held any more, what is pending stays so for the next process,
// and nobody is called back. It waits until that is so.
func (s *Server) Close() {
	s.once.Do(func() {
		close(s.stop)
		s.cancel()
		s.agendas.Wait()
		s.caller.CloseIdleConnections()
	})
}

type order struct {
	Reference       string `json:"reference"`
	AccountID       string `json:"account_id"`
	Mode            string `json:"mode"`
	MerchantOrderID string `json:"merchant_order_id"`
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
	Type              string   `json:"type,omitempty"`
	Amount            string   `json:"amount,omitempty"`
	Currency          string   `json:"currency,omitempty"`
	RedirectURL       string   `json:"redirect_url,omitempty"`
	Messages          []string `json:"messages,omitempty"`
}

// answer is a reply on its way, and how it is given.
type answer struct {
	code      int
	reply     reply
	challenge string // the secret of the page that the payer has to go to
	manner    manner
}

func refused(reference, message string) answer {
	return answer{code: http.StatusBadRequest, reply: reply{Reference: reference, Status: statusRefused, Messages: []string{message}}}
}

// about answers with what became of a reference.
func about(reference string, st standing) answer {
	re := reply{Reference: reference, Status: st.status, ID: st.id, ResponseCode: st.responseCode, AuthorizationCode: st.authorizationCode}
	if re.tells() {
		re.Type, re.Amount, re.Currency = st.kind, st.amount, st.currency
	}
	return answer{code: http.StatusOK, reply: re, challenge: st.challenge}
}

// perform takes a charge's or an operation's reference, lets act decide about it if it
// is unknown, and answers. From then on it does not matter whether the client is still
// there: what is begun is finished.
func (s *Server) perform(w http.ResponseWriter, r *http.Request, o order, problem, kind string, act func(*hold) (answer, error)) {
	if problem != "" {
		s.give(w, r, refused(echo(o.Reference), problem))
		return
	}
	h, err := s.ledger.hold(r.Context(), o.key())
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone; nothing was begun
	}
	a, err := s.decided(h, o.Reference, kind, act)
	h.release() // before the answer, which may take minutes
	if err != nil {
		s.fail(w)
		return
	}
	s.give(w, r, a)
}

func (s *Server) decided(h *hold, reference, kind string, act func(*hold) (answer, error)) (answer, error) {
	st, err := h.standing()
	switch {
	case err != nil:
		return answer{}, err
	case st.status == statusVoided:
	case st.status == statusUnknown && st.kind == "":
		return act(h)
	case family(st.kind) != family(kind):
		return refused(reference, "reference: was used for something else before"), nil
	case st.status == statusUnknown:
		return act(h)
	}
	return again(reference, st), nil
}

// misbehave decides about a charge or an operation as its fault says. What the fault
// does is on the disk before anybody can notice it.
func (s *Server) misbehave(h *hold, b booking, f fault) (answer, error) {
	b.fault = f.word
	reference := h.key.reference
	if f.then == refusing {
		st, err := h.refuse(b)
		return again(reference, st), err
	}
	if f.verdict != "" {
		st, err := s.pend(h, b, f)
		return about(reference, st), err
	}
	if f.slow > 0 || !f.books {
		if err := h.meet(b); err != nil {
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
	b.responseCode = succeeded
	st, err := h.settle(b)
	a := about(reference, st)
	a.manner = f.then
	return a, err
}

// again answers a charge or an operation whose reference was decided before.
func again(reference string, st standing) answer {
	switch st.status {
	case statusRefused:
		return refused(reference, "description: sandbox:reject asked for this refusal")
	case statusVoided:
		return refused(reference, "reference: was voided, and can never be used")
	case statusUnknown, statusApproved, statusDeclined, statusPending, statusError:
	}
	return about(reference, st)
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
	// What is being decided has the hold. The void then comes after it.
	h, err := s.ledger.hold(r.Context(), q.key())
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	st, err := h.standing()
	if err == nil && (st.status == statusUnknown || slices.Contains(decisions[kindVoid].from, st.status)) {
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
	writeJSON(w, http.StatusOK, pageOf(entries, next))
}

// ledgerPage is a page of bookings.
type ledgerPage struct {
	Entries []Entry `json:"entries"`
	Next    *string `json:"next"`
}

func pageOf(entries []Entry, next int) ledgerPage {
	page := ledgerPage{Entries: entries}
	if entries == nil {
		page.Entries = []Entry{}
	}
	if next > 0 {
		cursor := strconv.Itoa(next)
		page.Next = &cursor
	}
	return page
}

func (s *Server) getBookings(w http.ResponseWriter, r *http.Request) {
	q, problem := params(r.URL, "from", "to", "limit", "after")
	limit, err1 := number(q, "limit", defaultLimit, maxLimit)
	after, err2 := number(q, "after", 0, math.MaxInt32)
	from, err3 := moment(q, "from")
	to, err4 := moment(q, "to")
	if err := cmp.Or(err1, err2, err3, err4); problem == "" && err != nil {
		problem = err.Error()
	}
	if problem != "" {
		s.give(w, r, answer{code: http.StatusBadRequest, reply: reply{Status: statusError, Messages: []string{problem}}})
		return
	}
	if s.ledger.Err() != nil {
		s.fail(w)
		return
	}
	writeJSON(w, http.StatusOK, pageOf(s.ledger.Between(from, to, after, limit)))
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
	if a.challenge != "" {
		a.reply.RedirectURL = s.challengeURL(r, a.challenge)
	}
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

// moment is a parameter that is a time; the zero time if it is absent.
func moment(values map[string]string, name string) (time.Time, error) {
	v, ok := values[name]
	if !ok {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: must be a time as RFC 3339 has it", name)
	}
	return t, nil
}
