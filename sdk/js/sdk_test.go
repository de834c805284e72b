package js_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/oncepay/oncepay/internal/checkout"
	js "github.com/oncepay/oncepay/sdk/js"
)

// maxSDK is how much a merchant's page may have to load for us, packed, in bytes.
const maxSDK = 15 << 10

func TestTheSDKIsSmall(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(js.SDK); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Len() > maxSDK {
		t.Errorf("the SDK has %d bytes, packed", b.Len())
	}
}

// TestTheDocsHaveTheSDKsIntegrity: a wrong one stops every page that copied it.
func TestTheDocsHaveTheSDKsIntegrity(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"../../docs/reference/sdk-js.md", "../../docs/start/checkout.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`sha384-[A-Za-z0-9+/=]{60,}`).FindAllString(string(text), -1) {
			if found != checkout.Integrity() {
				t.Errorf("%s has the integrity of another build; this one's is %s", page, checkout.Integrity())
			}
		}
		if page == "../../docs/reference/sdk-js.md" && !strings.Contains(string(text), checkout.Integrity()) {
			t.Errorf("%s does not have the SDK's integrity, %s", page, checkout.Integrity())
		}
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
}

// TestAnyPageMayLoadTheSDK, keep it, and know it again.
func TestAnyPageMayLoadTheSDK(t *testing.T) {
	t.Parallel()
	a := newFakeAPI(t, "SDK_SEAMLESS")
	get := func(path, tag string) (answer, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-None-Match", tag)
		res, err := a.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer{res.StatusCode, res.Header}, body
	}
	for path, want := range map[string][]byte{"/sdk/v1/oncepay.js": js.SDK, "/sdk/v1/oncepay.d.ts": js.Types} {
		res, body := get(path, "")
		if res.status != http.StatusOK || !bytes.Equal(body, want) {
			t.Errorf("%s: %d, %d bytes", path, res.status, len(body))
		}
		for name, value := range map[string]string{"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"} {
			if got := res.header.Get(name); got != value {
				t.Errorf("%s: %s: %q", path, name, got)
			}
		}
		if again, body := get(path, "W/"+res.header.Get("ETag")); again.status != http.StatusNotModified || len(body) != 0 {
			t.Errorf("%s: asked again with its tag, it is %d", path, again.status)
		}
	}
	_, body := get("/sdk/v1/integrity.json", "")
	var told struct{ URL, Integrity string }
	if err := json.Unmarshal(body, &told); err != nil || told.Integrity != checkout.Integrity() || told.URL != "/sdk/v1/oncepay.js" {
		t.Errorf("integrity.json says %s, %v", body, err)
	}
	_, page := get("/pay/"+a.session.ID.String(), "")
	assets := regexp.MustCompile(`/pay/assets/[a-z]+\.([0-9a-f]{16})\.[a-z]+`).FindAllSubmatch(page, -1)
	if len(assets) != 3 {
		t.Fatalf("the page has %d files", len(assets))
	}
	for _, m := range assets {
		res, _ := get(string(m[0]), "")
		if res.status != http.StatusOK || !strings.Contains(res.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d, %s", m[0], res.status, res.header.Get("Cache-Control"))
		}
		// Another instance's name for it, while they are upgraded.
		res, _ = get(strings.Replace(string(m[0]), string(m[1]), "0123456789abcdef", 1), "")
		if res.status != http.StatusOK || res.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s under an older name: %d, %s", m[0], res.status, res.header.Get("Cache-Control"))
		}
	}
	for _, path := range []string{"/pay/assets/page.html", "/pay/assets/other.0123456789abcdef.js", "/pay/assets/pay.js"} {
		if res, _ := get(path, ""); res.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, res.status)
		}
	}
}

// TestEveryTextIsInEveryLanguage, and says the amount where the others do.
func TestEveryTextIsInEveryLanguage(t *testing.T) {
	b := modules(t)
	for _, wrong := range eval[[]string](b, `["en", "es", "pt"].flatMap((l) => Object.entries(T.textsOf("en")).filter(([k, v]) =>
		!T.textsOf(l)[k] || T.textsOf(l)[k].includes("{amount}") !== v.includes("{amount}") || (l !== "en" && T.textsOf(l)[k] === v)).map(([k]) => l + " " + k))`) {
		t.Error(wrong)
	}
}

