package transactions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// The cases about the wire: clients that hang up, headers that no library would
// send, bodies that do not arrive, credentials, and what a replay repeats.

// counter is the listener of the world's first instance, with a real one's limits.
func (w *world) counter(change ...func(*http.Server)) *httptest.Server {
	w.t.Helper()
	public, _ := w.edges(w.instance, w.service.log)
	return w.front(public, change...)
}

// settled waits until a nonce has its answer.
func (w *world) settled(nonce string) {
	w.t.Helper()
	w.until("the answer of "+nonce, func() bool {
		return w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = $1 AND response_status IS NOT NULL`, nonce) == 1
	})
}

// wantCreated fails the test unless r made a payment, and was no replay.
func (w *world) wantCreated(r response) {
	w.t.Helper()
	w.want(r, http.StatusCreated)
	w.wantNoReplay(r)
}

func TestH26ClientThatHangsUpDoesNotStopItsPayment(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(l *line) error{
		"it closes the connection": func(l *line) error { return l.Close() },
		"it resets the connection": func(l *line) error { _ = l.SetLinger(0); return l.Close() },
		"it shuts its own half":    func(l *line) error { return l.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			public, _ := w.edges(w.instance, w.service.log)
			noticed := make(chan struct{})
			server := w.front(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				ctx := r.Context()
				go func() { <-ctx.Done(); close(noticed) }()
				public.ServeHTTP(rw, r)
			}))
			arrived, gate, during := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			w.psp.next(func(ctx context.Context, p *psp, c providers.Charge) providers.Result {
				close(arrived)
				<-gate
				during <- ctx.Err()
				return p.book(c)
			})
			client := w.dial(server)
			body := w.body("order-1", nil)
			client.say(w.paying("nonce-1", body).String())
			receive(t, arrived, "the send")
			if err := leave(client); err != nil {
				t.Fatal(err)
			}
			receive(t, noticed, "the server's notice that its client has gone")
			close(gate)
			if err := receive(t, during, "the provider's answer"); err != nil {
				t.Errorf("the charge was broken off: %v", err)
			}
			w.settled("nonce-1")

			r := w.create("nonce-1", body)
			w.want(r, http.StatusCreated)
			if r.header.Get(headerReplayed) != "true" || r.get("status") != "SUCCEEDED" {
				t.Errorf("the retry got %s %v", r, r.header)
			}
			w.wantReplay(r, w.create("nonce-1", body), false)
			if name == "it shuts its own half" {
				w.wantReplay(client.hear(http.MethodPost), r, false) // and it still listens
			}
			w.wantCharges("order-1", 1)
			w.wantSends(1, 1)
			w.wantEvents("nonce-1", "provider")
		})
	}
}

func TestH27RetryAfterTheClientsTimeoutWaitsAndIsThenReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	arrived, letGo := w.holdNext(approve)
	body := w.body("order-1", nil)
	ctx, giveUp := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := request(ctx, http.MethodPost, w.public.URL+"/v1/payments", body, append(keys(w.test), idem.Header, "nonce-1")...)
		gaveUp <- err
	}()
	receive(t, arrived, "the send")
	giveUp() // what a client's time-out does
	if err := receive(t, gaveUp, "the client's end"); err == nil {
		t.Fatal("the client that gave up was answered")
	}
	server := w.counter()
	for range 3 { // each on a connection of its own
		w.wantInProcess(w.send(server, w.paying("nonce-1", body)))
	}
	letGo()
	w.settled("nonce-1")
	first := w.send(server, w.paying("nonce-1", body))
	w.want(first, http.StatusCreated)
	w.wantReplay(first, w.send(server, w.paying("nonce-1", body)), false)
	if first.header.Get(headerReplayed) != "true" {
		t.Error("the retry began a payment of its own")
	}
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

// Half a body cancelled the request, and with it the look whether its nonce has an
// answer: that was a 500, and a line in the log as of something unheard of.
func TestH28TruncatedBodyIs400AndLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.counter()
	body := w.body("order-1", nil)
	whole := w.paying("nonce-1", body)
	length := fmt.Sprint("Content-Length: ", len(body))
	truncated := map[string]letter{
		"half of it":          whole.but(raw(length), text(string(body[:len(body)/2])), hangUp),
		"all but a byte":      whole.but(raw(length), text(string(body[:len(body)-1])), hangUp),
		"nothing of it":       whole.but(raw(length), text(""), hangUp),
		"a byte more to come": whole.but(raw(fmt.Sprint("Content-Length: ", len(body)+1)), hangUp),
		"half a chunk":        whole.but(raw("Transfer-Encoding: chunked"), text("ffff\r\n"+string(body)), hangUp),
		"no last chunk":       whole.but(raw("Transfer-Encoding: chunked"), text(fmt.Sprintf("%x\r\n%s\r\n", len(body), body)), hangUp),
	}
	before := w.footprint()
	for name, l := range truncated {
		r := w.send(server, l)
		if r.status != http.StatusBadRequest {
			t.Errorf("%s: got %s", name, r)
			continue
		}
		w.wantError(r, http.StatusBadRequest, "INVALID_REQUEST", earlyRule)
		w.wantUntouched(before, "arrivals")
	}
	first := w.send(server, whole)
	w.wantCreated(first)
	for _, l := range truncated { // as every body that is not valid, under a key that has its answer
		w.wantReplay(first, w.send(server, l), true)
	}
	w.wantCharges("order-1", 1)
	if log := w.logs.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("half a body is in the log as an error: %s", log)
	}
}

func TestH28SlowBodyIs408AndLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.counter(func(s *http.Server) { s.ReadTimeout = 200 * time.Millisecond })
	body := string(w.body("order-1", nil))
	whole := w.paying("nonce-1", []byte(body))
	before := w.footprint()
	for name, l := range map[string]letter{
		"it stops half-way": whole.but(raw(fmt.Sprint("Content-Length: ", len(body))), text(body[:len(body)/2])),
		"it never begins":   whole.but(raw(fmt.Sprint("Content-Length: ", len(body))), text("")),
		"a chunk is late":   whole.but(raw("Transfer-Encoding: chunked"), text("ffff\r\n"+body)),
	} {
		r := w.send(server, l)
		if r.status != http.StatusRequestTimeout {
			t.Errorf("%s: got %s", name, r)
			continue
		}
		w.wantError(r, http.StatusRequestTimeout, "REQUEST_TIMEOUT", "the body did not arrive in time")
		w.wantUntouched(before, "arrivals")
	}
	w.wantCreated(w.send(server, whole))
	w.wantCharges("order-1", 1)
}

func TestH29WhoAsksFirstIsRefusedBeforeTheBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.counter()
	body := w.body("order-1", nil)
	asks := w.paying("nonce-1", body).but(raw("Expect: 100-continue"), raw(fmt.Sprint("Content-Length: ", len(body))), text(""))
	before := w.footprint()
	for name, c := range map[string]struct {
		l       letter
		status  int
		code    string
		message string
	}{
		"the key is too long":  {asks.but(header(idem.Header, strings.Repeat("n", 65))), 400, "INVALID_PARAMETERS", nonceRule},
		"the key is missing":   {asks.but(header(idem.Header)), 400, "MISSING_PARAMETERS", missingRule},
		"the secret is wrong":  {asks.but(header("private-secret-key", "x")), 401, "INVALID_CREDENTIALS", pairRule},
		"there is no path":     {asks.but(target("/v1/nothing")), 404, "NOT_FOUND", pathRule},
		"the type is no JSON":  {asks.but(header("Content-Type", "text/plain")), 415, "UNSUPPORTED_MEDIA_TYPE", typeRule},
		"the body is squeezed": {asks.but(raw("Content-Encoding: br")), 415, "UNSUPPORTED_MEDIA_TYPE", encodingRule},
	} {
		r := w.send(server, c.l)
		if r.status != c.status {
			t.Errorf("%s: the first that is heard is %s, want %d", name, r, c.status)
			continue
		}
		w.wantError(r, c.status, c.code, c.message)
		w.wantUntouched(before, "arrivals")
	}
	client := w.dial(server)
	client.say(asks.String())
	if r := client.hear(http.MethodPost); r.status != http.StatusContinue {
		t.Fatalf("a good request is told %s, want that it may go on", r)
	}
	client.say(string(body))
	w.wantCreated(client.hear(http.MethodPost))
	w.wantCharges("order-1", 1)
}

func TestH30PipelinedDuplicatesAreAnsweredInOrderOneByOne(t *testing.T) {
	t.Parallel()
	const duplicates = 20
	w := newWorld(t)
	l := w.paying("nonce-1", w.body("order-1", nil))
	client := w.dial(w.counter())
	client.say(strings.Repeat(l.String(), duplicates))
	first := client.hear(http.MethodPost)
	w.wantCreated(first)
	for range duplicates - 1 {
		w.wantReplay(first, client.hear(http.MethodPost), false)
	}
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

// The listener itself speaks HTTP/1 alone; a proxy in front of it may speak HTTP/2
// with clients. Nothing behind it minds either way.
func TestH30DuplicatesOnOneHTTP2ConnectionAreServedOnce(t *testing.T) {
	t.Parallel()
	const duplicates = 200
	w := newWorld(t)
	var connections atomic.Int32
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := w.counter(func(s *http.Server) {
		s.Protocols = protocols
		s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: duplicates + 1}
		s.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				connections.Add(1)
			}
		}
	})
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: soon}
	body := w.body("order-1", nil)
	say := func(lines ...string) (response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/payments", bytes.NewReader(body))
		if err != nil {
			return response{}, err
		}
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		res, err := client.Do(req)
		if err != nil {
			return response{}, err
		}
		defer func() { _ = res.Body.Close() }()
		data, err := io.ReadAll(res.Body)
		if res.ProtoMajor != 2 {
			err = fmt.Errorf("answered in %s", res.Proto)
		}
		return response{res.StatusCode, res.Header, data}, err
	}
	// A client knows how many streams the server takes once it has read its settings,
	// and they come before the first answer: until then it may open more connections.
	if r, err := say(); err != nil || r.status != http.StatusUnauthorized {
		t.Fatalf("without credentials: %s, %v", r, err)
	}
	post := func(int) (response, error) { return say(w.paying("nonce-1", nil).lines[1:]...) }
	arrived, letGo := w.holdNext(approve)
	answer := atOnce(1, post)
	receive(t, arrived, "the send")
	told := atOnce(duplicates-1, post)
	for range duplicates - 1 {
		w.wantInProcess(receive(t, told, "a duplicate's answer"))
	}
	letGo()
	first := receive(t, answer, "the answer")
	w.wantCreated(first)
	again, err := post(0)
	if err != nil {
		t.Fatal(err)
	}
	w.wantReplay(first, again, false)
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want one for all", n)
	}
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

func TestH30ListenerItselfDoesNotSpeakHTTP2(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.counter()
	before := w.footprint()
	client := w.dial(server)
	client.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if r := client.hear("PRI"); r.status < 400 || r.status >= 500 {
		t.Errorf("the preface of HTTP/2 gets %s", r)
	}
	w.wantUntouched(before)
	// An offer to change over is not taken up: the request is served as it came.
	r := w.send(server, w.paying("nonce-1", w.body("order-1", nil)).but(raw("Upgrade: h2c"), raw("Connection: Upgrade, HTTP2-Settings"), raw("HTTP2-Settings: AAMAAABkAAQAAP__")))
	w.wantCreated(r)
	w.wantCharges("order-1", 1)
}

// wantKeyRefused sends a payment with each of these as its key, and wants all of
// them refused with these words, before anything is written at all.
func (w *world) wantKeyRefused(message string, wrong ...change) {
	w.t.Helper()
	server := w.counter()
	good := w.paying("nonce-1", w.body("order-1", nil))
	before := w.footprint()
	for i, c := range wrong {
		r := w.send(server, good.but(c))
		if r.status != http.StatusBadRequest {
			w.t.Errorf("the %d. is told %s", i+1, r)
			continue
		}
		w.wantError(r, http.StatusBadRequest, "INVALID_PARAMETERS", message)
	}
	w.wantUntouched(before)
}

// wantKeyRefusedByGo is the same for what Go's own server refuses, in plain text,
// before anything of ours hears of it.
func (w *world) wantKeyRefusedByGo(values ...string) {
	w.t.Helper()
	server := w.counter()
	good := w.paying("nonce-1", w.body("order-1", nil))
	before := w.footprint()
	for _, v := range values {
		r := w.send(server, good.but(header(idem.Header, v)))
		if r.status != http.StatusBadRequest || r.header.Get(httpapi.HeaderRequestID) != "" || !strings.HasPrefix(r.header.Get("Content-Type"), "text/plain") {
			w.t.Errorf("%q is told %s", v, r)
		}
	}
	w.wantUntouched(before)
}

func TestH31KeySentTwiceIs400EvenIfItIsTheSame(t *testing.T) {
	t.Parallel()
	newWorld(t).wantKeyRefused(onceRule,
		header(idem.Header, "nonce-1", "nonce-1"), header(idem.Header, "nonce-1", "nonce-1", "nonce-1"), header(idem.Header, "nonce-1", ""), header(idem.Header, "", "nonce-1"))
}

func TestH32KeySentTwiceInOtherLettersIs400(t *testing.T) {
	t.Parallel()
	newWorld(t).wantKeyRefused(onceRule,
		raw("x-idempotency-key: nonce-1"), raw("X-IDEMPOTENCY-KEY: nonce-1"), raw("x-Idempotency-kEY:nonce-1"), raw("X-idempotency-Key: nonce-2"))
}

func TestH33CommaListInTheKeyIs400(t *testing.T) {
	t.Parallel()
	newWorld(t).wantKeyRefused(visibleRule,
		header(idem.Header, "nonce-1, nonce-1"), header(idem.Header, "nonce-1,nonce-1"), header(idem.Header, "nonce-1,"), header(idem.Header, ","), header(idem.Header, `"a", "b"`))
}

func TestH34BlankInsideTheKeyIs400(t *testing.T) {
	t.Parallel()
	newWorld(t).wantKeyRefused(visibleRule,
		header(idem.Header, "nonce 1"), header(idem.Header, "nonce\t1"), header(idem.Header, "nonce  1"),
		header(idem.Header, "nonce\r\n 1"), header(idem.Header, "nonce\r\n\t1"), header(idem.Header, "\r\n nonce\r\n 1"))
}

func TestH35KeyBeyondASCIIIs400(t *testing.T) {
	t.Parallel()
	newWorld(t).wantKeyRefused(visibleRule,
		header(idem.Header, "nonc\u00e9"), header(idem.Header, "nonce\u0301"), header(idem.Header, "nonce-😀"), header(idem.Header, "\u00a0nonce-1"),
		header(idem.Header, "nonce-1\u200b"), header(idem.Header, "ｎｏｎｃｅ"))
}

func TestH36ByteThatIsNoCharacterIs400AndNot500(t *testing.T) {
	t.Parallel()
	newWorld(t).wantKeyRefused(visibleRule,
		header(idem.Header, "nonce\xff"), header(idem.Header, "\xff"), header(idem.Header, "\xc3"), header(idem.Header, "\x80nonce"), header(idem.Header, "nonce\xed\xa0\x80"))
}

func TestH37ControlCharactersInTheKeyAre400(t *testing.T) {
	t.Parallel()
	var values []string
	for c := range 0x20 {
		if c != '\t' && c != '\n' { // a blank, and the end of the line
			values = append(values, "nonce"+string(rune(c))+"1")
		}
	}
	newWorld(t).wantKeyRefusedByGo(append(values, "nonce\x7f1")...)
}

func TestH38KeyOfSQLIsStoredAsItStands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.counter()
	nonces := []string{
		`';--`, `';DROP/**/TABLE/**/payments;--`, `'`, `''`, `"`, `%`, `%%`, `_`, `\`, `\\`, `\'`, `$1`, `$$`, `?`, `:name`, `@name`, `/*`, `*/`, `%00`, `%2F`, `%252F`,
		`../../etc/passwd`, `a/b?c=d#e&f;g+h`, `<script>`, `{{7*7}}`, `${jndi:x}`, `null`, `0`, `.`, `..`, `/`, `//`, strings.Repeat(`'`, 64),
	}
	for i, nonce := range nonces {
		order := fmt.Sprint("order-", i)
		first := w.send(server, w.paying(nonce, w.body(order, nil)))
		w.wantCreated(first)
		w.wantReplay(first, w.send(server, w.paying(nonce, w.body(order, nil))), false)
		w.wantCharges(order, 1)
		if n := w.count(`SELECT count(*) FROM idempotency_keys k JOIN transactions t ON t.id = k.transaction_id WHERE k.key_id = $1 AND t.nonce = $1`, nonce); n != 1 {
			t.Errorf("%d records say %s", n, nonce)
		}
		for _, path := range []string{"/" + url.PathEscape(nonce), "?nonce=" + url.QueryEscape(nonce)} {
			r := w.send(server, w.paying("", nil).but(asking("/v1/idempotency-keys"+path)))
			if r.status != http.StatusOK || r.get("nonce") != nonce {
				t.Errorf("%s is looked up by %s as %s", nonce, path, r)
			}
		}
	}
	if n := w.count(`SELECT count(*) FROM payments`); n != len(nonces) {
		t.Errorf("%d payments, want %d", n, len(nonces))
	}
}

func TestH39BlanksAroundTheKeyDoNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.counter()
	body := w.body("order-1", nil)
	first := w.send(server, w.paying("", body).but(header(idem.Header, " \t nonce-1 \t ")))
	w.wantCreated(first)
	for _, value := range []string{"nonce-1", " nonce-1", "nonce-1 ", "\tnonce-1\t", strings.Repeat(" ", 100) + "nonce-1" + strings.Repeat("\t", 100), "\r\n nonce-1"} {
		w.wantReplay(first, w.send(server, w.paying("", body).but(header(idem.Header, value))), false)
	}
	w.wantReplay(first, w.send(server, w.paying("", body).but(header(idem.Header), raw("Idempotency-Key:nonce-1"))), false)
	if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'nonce-1'`); n != 1 {
		t.Errorf("%d records of the key without its blanks", n)
	}
	w.wantCharges("order-1", 1)
}

func TestH40KeyWithUnderscoresInItsNameIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.counter()
	l := w.paying("nonce-1", w.body("order-1", nil))
	before := w.footprint()
	for _, name := range []string{"X_Idempotency_Key", "Idempotency_Key", "X-Idempotency_Key", "HTTP_X_IDEMPOTENCY_KEY"} {
		r := w.send(server, l.but(header(idem.Header), raw(name+": nonce-1")))
		w.wantError(r, http.StatusBadRequest, "MISSING_PARAMETERS", missingRule)
	}
	w.wantUntouched(before)
	// Beside the real one it is not even looked at.
	w.wantCreated(w.send(server, l.but(raw("X_Idempotency_Key: another, and no nonce"))))
	if n := w.transactionsOf("nonce-1"); n != 1 {
		t.Errorf("%d transactions of the nonce", n)
	}
}

func TestH45NameTwiceInABodyIs400(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := string(w.body("order-1", nil))
	before := w.footprint()
	for _, c := range []struct{ old, twice, path string }{
		{`"amount":`, `"amount":{"currency":"USD","value":1},"amount":`, "$.amount"},
		{`"currency":"USD"`, `"currency":"USD","currency":"USD"`, "$.amount.currency"},
		{`"currency":"USD"`, `"currency":"USD","\u0063urrency":"EUR"`, "$.amount.currency"},
		{`"number":`, `"number":"4000000000000002","number":`, cardData + ".number"},
		{`"country":`, `"unknown":{"a":1,"a":2},"country":`, "$.unknown.a"}, // also where nobody reads
	} {
		sent := strings.Replace(body, c.old, c.twice, 1)
		if sent == body {
			t.Fatalf("%s is not in the body", c.old)
		}
		r := w.create("nonce-1", []byte(sent))
		w.wantError(r, http.StatusBadRequest, "INVALID_REQUEST", c.path+" must not appear twice in the same object")
		w.wantSilent(r, "4000000000000002")
		w.wantUntouched(before, "arrivals")
	}
	w.wantCreated(w.create("nonce-1", []byte(body)))
}

func TestH46NameInOtherLettersIsAnotherName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.edited(edit{"Amount", `{"currency":"EUR","value":1}`}, edit{"AMOUNT", `{"currency":"EUR","value":2}`}, edit{"Merchant_Order_Id", `"order-2"`})
	r := w.create("nonce-1", body)
	w.wantCreated(r)
	if r.get("amount", "value") != 45.67 || r.get("amount", "currency") != "USD" || r.get("merchant_order_id") != "order-1" {
		t.Errorf("a name in other letters was read: %s", r)
	}
	w.wantCharges("order-1", 1)
	before := w.footprint()
	r = w.create("nonce-2", bytes.Replace(w.body("order-3", nil), []byte(`"amount":`), []byte(`"Amount":`), 1))
	w.wantError(r, http.StatusBadRequest, "MISSING_PARAMETERS", "$.amount is required")
	w.wantUntouched(before, "arrivals")
}

func TestH47EscapesAreTheSameBodyAndAMarkOrATrailIsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	raw := bytes.Replace(w.body("order-1", nil), []byte("A test payment"), []byte("Un café 😀"), 1)
	escaped := bytes.Replace(raw, []byte("Un café 😀"), []byte(`Un caf\u00e9 \ud83d\ude00`), 1)
	escaped = bytes.Replace(escaped, []byte(`"description"`), []byte(`"\u0064escription"`), 1)
	before := w.footprint()
	for message, body := range map[string]string{
		"$ must not begin with a byte order mark": "\ufeff" + string(raw),
		"$ must not be followed by anything":      string(raw) + "{}",
	} {
		w.wantError(w.create("nonce-1", []byte(body)), http.StatusBadRequest, "INVALID_REQUEST", message)
		w.wantUntouched(before, "arrivals")
	}
	first := w.create("nonce-1", raw)
	w.wantCreated(first)
	if first.get("description") != "Un café 😀" {
		t.Errorf("the description is %v", first.get("description"))
	}
	w.wantReplay(first, w.create("nonce-1", escaped), false) // and nothing is said of another body
	decomposed := bytes.Replace(raw, []byte("café"), []byte("cafe\u0301"), 1)
	w.wantReplay(first, w.create("nonce-1", decomposed), true) // these are other characters
	w.wantCharges("order-1", 1)
}

func TestH50BodyAboveTheLimitIs413BeforeAnyRowAndOnAReplay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proxy := pgproxy.New(t, w.url)
	db, err := postgres.Open(t.Context(), proxy.URL(), pgtest.Options(proxy.URL(), postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	i := w.newInstance(db)
	body := w.body("order-1", nil)
	fill := bytes.Repeat([]byte(" "), httpapi.MaxBody-len(body))
	atLimit, above := append(slices.Clone(body), fill...), append(append(slices.Clone(body), fill...), ' ')

	before := w.footprint()
	proxy.Reset()
	refused := func() {
		t.Helper()
		r := w.createOn(i, w.test, "nonce-1", above)
		w.wantError(r, http.StatusRequestEntityTooLarge, "REQUEST_TOO_LARGE", tooLargeRule)
		w.wantNoReplay(r)
		if rounds := proxy.Rounds(); len(rounds) != 0 {
			t.Errorf("the database was asked: %v", rounds)
		}
	}
	refused()
	w.wantUntouched(before)
	first := w.createOn(i, w.test, "nonce-1", atLimit)
	w.wantCreated(first)
	proxy.Reset()
	refused()
	w.wantReplay(first, w.createOn(i, w.test, "nonce-1", body), false)
	w.wantCharges("order-1", 1)
}

// told is what a stranger can tell one refusal from another by.
func (r response) told() string {
	plain := bytes.ReplaceAll(r.body, []byte(r.header.Get(httpapi.HeaderRequestID)), []byte("id"))
	var lines []string
	for name, values := range r.header {
		if name != "Date" && name != httpapi.HeaderRequestID {
			lines = append(lines, fmt.Sprint(name, values))
		}
	}
	slices.Sort(lines)
	return fmt.Sprint(r.status, lines, string(plain))
}

func TestH53WrongCredentialsLearnNothingOfANonce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proxy := pgproxy.New(t, w.url)
	db, err := postgres.Open(t.Context(), proxy.URL(), pgtest.Options(proxy.URL(), postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	i := w.newInstance(db)
	body := w.body("order-1", nil)
	first := w.createOn(i, w.test, "known", body)
	w.wantCreated(first)
	before := w.footprint()
	proxy.Reset()

	known, nobody := w.test, merchants.NewKeyPair(merchants.Test)
	var refusals []string
	for _, pair := range []merchants.KeyPair{
		{PublicAPIKey: known.PublicAPIKey, PrivateSecretKey: nobody.PrivateSecretKey},
		{PublicAPIKey: known.PublicAPIKey, PrivateSecretKey: ""},
		{PublicAPIKey: known.PublicAPIKey, PrivateSecretKey: w.live.PrivateSecretKey},
		{PublicAPIKey: nobody.PublicAPIKey, PrivateSecretKey: known.PrivateSecretKey},
		{PublicAPIKey: nobody.PublicAPIKey, PrivateSecretKey: nobody.PrivateSecretKey},
		{PublicAPIKey: "", PrivateSecretKey: ""},
	} {
		for _, nonce := range []string{"known", "unheard-of"} {
			r := w.createOn(i, pair, nonce, body)
			w.wantError(r, http.StatusUnauthorized, "INVALID_CREDENTIALS", pairRule)
			w.wantNoReplay(r)
			refusals = append(refusals, r.told())
			for _, path := range []string{"/v1/idempotency-keys/" + nonce, "/v1/payments?merchant_order_id=order-1", "/v1/payments/" + fmt.Sprint(first.get("id"))} {
				refusals = append(refusals, w.call(http.MethodGet, i.public.URL+path, nil, keys(pair)...).told())
			}
		}
	}
	if distinct := slices.Compact(slices.Sorted(slices.Values(refusals))); len(distinct) != 1 {
		t.Errorf("%d refusals come in %d kinds: %q", len(refusals), len(distinct), distinct)
	}
	if rounds := proxy.Rounds(); len(rounds) != 0 {
		t.Errorf("the database was asked %d times", len(rounds))
	}
	w.wantUntouched(before)
	w.wantReplay(first, w.createOn(i, w.test, "known", body), false)
}

func TestH54RevokedKeyIsReplayedNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.body("order-1", nil)
	first := w.create("nonce-1", body)
	w.wantCreated(first)
	revoked := w.test
	fresh, err := w.auth.CreateKey(t.Context(), w.account, merchants.Test)
	if err != nil {
		t.Fatal(err)
	}
	w.sql(`UPDATE api_keys SET revoked_at = clock_timestamp(), changed_at = clock_timestamp() WHERE public_api_key = $1`, revoked.PublicAPIKey)
	if _, err := w.auth.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := w.footprint()
	r := w.createOn(w.instance, revoked, "nonce-1", body)
	w.wantError(r, http.StatusUnauthorized, "INVALID_CREDENTIALS", pairRule)
	w.wantNoReplay(r)
	unknown := w.createOn(w.instance, merchants.NewKeyPair(merchants.Test), "nonce-1", body)
	if r.told() != unknown.told() {
		t.Errorf("a revoked key is told %s, an unknown one %s", r.told(), unknown.told())
	}
	w.wantUntouched(before)
	w.wantReplay(first, w.createOn(w.instance, fresh, "nonce-1", body), false) // the merchant's other keys see what they saw
}

func TestH56ReplayRepeatsTheAnswerAndNotItsConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	public, _ := w.edges(w.instance, w.service.log)
	own := map[string]string{ // what something around the API may add to one answer
		"Date": "Thu, 01 Jan 1970 00:00:00 GMT", "Set-Cookie": "session=first", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"Via": "1.1 first", "Keep-Alive": "timeout=5", "Proxy-Authenticate": "Basic", "Age": "1", "Server": "first", "X-First": "first",
	}
	var calls atomic.Int32
	server := w.front(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			for name, value := range own {
				rw.Header().Set(name, value)
			}
		}
		public.ServeHTTP(rw, r)
	}))
	body := w.body("order-1", nil)
	first := w.send(server, w.paying("nonce-1", body).but(raw("X-Request-Id: the-first"), raw("Traceparent: "+own["Traceparent"]), raw("Cookie: a=b")))
	w.wantCreated(first)
	client := w.dial(server) // a connection that stays open, unlike the first one
	client.say(w.paying("nonce-1", body).but(raw("X-Request-Id: the-second")).String())
	again := client.hear(http.MethodPost)
	w.wantReplay(first, again, false)
	for name := range own {
		if got := again.header.Get(name); got == own[name] || got != "" && name != "Date" {
			t.Errorf("the replay repeats %s: %q", name, got)
		}
	}
	if at, err := http.ParseTime(again.header.Get("Date")); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("the replay is dated %q", again.header.Get("Date"))
	}
	if first.header.Get(httpapi.HeaderRequestID) != "the-first" || again.header.Get(httpapi.HeaderRequestID) != "the-second" || again.header.Get("Connection") != "" {
		t.Errorf("the replay has the headers %v", again.header)
	}
	// Apart from all that, the two have the same headers.
	for name := range own {
		first.header.Del(name)
		again.header.Del(name)
	}
	for _, name := range []string{httpapi.HeaderRequestID, headerReplayed, "Connection"} {
		first.header.Del(name)
		again.header.Del(name)
	}
	if !maps.EqualFunc(first.header, again.header, slices.Equal) {
		t.Errorf("the first answer has %v, the replay %v", first.header, again.header)
	}
}

// Whoever was refused for who they are, or for asking too often, has used up nothing.
func TestH57RefusalsOfTheCallerAreNeverStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	edge := httpapi.Options{Log: w.service.log, Transient: postgres.IsTransient, Describe: postgres.Describe, FailedAuth: 2}
	e := httpapi.New(edge)
	h := NewHandler(w.service, w.auth)
	h.LimitLookups(httpapi.NewLimiter(1))
	h.Mount(e)
	server := w.front(e)
	body := w.body("order-1", nil)
	good := w.paying("nonce-1", body)
	before := w.footprint()

	wrong := good.but(header("private-secret-key", w.live.PrivateSecretKey))
	for range 2 {
		w.want(w.send(server, wrong), http.StatusUnauthorized, "INVALID_CREDENTIALS")
	}
	for range 2 {
		r := w.send(server, wrong)
		w.want(r, http.StatusTooManyRequests, "RATE_LIMITED")
		if n, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || n < 1 || n > 60 {
			t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
		}
	}
	w.wantUntouched(before)
	// An unknown token is a 401 as well, told to somebody we know.
	w.want(w.send(server, good.but(text(string(w.edited(edit{"payment_method.token", `"unheard-of"`}))))), http.StatusUnauthorized, "INVALID_TOKEN")
	w.wantUntouched(before, "arrivals")

	first := w.send(server, good)
	w.wantCreated(first)
	w.want(w.send(server, wrong), http.StatusTooManyRequests) // nor do they get at what is stored
	lookup := good.but(asking("/v1/idempotency-keys/nonce-1"))
	w.want(w.send(server, lookup), http.StatusOK)
	w.want(w.send(server, lookup), http.StatusTooManyRequests, "RATE_LIMITED")
	w.wantReplay(first, w.send(server, good), false)
	if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE response_status <> 201`); n != 0 {
		t.Errorf("%d refusals are stored as answers", n)
	}
	w.wantCharges("order-1", 1)
}

