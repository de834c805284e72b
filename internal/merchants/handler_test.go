package merchants

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/postgres"
)

// operator is the operator's API over a bench, without its token: package admin
// has tests of that.
type operator struct {
	*bench
	server *httptest.Server
	logs   *bytes.Buffer // read it only when no request runs
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{bench: newBench(t), logs: &bytes.Buffer{}}
	e := httpapi.New(httpapi.Options{Log: slog.New(slog.NewJSONHandler(o.logs, nil)), Transient: postgres.IsTransient, Describe: postgres.Describe})
	NewOperatorHandler(o.Service).Mount(e.Group("/admin/v1"))
	o.server = httptest.NewServer(apitest.Handler(t, e))
	t.Cleanup(o.server.Close)
	return o
}

func (o *operator) post(path, body string) (status int, answer []byte) {
	o.t.Helper()
	status, answer, _ = o.ask(http.MethodPost, path, body)
	return status, answer
}

// ask sends one request. link is where the next page is.
func (o *operator) ask(method, path, body string) (status int, answer []byte, link string) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.server.URL+path, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer a token") // package admin looks at it
	res, err := o.server.Client().Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if answer, err = io.ReadAll(res.Body); err != nil {
		o.t.Fatal(err)
	}
	link, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
	return res.StatusCode, answer, link
}

func TestOperatorMakesAMerchantThatCanCallAtOnce(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	status, answer := o.post("/admin/v1/merchants", `{"name":"Müller & Söhne <shop>","idempotency_policy":"yuno","unknown":[1]}`)
	var made struct {
		AccountID         string   `json:"account_id"`
		Name              string   `json:"name"`
		IdempotencyPolicy string   `json:"idempotency_policy"`
		Origins           []string `json:"origins"`
		APIKey            shownKey `json:"api_key"`
	}
	d := json.NewDecoder(bytes.NewReader(answer))
	d.DisallowUnknownFields()
	if err := d.Decode(&made); err != nil || status != http.StatusCreated {
		t.Fatalf("got %d (%v)", status, err)
	}
	account, err := uuid.Parse(made.AccountID)
	if err != nil || account.Version() != 7 || made.Name != "Müller & Söhne <shop>" || made.IdempotencyPolicy != "yuno" || made.APIKey.Mode != Test {
		t.Errorf("made account %s, %q, policy %s, mode %s (%v)", made.AccountID, made.Name, made.IdempotencyPolicy, made.APIKey.Mode, err)
	}
	o.wantCaller(o.Service, made.APIKey.KeyPair, account, Test)
	if strings.Contains(o.logs.String(), made.APIKey.PrivateSecretKey) {
		t.Error("the log shows the secret")
	}

	status, answer = o.post("/admin/v1/merchants", `{"name":"Second"}`)
	if err := json.Unmarshal(answer, &made); err != nil || status != http.StatusCreated || made.IdempotencyPolicy != "yuno" {
		t.Errorf("a merchant who chose no policy has %q (%d, %v), want the default", made.IdempotencyPolicy, status, err)
	}
}

func TestOperatorMakesMoreKeys(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, first := o.made("First")
	for _, mode := range []string{Live, Test} {
		status, answer := o.post("/admin/v1/merchants/"+m.AccountID.String()+"/keys", `{"mode":"`+mode+`"}`)
		var pair shownKey
		d := json.NewDecoder(bytes.NewReader(answer))
		d.DisallowUnknownFields()
		if err := d.Decode(&pair); err != nil || status != http.StatusCreated || pair.Mode != mode {
			t.Fatalf("got %d (%v), mode %q", status, err, pair.Mode)
		}
		o.wantCaller(o.Service, pair.KeyPair, m.AccountID, mode)
		if strings.Contains(o.logs.String(), pair.PrivateSecretKey) {
			t.Error("the log shows the secret")
		}
	}
	o.wantCaller(o.Service, first, m.AccountID, Test) // and the older key is as good as before
}