// modules is a page that has our modules as T, to ask them one by one.
func modules(t *testing.T) *tab {
	t.Helper()
	result := api.Build(api.BuildOptions{
		Stdin: &api.StdinOptions{
			Contents:   lines(`export * from "./attempt"`, `export * from "./backoff"`, `export * from "./api"`, `export * from "./messages"`, `export * from "./pay/card"`, `export * from "./pay/texts"`),
			ResolveDir: "src", Loader: api.LoaderTS,
		},
		Bundle: true, Format: api.FormatIIFE, GlobalName: "T", Target: api.ES2020,
	})
	if len(result.Errors) > 0 {
		t.Fatal(result.Errors)
	}
	b := newTab(t)
	b.goTo(newFakeAPI(t, "SDK_SEAMLESS").URL + "/bank")
	eval[bool](b, string(result.OutputFiles[0].Contents)+"; window.T = T; true")
	return b
}

// TestTheRules of the modules, as a table: a script, and what it comes to as JSON.
func TestTheRules(t *testing.T) {
	b := modules(t)
	for script, want := range map[string]string{
		// Brands, as the server has them.
		`["4507", "5252", "2221", "2720", "2721", "37", "36", "300", "306", "3528", "6011", "65", "62", "11", "9", ""].map(T.brandOf)`:                                                                                          `["VISA","MASTERCARD","MASTERCARD","MASTERCARD","","AMEX","DINERS","DINERS","","JCB","DISCOVER","DISCOVER","UNIONPAY","UATP","",""]`,
		`[T.group("4507990000000002"), T.group("370000000000002"), T.group("45079"), T.group("")]`:                                                                                                                              `["4507 9900 0000 0002","3700 000000 00002","4507 9",""]`,
		`[T.luhn("4111111111111111"), T.luhn("4507990000000003"), T.luhn("378282246310005")]`:                                                                                                                                   `[true,false,true]`,
		`[["4507990000000002", false], ["4507990000000003", true], ["4111111111111111", true], ["41111111111", false], ["41111111111111111111", false], ["411111111111116", true]].map(([n, live]) => T.numberIsGood(n, live))`: `[true,false,true,false,false,false]`,
		`["11/28", "1/28", "11 / 2028", "1128", "112028", "13/28", "00/28", "1", "", "11/1999"].map(T.readExpiry).map((e) => e && e.month + "-" + e.year)`:                                                                      `["11-2028","1-2028","11-2028","11-2028","11-2028",null,null,null,null,null]`,
		`[["1", false], ["11", false], ["112", false], ["11 / 28", false], ["5", false], ["1/", false], ["11", true], ["11/2028", false], ["112828", false]].map(([x, d]) => T.typeExpiry(x, d))`:                               `["1","11 / ","11 / 2","11 / 28","05 / ","01 / ","11","11 / 28","11 / 28"]`,
		`[[11, 2026], [10, 2026], [1, 2027]].map(([month, year]) => T.hasPassed({month, year}, new Date(2026, 10, 30)))`:                                                                                                        `[false,true,false]`,
		`[["123", "4111"], ["1234", "4111"], ["1234", "37"], ["123", "37"], ["123", "9"], ["12", "9"]].map(([c, n]) => T.codeIsGood(c, n, true))`:                                                                               `[true,false,true,false,true,false]`,
		// Waiting: never longer than 8 s by ourselves, never shorter than the server asks for.
		`[T.delay(0, 0, () => 1), T.delay(3, 0, () => 1), T.delay(50, 0, () => 1), T.delay(3, 0, () => 0), T.delay(0, 3000, () => 0), T.delay(0, 1e9, () => 0)]`: `[500,4000,8000,0,3000,60000]`,
		// Which answers say something.
		`[[201, "{}"], [200, "{\"id\":\"a\"}"], [200, "{\"id\""], [400, "{\"code\":\"X\"}"], [404, "<html>"], [400, "null"], [409, "{\"code\":\"X\"}"], [429, "{\"code\":\"X\"}"], [408, "{\"code\":\"X\"}"], [500, "{\"code\":\"X\"}"], [304, "{}"]].map(([s, t]) => T.read(s, null, t, (v) => !!v.id).kind)`: `["unknown","ok","unknown","refused","unknown","unknown","unknown","unknown","unknown","unknown","unknown"]`,
		`["3", "x", null, "-1", "1.5"].map((r) => T.read(503, r, "", () => true).retryAfter)`: `[3000,0,0,0,0]`,
		// What a status means. What we don't know is waited on.
		`[["SUCCEEDED", "APPROVED"], ["PENDING", "AUTHORIZED"], ["DECLINED", "DECLINED"], ["REJECTED", "REJECTED"], ["ERROR", "ERROR"], ["PENDING", "IN_PROCESS"], ["CANCELED", "CANCELED"], ["CANCELED", "PENDING_PROVIDER_CONFIRMATION"], ["EXPIRED", "EXPIRED"], ["REFUNDED", "REFUNDED"], ["CREATED", "CREATED"], ["NEW_ONE", ""]].map(([status, sub_status]) => T.outcomeOf({status, sub_status}))`: `["paid","paid","failed","failed","failed","pending","canceled","pending","expired","refunded","pending","pending"]`,
		`["https://bank.example/x", "javascript:alert(1)", "data:text/html,x", "/relative", "", null].map(T.webURL)`:                                                                                        `["https://bank.example/x","","","","",""]`,
		`[T.outcomeOf({status: "PENDING", sub_status: "WAITING_ADDITIONAL_STEP", checkout: {sdk_action_required: true}, payment_method: {payment_method_detail: {card: {redirect_url: "javascript:x"}}}})]`: `["pending"]`,
		`[T.formatAmount(45.67, "USD", "en", "US"), T.formatAmount(1000, "JPY", "en", "JP"), T.formatAmount(0.1234, "USD", "en", "US"), T.formatAmount(9999999999.9999, "USD", "en", "US")]`:                `["$45.67","¥1,000","$0.1234","$9,999,999,999.9999"]`,
		// Messages of another version, or of others, are none.
		`[T.unseal({oncepay: 1, type: "look"})?.type, T.unseal({oncepay: 2, type: "look"}), T.unseal({type: "look"}), T.unseal("x"), T.unseal(null)]`: `["look",null,null,null,null]`,
		// A nonce is a UUID, with TLS and without.
		`(() => { const u = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/; const made = crypto.randomUUID; const a = T.newNonce(); crypto.randomUUID = undefined; const b = T.newNonce(); crypto.randomUUID = made; return [u.test(a), u.test(b), a !== b] })()`: `[true,true,true]`,
		// One open attempt; an end is of one nonce only; what is broken in the storage is not there.
		`(() => { const s = new T.Attempts("s1"); const a = s.open(null); const again = s.open("p"); const kept = s.keep(a, "tok"); s.end("other"); const still = new T.Attempts("s1").current(); s.end(a.nonce); return [again.nonce === a.nonce, kept.nonce === a.nonce, still.token, s.current()] })()`:                                                       `[true,true,"tok",null]`,
		`(() => { localStorage.setItem("oncepay.attempt.s2", "{"); const s = new T.Attempts("s2"); return [s.current(), s.open(null).nonce.length] })()`:                                                                                                                                                                                                         `[null,36]`,
		`(() => { localStorage.setItem("oncepay.attempt.old", JSON.stringify({nonce: T.newNonce(), at: 1})); localStorage.setItem("oncepay.attempt.new", JSON.stringify({nonce: T.newNonce(), at: Date.now()})); new T.Attempts("s3"); return [localStorage.getItem("oncepay.attempt.old") === null, localStorage.getItem("oncepay.attempt.new") === null] })()`: `[true,false]`,
	} {
		if got := eval[string](b, "JSON.stringify("+script+")"); got != want {
			t.Errorf("%s\n got %s\nwant %s", script, got, want)
		}
	}
}