func TestH59NoHeaderOfARequestMakesItHandled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.counter()
	flags := []change{
		raw(headerReplayed + ": true"), raw(headerMismatch + ": true"), raw("X-Oncepay-Handled: true"), raw("Oncepay.Caller: " + w.account.String()),
		raw("X-Account-Id: 00000000-0000-0000-0000-000000000000"), raw("X-Account-Code: 00000000-0000-0000-0000-000000000000"), raw("X-Mode: live"),
		raw("X-Http-Method-Override: GET"), raw("X-Original-Url: /v1/idempotency-keys/nonce-1"), raw("X-Rewrite-Url: /v1/nothing"), raw("X-Forwarded-For: 127.0.0.1"),
		raw("Idempotent-Verdict: replayed"), raw("Status: 201"), raw("X-Idempotency-Status: completed"), raw("X-Idempotency-Expiration: 0"),
	}
	l := w.paying("nonce-1", w.body("order-1", nil))
	first := w.send(server, l.but(flags...))
	w.wantCreated(first)
	if first.get("account_id") != w.account.String() {
		t.Errorf("the payment is of %v", first.get("account_id"))
	}
	w.wantCharges("order-1", 1)
	again := w.send(server, l.but(flags...))
	w.wantReplay(first, again, false)
	w.wantSends(1, 1)
	if tx := w.transaction("nonce-1"); tx.Mode != merchants.Test || tx.AccountID != w.account {
		t.Errorf("the transaction is in %s mode, of %s", tx.Mode, tx.AccountID)
	}
	// Nor does it get a refusal past the rules.
	before := w.footprint()
	r := w.send(server, l.but(append(flags, header(idem.Header, "nonce-2"), text("{}"))...))
	w.want(r, http.StatusBadRequest)
	w.wantNoReplay(r)
	w.wantUntouched(before, "arrivals")
	var envelope map[string]any
	if err := json.Unmarshal(r.body, &envelope); err != nil || envelope["code"] != "MISSING_PARAMETERS" {
		t.Errorf("got %s", r)
	}
}