func TestOperatorsMistakesAreToldByPlaceAndRule(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, pair := o.made("First")
	keys := "/admin/v1/merchants/" + m.AccountID.String() + "/keys"
	rotate := keys + "/" + pair.ID.String() + "/rotate"
	for _, c := range []struct {
		path, body string
		status     int
		code       string
		message    string
	}{
		{"/admin/v1/merchants", ``, 400, "INVALID_REQUEST", "$ must not be empty"},
		{"/admin/v1/merchants", `geheim`, 400, "INVALID_REQUEST", "$ must be well-formed JSON"},
		{"/admin/v1/merchants", `["geheim"]`, 400, "INVALID_REQUEST", "$ must be an object"},
		{"/admin/v1/merchants", `"geheim"`, 400, "INVALID_REQUEST", "$ must be an object"},
		{"/admin/v1/merchants", `{}`, 400, "MISSING_PARAMETERS", "$.name is required"},
		{"/admin/v1/merchants", `{"name":null}`, 400, "MISSING_PARAMETERS", "$.name is required"},
		{"/admin/v1/merchants", `{"Name":"geheim"}`, 400, "MISSING_PARAMETERS", "$.name is required"},
		{"/admin/v1/merchants", `{"name":4711471147114711}`, 400, "INVALID_PARAMETERS", "$.name must be a string"},
		{"/admin/v1/merchants", `{"name":""}`, 400, "INVALID_PARAMETERS", "$.name must have 1 to 255 characters"},
		{"/admin/v1/merchants", `{"name":" "}`, 400, "INVALID_PARAMETERS", "$.name must have 1 to 255 characters"},
		{"/admin/v1/merchants", `{"name":"` + strings.Repeat("g", 256) + `"}`, 400, "INVALID_PARAMETERS", "$.name must have 1 to 255 characters"},
		{"/admin/v1/merchants", `{"name":"a","name":"b"}`, 400, "INVALID_REQUEST", "$.name must not appear twice in the same object"},
		{"/admin/v1/merchants", `{"name":"a","idempotency_policy":"geheim"}`, 400, "INVALID_PARAMETERS", "$.idempotency_policy must be yuno, novu, fyno or ietf"},
		{"/admin/v1/merchants", `{"name":"a","idempotency_policy":["ietf"]}`, 400, "INVALID_PARAMETERS", "$.idempotency_policy must be yuno, novu, fyno or ietf"},
		{keys, `{}`, 400, "MISSING_PARAMETERS", "$.mode is required"},
		{keys, `{"mode":true}`, 400, "INVALID_PARAMETERS", "$.mode must be a string"},
		{keys, `{"mode":"geheim"}`, 400, "INVALID_PARAMETERS", "$.mode must be test or live"},
		{keys, `{"mode":"LIVE"}`, 400, "INVALID_PARAMETERS", "$.mode must be test or live"},
		{keys, `[]`, 400, "INVALID_REQUEST", "$ must be an object"},
		{keys, `{"mode":"test","allowed_networks":"geheim"}`, 400, "INVALID_PARAMETERS", "$.allowed_networks must be a list of 1 to 50 networks, or null"},
		{keys, `{"mode":"test","allowed_networks":[]}`, 400, "INVALID_PARAMETERS", "$.allowed_networks must be a list of 1 to 50 networks, or null"},
		{keys, `{"mode":"test","allowed_networks":["192.0.2.1"` + strings.Repeat(`,"192.0.2.1"`, 50) + `]}`, 400, "INVALID_PARAMETERS", "$.allowed_networks must be a list of 1 to 50 networks, or null"},
		{keys, `{"mode":"test","allowed_networks":["192.0.2.1","geheim"]}`, 400, "INVALID_PARAMETERS", "$.allowed_networks[1] must be a network such as 203.0.113.0/24 or 2001:db8::/32, or an address"},
		{keys, `{"mode":"test","allowed_networks":[4711471147114711]}`, 400, "INVALID_PARAMETERS", "$.allowed_networks[0] must be a network such as 203.0.113.0/24 or 2001:db8::/32, or an address"},
		{rotate, `{"overlap_seconds":-1}`, 400, "INVALID_PARAMETERS", "$.overlap_seconds must be a whole number from 0 to 2592000"},
		{rotate, `{"overlap_seconds":2592001}`, 400, "INVALID_PARAMETERS", "$.overlap_seconds must be a whole number from 0 to 2592000"},
		{rotate, `{"overlap_seconds":9223372036854775807}`, 400, "INVALID_PARAMETERS", "$.overlap_seconds must be a whole number from 0 to 2592000"},
		{rotate, `{"overlap_seconds":-9223372036854775808}`, 400, "INVALID_PARAMETERS", "$.overlap_seconds must be a whole number from 0 to 2592000"},
		{rotate, `{"overlap_seconds":1.5}`, 400, "INVALID_PARAMETERS", "$.overlap_seconds must be a whole number from 0 to 2592000"},
		{rotate, `{"overlap_seconds":"geheim"}`, 400, "INVALID_PARAMETERS", "$.overlap_seconds must be a whole number from 0 to 2592000"},
		{rotate, `[]`, 400, "INVALID_REQUEST", "$ must be an object"},
		{keys + "/geheim/rotate", `{}`, 404, "NOT_FOUND", "this merchant has no key with this id"},
		{keys + "/" + uuid.NewString() + "/rotate", `{}`, 404, "NOT_FOUND", "this merchant has no key with this id"},
		{keys + "/" + pair.ID.String() + "/revoke", `["geheim"]`, 400, "INVALID_REQUEST", "$ must be an object"},
		{"/admin/v1/merchants/" + m.AccountID.String() + "/disable", `geheim`, 400, "INVALID_REQUEST", "$ must be well-formed JSON"},
		{keys + "/geheim/revoke", ``, 404, "NOT_FOUND", "this merchant has no key with this id"},
		{keys + "/" + uuid.NewString() + "/revoke", ``, 404, "NOT_FOUND", "this merchant has no key with this id"},
		{"/admin/v1/merchants/geheim/disable", ``, 404, "NOT_FOUND", "there is no merchant with this account_id"},
		{"/admin/v1/merchants/" + uuid.NewString() + "/enable", ``, 404, "NOT_FOUND", "there is no merchant with this account_id"},
		{"/admin/v1/merchants/geheim/keys", `{"mode":"test"}`, 404, "NOT_FOUND", "there is no merchant with this account_id"},
		{"/admin/v1/merchants/" + uuid.NewString() + "/keys", `{"mode":"test"}`, 404, "NOT_FOUND", "there is no merchant with this account_id"},
	} {
		status, answer := o.post(c.path, c.body)
		var e struct {
			Code     string   `json:"code"`
			Messages []string `json:"messages"`
		}
		if err := json.Unmarshal(answer, &e); err != nil {
			t.Fatalf("%s %s: %v", c.path, c.body, err)
		}
		if status != c.status || e.Code != c.code || !slices.Equal(e.Messages, []string{c.message}) {
			t.Errorf("%s %.60s: got %d %s %q, want %d %s: %s", c.path, c.body, status, e.Code, e.Messages, c.status, c.code, c.message)
		}
		if bytes.Contains(answer, []byte("geheim")) || bytes.Contains(answer, []byte("4711471147114711")) {
			t.Errorf("%s %s: the answer repeats what was sent", c.path, c.body)
		}
	}
	var merchants, pairs int
	if err := o.db.Conn(t.Context()).Raw(`SELECT (SELECT count(*) FROM merchants), (SELECT count(*) FROM api_keys)`).Row().Scan(&merchants, &pairs); err != nil {
		t.Fatal(err)
	}
	if merchants != 1 || pairs != 1 {
		t.Errorf("%d merchants with %d keys are there, want the first one with its one", merchants, pairs)
	}
	if strings.Contains(o.logs.String(), "geheim") {
		t.Error("the log shows what was sent")
	}
}

