package console

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/operators"
)

// did writes n entries in somebody's name.
func (w *consoleUnderTest) did(n int, name, action, target string) {
	w.t.Helper()
	ctx := audit.By(w.t.Context(), audit.Actor{Kind: audit.KindOperator, ID: uuid.NewString(), Name: name, Address: "192.0.2.7"})
	for range n {
		if err := w.handler.o.Audit.Append(ctx, audit.Entry{Action: action, Target: target}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestAuditPageTellsWhoDidWhat(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Admin)
	path := merchantPath(w.account)
	b.post(path, sent("name", "Second name", "policy", "yuno", "shown", merchantDigest(w.merchant(w.account)))).leads(t, path+"?done=merchant-updated")
	e := w.wantEntry(b, "merchant.updated", "merchant/"+w.account.String())
	b.get(pathAudit).want(t, http.StatusOK,
		"merchant.updated", "<del>First merchant</del>", "<ins>Second name</ins>", `href="`+path+`"`, "127.0.0.1", e.Actor.RequestID,
		`href="/audit?actor=admin"`, `href="/audit?target=merchant%2F`+w.account.String()+`"`, keyPath(w.account, w.keys.ID), "system")
	w.as(operators.Viewer).get(pathAudit).want(t, http.StatusOK, "merchant.updated").lacks(t, `href="/operators/`)
}

func TestAuditPageIsFilteredAndGoesOn(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	w.did(auditLimit+3, "ada", "key.rotated", "key/"+w.keys.ID.String())
	w.did(2, "bob", "key.revoked", "key/"+w.keys.ID.String())
	count := func(a answer) int { return strings.Count(a.want(t, http.StatusOK).body, `<th scope="row"`) }
	for query, want := range map[string]int{
		"?actor=ada":                                  auditLimit,
		"?actor=bob":                                  2,
		"?actor=nobody-is-called-so":                  0,
		"?action=key.revoked":                         2,
		"?target=key/" + w.keys.ID.String():           auditLimit,
		"?account=" + w.account.String():              2, // it was made, and its key
		"?account=" + uuid.NewString():                0,
		"?actor=bob&action=key.revoked":               2,
		"?actor=ada&action=key.revoked":               0,
		"?actor=+bob+&target=key/" + uuid.NewString(): 0,
		"?before=3":                                   2,
	} {
		if got := count(b.get(pathAudit + query)); got != want {
			t.Errorf("%s shows %d entries, not %d", query, got, want)
		}
	}
	a := b.get(pathAudit + "?actor=ada")
	older := strings.ReplaceAll(a.find(t, `/audit\?actor=ada&amp;before=\d+`), "&amp;", "&")
	if got := count(b.get(older).want(t, http.StatusOK, `href="/audit?actor=ada">To the newest`)); got != 3 {
		t.Errorf("the next page has %d", got)
	}
}

// Nothing in the log matches, and it is long: the page says how far it looked.
func TestAuditPageSaysHowFarItLooked(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	w.sql(`INSERT INTO audit_entries (seq, at, actor_kind, actor_id, actor, address, request_id, action, target, details, previous_hash, hash)
		SELECT n, now(), 'system', '', 'system', '', '', 'x.y', 'x/y', '{}', sha256(''), sha256('') FROM generate_series(1000, 3500) n`)
	a := b.get(pathAudit+"?action=none").want(t, http.StatusOK, "Nothing matches down to entry", "Look further")
	older := strings.ReplaceAll(a.find(t, `/audit\?action=none&amp;before=\d+`), "&amp;", "&")
	b.get(older).want(t, http.StatusOK, "Nothing matches.").lacks(t, "Look further")
}

func TestAuditPageNamesTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	for query, want := range map[string]string{
		"?account=x-marks-the-spot":                "the account must be an id of 36 characters",
		"?before=x-marks-the-spot":                 "before must be the number of an entry",
		"?before=0":                                "before must be the number of an entry",
		"?before=-1":                               "before must be the number of an entry",
		"?before=9999999999999999999":              "before must be the number of an entry",
		"?account={" + w.account.String() + "}":    "the account must be an id of 36 characters",
		"?account=urn:uuid:" + w.account.String():  "the account must be an id of 36 characters",
		"?target=x&actor=y&account=" + "z&before=": "the account must be an id of 36 characters",
	} {
		b.get(pathAudit+query).want(t, http.StatusBadRequest, want, "Verify the chain")
	}
}

func TestTargetsLeadToTheirPages(t *testing.T) {
	t.Parallel()
	id, account := uuid.New(), uuid.New()
	for _, c := range []struct {
		target  string
		account uuid.UUID
		role    operators.Role
		want    string
	}{
		{"merchant/" + id.String(), uuid.Nil, operators.Viewer, "/merchants/" + id.String()},
		{"key/" + id.String(), account, operators.Viewer, "/merchants/" + account.String() + "/keys/" + id.String()},
		{"key/" + id.String(), uuid.Nil, operators.Viewer, ""},
		{"payment/" + id.String(), account, operators.Viewer, "/payments/" + id.String()},
		{"transaction/" + id.String(), account, operators.Viewer, "/transactions/" + id.String()},
		{"operator/ada@example.org", uuid.Nil, operators.Admin, "/operators/ada@example.org"},
		{"operator/ada", uuid.Nil, operators.Operator, ""},
		{"operator/", uuid.Nil, operators.Admin, ""},
		{"operator/../tokens", uuid.Nil, operators.Admin, "/operators/..%2Ftokens"},
		{"token/" + id.String(), uuid.Nil, operators.Admin, "/operators#token-" + id.String()},
		{"token/" + id.String(), uuid.Nil, operators.Viewer, ""},
		{"merchant/x", uuid.Nil, operators.Admin, ""},
		{"javascript:alert(1)", uuid.Nil, operators.Admin, ""},
		{"", uuid.Nil, operators.Admin, ""},
	} {
		r := audit.Record{Entry: audit.Entry{Target: c.target, AccountID: c.account}}
		if got := targetPath(r, c.role); got != c.want {
			t.Errorf("%s leads a %s to %q, not %q", c.target, c.role, got, c.want)
		}
	}
}

func TestFactsAreShownWithWhatWasThereBefore(t *testing.T) {
	t.Parallel()
	got := auditFacts(map[string]string{"b": "2", "b_before": "1", "a": "x", "gone_before": "y"})
	want := []auditFact{{"a", "x", "", false}, {"b", "2", "1", true}, {"gone_before", "y", "", false}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	if auditFacts(nil) != nil {
		t.Error("nothing has facts")
	}
}

func TestChainIsVerifiedByAViewer(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	path := pathAudit + "/verify"
	head := b.post(path, sent()).want(t, http.StatusOK, "The chain is whole").find(t, `\d+:[0-9a-f]{64}`)
	b.post(path, sent("anchor", " "+head+" ")).want(t, http.StatusOK, "The chain is whole")
	other := head[:len(head)-1] + strconv.Itoa((int(head[len(head)-1])+1)%10)
	b.post(path, sent("anchor", other)).want(t, http.StatusOK, "The chain is broken", "anchor")
	for _, anchor := range []string{"x-marks-the-spot", "1", "1:", ":" + head, head + "0"} {
		b.post(path, sent("anchor", anchor)).want(t, http.StatusBadRequest, "the anchor must be the number of an entry")
	}

	w.sql(`ALTER TABLE audit_entries DISABLE TRIGGER ALL`)
	w.sql(`UPDATE audit_entries SET actor = 'somebody else' WHERE seq = 2`)
	b.post(path, sent()).want(t, http.StatusOK, "The chain is broken at entry 2", "The entry before it is as it was written").lacks(t, "The chain is whole")
	w.nobody().post(path, sent()).leads(t, pathSignIn)
}

func TestCheckEndsInTimeAndOneGoesOnAtATime(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	a := &auditHandler{w.handler, make(chan struct{}, 1), time.Nanosecond}
	post := func() answer {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, pathAudit+"/verify", nil)
		rec := httptest.NewRecorder()
		if err := a.verify(echo.New().NewContext(r, rec)); err != nil {
			t.Fatal(err)
		}
		return answer{rec.Code, rec.Header(), rec.Body.String()}
	}
	post().want(t, http.StatusOK, "There was time for 0 of", "payments audit verify").lacks(t, "The chain is whole", "The chain is broken")
	a.checking <- struct{}{}
	post().want(t, http.StatusConflict, "somebody else is checking the chain")
	<-a.checking
	a.limit = verifyFor
	post().want(t, http.StatusOK, "The chain is whole")
}