// A name that PostgreSQL counts otherwise than we do would be an error of ours.
func TestLongestNameFitsTheDatabase(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	for _, name := range []string{strings.Repeat("é", 255), strings.Repeat("😀", 255), strings.Repeat("e\u0301", 127) + "x"} {
		if status, answer := o.post("/admin/v1/merchants", `{"name":"`+name+`"}`); status != http.StatusCreated {
			t.Errorf("a name of 255 characters: got %d %.200s", status, answer)
		}
	}
}

// A key is shown once, so it must not be shown before it is kept.
func TestOperatorIsShownNoKeyThatWasNotStored(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, _ := o.made("First")
	o.db.Close()
	for path, body := range map[string]string{
		"/admin/v1/merchants": `{"name":"Second"}`, "/admin/v1/merchants/" + m.AccountID.String() + "/keys": `{"mode":"live"}`,
	} {
		if status, answer := o.post(path, body); status < http.StatusInternalServerError || bytes.Contains(answer, []byte(secretLabel)) {
			t.Errorf("%s: got %d", path, status)
		}
	}
}

// decoded reads an answer into v, which must know all of it.
func (o *operator) decoded(status, want int, answer []byte, v any) {
	o.t.Helper()
	d := json.NewDecoder(bytes.NewReader(answer))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil || status != want {
		o.t.Fatalf("got %d %.300s (%v), want %d", status, answer, err, want)
	}
}

func TestOperatorLooksAfterAKeyFromItsMakingToItsEnd(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, _ := o.made("First")
	keys := "/admin/v1/merchants/" + m.AccountID.String() + "/keys"
	status, answer := o.post(keys, `{"mode":"live","allowed_networks":["203.0.113.7/24","::ffff:192.0.2.1","192.0.2.1"]}`)
	var made shownKey
	o.decoded(status, http.StatusCreated, answer, &made)
	if want := `"allowed_networks":["192.0.2.1/32","203.0.113.0/24"]`; !bytes.Contains(answer, []byte(want)) {
		t.Errorf("made %s, want %s", answer, want)
	}
	secrets := []string{made.PrivateSecretKey}
	made.KeyPair.ID = uuid.MustParse(made.ID)
	o.wantCaller(o.Service, made.KeyPair, m.AccountID, Live) // from an address that is on the list

	key := keys + "/" + made.KeyPair.ID.String()
	var k wireKey
	status, answer, _ = o.ask(http.MethodPatch, key, `{"allowed_networks":["198.51.100.0/24"]}`)
	o.decoded(status, http.StatusOK, answer, &k)
	if k.Status != Active || len(k.AllowedNetworks) != 1 || k.ID != made.KeyPair.ID.String() || k.PublicAPIKey != made.PublicAPIKey {
		t.Errorf("restricted, the key is %s", answer)
	}
	for body, message := range map[string]string{
		`{}`: "$.allowed_networks is required; null takes the list away", `{"allowed_networks":7}`: "$.allowed_networks must be a list of 1 to 50 networks, or null",
	} {
		if status, answer, _ := o.ask(http.MethodPatch, key, body); status != http.StatusBadRequest || !bytes.Contains(answer, []byte(message)) {
			t.Errorf("PATCH %s: %d %s", body, status, answer)
		}
	}
	status, answer, _ = o.ask(http.MethodPatch, key, `{"allowed_networks":null}`)
	o.decoded(status, http.StatusOK, answer, &k)
	if k.AllowedNetworks != nil || !bytes.Contains(answer, []byte(`"allowed_networks":null`)) {
		t.Errorf("without its list, the key is %s", answer)
	}

	var rotated struct {
		shownKey
		Replaces wireKey `json:"replaces"`
	}
	status, answer = o.post(key+"/rotate", ``) // as good as {}
	o.decoded(status, http.StatusCreated, answer, &rotated)
	secrets = append(secrets, rotated.PrivateSecretKey)
	ends, err := time.Parse(time.RFC3339, *rotated.Replaces.ExpiresAt)
	if left := time.Until(ends); err != nil || left > DefaultOverlap+time.Minute || left < DefaultOverlap-time.Minute || rotated.Replaces.Status != Expiring || rotated.Mode != Live {
		t.Errorf("rotated: %s", answer)
	}
	o.wantCaller(o.Service, made.KeyPair, m.AccountID, Live)
	o.wantCaller(o.Service, rotated.KeyPair, m.AccountID, Live)
	if status, answer := o.post(key+"/rotate", `{"overlap_seconds":1}`); status != http.StatusConflict || !bytes.Contains(answer, []byte(`"INVALID_STATE"`)) {
		t.Errorf("rotated again: %d %s", status, answer)
	}
	for range 2 {
		status, answer = o.post(key+"/revoke", `{}`) // as good as nothing
		o.decoded(status, http.StatusOK, answer, &k)
		if k.Status != Revoked || k.RevokedAt == nil {
			t.Errorf("revoked: %s", answer)
		}
	}
	o.wantStranger(o.Service, made.PublicAPIKey, made.PrivateSecretKey)
	o.wantCaller(o.Service, rotated.KeyPair, m.AccountID, Live)
	o.flush(o.Service)

	var listed []wireKey
	status, answer, link := o.ask(http.MethodGet, keys, "")
	o.decoded(status, http.StatusOK, answer, &listed)
	if len(listed) != 3 || link != "" || listed[0].ID != rotated.ID || listed[0].LastUsedAt == nil || listed[1].Status != Revoked || listed[2].LastUsedAt != nil {
		t.Errorf("listed: %s, next %q", answer, link)
	}
	for _, secret := range secrets {
		if bytes.Contains(answer, []byte(secret)) || strings.Contains(o.logs.String(), secret) {
			t.Error("the list or the log shows a secret")
		}
	}
}

func TestOperatorDisablesAndEnablesAMerchant(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	m, pair := o.made("First")
	merchant := "/admin/v1/merchants/" + m.AccountID.String()
	for _, step := range []struct {
		action   string
		disabled bool
	}{{"disable", true}, {"disable", true}, {"enable", false}, {"enable", false}} {
		var told, found wireMerchant
		status, answer := o.post(merchant+"/"+step.action, "")
		o.decoded(status, http.StatusOK, answer, &told)
		status, answer, _ = o.ask(http.MethodGet, merchant, "")
		o.decoded(status, http.StatusOK, answer, &found)
		if (told.DisabledAt != nil) != step.disabled || (found.DisabledAt != nil) != step.disabled || found.Name != "First" || found.AccountID != m.AccountID.String() {
			t.Errorf("after %s: %s", step.action, answer)
		}
		if step.disabled {
			o.wantStranger(o.Service, pair.PublicAPIKey, pair.PrivateSecretKey)
		} else {
			o.wantCaller(o.Service, pair, m.AccountID, Test)
		}
	}
	for path, message := range map[string]string{
		"/admin/v1/merchants/geheim": "there is no merchant with this account_id", "/admin/v1/merchants/" + uuid.NewString(): "there is no merchant with this account_id",
		"/admin/v1/merchants/" + uuid.NewString() + "/keys": "there is no merchant with this account_id",
	} {
		if status, answer, _ := o.ask(http.MethodGet, path, ""); status != http.StatusNotFound || !bytes.Contains(answer, []byte(message)) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
}

// Both lists are read page by page, the newest first, each entry once.
func TestOperatorsListsHavePages(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	var merchants, keys []string
	var last Merchant
	for range 5 {
		m, pair := o.made("Merchant")
		last, keys = m, []string{pair.ID.String()}
		merchants = append(merchants, m.AccountID.String())
	}
	for range 4 {
		pair, err := o.CreateKey(t.Context(), last.AccountID, Live)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, pair.ID.String())
	}
	slices.Reverse(merchants)
	slices.Reverse(keys)
	for path, want := range map[string][]string{"/admin/v1/merchants": merchants, "/admin/v1/merchants/" + last.AccountID.String() + "/keys": keys} {
		for _, limit := range []int{1, 2, 4, 5, 100} {
			var got []string
			for next := fmt.Sprintf("%s?limit=%d", path, limit); next != ""; {
				var page []struct {
					ID        string `json:"id"`
					AccountID string `json:"account_id"`
				}
				status, answer, link := o.ask(http.MethodGet, next, "")
				if err := json.Unmarshal(answer, &page); err != nil || status != http.StatusOK || len(page) > limit || len(page) == 0 {
					t.Fatalf("%s: %d, %d entries (%v)", next, status, len(page), err)
				}
				for _, e := range page {
					got = append(got, cmp.Or(e.ID, e.AccountID))
				}
				next = link
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s by %d: %q, want %q", path, limit, got, want)
			}
		}
		for _, query := range []string{"?limit=0", "?limit=101", "?limit=x", "?after=x"} {
			if status, answer, _ := o.ask(http.MethodGet, path+query, ""); status != http.StatusBadRequest || !bytes.Contains(answer, []byte("INVALID_PARAMETERS")) {
				t.Errorf("%s%s: %d %s", path, query, status, answer)
			}
		}
	}
}
