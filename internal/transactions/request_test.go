package transactions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/jsontree"
)

// What a request to create a payment must look like, each rule with the exact words
// in which a client hears of it.

// edit is one change of a valid body: what stands at a path becomes that JSON, or
// goes, if it is "".
type edit struct{ path, json string }

// edited is a valid body with changes.
func (w *world) edited(edits ...edit) []byte {
	w.t.Helper()
	var root map[string]any
	if err := json.Unmarshal(w.body("order-1", nil), &root); err != nil {
		w.t.Fatal(err)
	}
	// The amount as body writes it: a float would do, but let no one wonder.
	root["amount"] = map[string]any{"currency": "USD", "value": json.Number("45.67")}
	for _, e := range edits {
		names := strings.Split(strings.TrimPrefix(e.path, "$."), ".")
		at := root
		for _, name := range names[:len(names)-1] {
			next, ok := at[name].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[name] = next
			}
			at = next
		}
		last := names[len(names)-1]
		if e.json == "" {
			delete(at, last)
			continue
		}
		at[last] = json.RawMessage(e.json)
	}
	b, err := json.Marshal(root)
	if err != nil {
		w.t.Fatalf("the edits %q make no JSON: %v", edits, err)
	}
	return b
}

// texts are the strings and numbers in a JSON text that are long enough not to be
// met by chance.
func texts(raw string) []string {
	var v any
	d := json.NewDecoder(strings.NewReader(raw))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil
	}
	var found []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			found = append(found, v)
		case json.Number:
			found = append(found, v.String())
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for name, e := range v {
				found = append(found, name)
				walk(e)
			}
		}
	}
	walk(v)
	long := found[:0]
	for _, s := range found {
		if len(s) >= 3 {
			long = append(long, s[:min(len(s), 24)])
		}
	}
	return long
}

const (
	cardNumberRule = "$.payment_method.detail.card.card_data.number must be a string of 12 to 19 digits"
	codeRule       = "$.payment_method.detail.card.card_data.security_code must be a string of 3 to 4 digits"
	monthRule      = "$.payment_method.detail.card.card_data.expiration_month must be a whole number from 1 to 12"
	yearRule       = "$.payment_method.detail.card.card_data.expiration_year must be a year of two or four digits"
	installRule    = "$.payment_method.detail.card.installments must be a whole number from 1 to 99"
	workflowRule   = "$.workflow must be DIRECT, SDK_CHECKOUT, CHECKOUT, SDK_SEAMLESS or REDIRECT"
	currencyRule   = "$.amount.currency must be an active ISO 4217 currency code"
	countryRule    = "$.country must be an ISO 3166-1 alpha-2 country code in capitals"
	syntaxRule     = "$.amount.value must be a decimal number of at most 40 characters"
	sessionRule    = "$.checkout.session must be a checkout session of this account that has neither expired nor been paid"
	accountRule    = "$.account_id must be the account of the API key"
	metadataRule   = "$.metadata must be an array of at most 120 pairs of key and value"
	cardPath       = "payment_method.detail.card."
	cardDataPath   = cardPath + "card_data."
)

// brokenRules are bodies with one fault or several, and all that is told of it.
var brokenRules = []struct {
	edits    []edit
	code     apierr.Code
	messages []string
}{
	// Members that must be there. Null says the same as nothing.
	{[]edit{{"account_id", ""}}, apierr.MissingParameters, []string{"$.account_id is required"}},
	{[]edit{{"merchant_order_id", ""}}, apierr.MissingParameters, []string{"$.merchant_order_id is required"}},
	{[]edit{{"merchant_order_id", "null"}}, apierr.MissingParameters, []string{"$.merchant_order_id is required"}},
	{[]edit{{"description", ""}}, apierr.MissingParameters, []string{"$.description is required"}},
	{[]edit{{"country", "null"}}, apierr.MissingParameters, []string{"$.country is required"}},
	{[]edit{{"amount", ""}}, apierr.MissingParameters, []string{"$.amount is required"}},
	{[]edit{{"amount", "{}"}}, apierr.MissingParameters, []string{"$.amount.currency is required", "$.amount.value is required"}},
	{[]edit{{"amount.currency", ""}}, apierr.MissingParameters, []string{"$.amount.currency is required"}},
	{[]edit{{"amount.value", "null"}}, apierr.MissingParameters, []string{"$.amount.value is required"}},
	{[]edit{{"payment_method", ""}}, apierr.MissingParameters, []string{"$.payment_method is required"}},
	{[]edit{{"payment_method.type", ""}}, apierr.MissingParameters, []string{"$.payment_method.type is required"}},
	{[]edit{{"payment_method.detail", ""}}, apierr.MissingParameters, []string{"$.payment_method.detail.card is required"}},
	{[]edit{{"payment_method.detail.card", "null"}}, apierr.MissingParameters, []string{"$.payment_method.detail.card is required"}},
	{[]edit{{cardPath + "card_data", ""}}, apierr.MissingParameters, []string{"$.payment_method.detail.card.card_data is required"}},
	{[]edit{{cardPath + "card_data", "{}"}}, apierr.MissingParameters, []string{
		"$.payment_method.detail.card.card_data.number is required",
		"$.payment_method.detail.card.card_data.expiration_month is required",
		"$.payment_method.detail.card.card_data.expiration_year is required",
	}},
	// Names are case-sensitive (H46).
	{[]edit{{"amount", ""}, {"Amount", `{"currency":"USD","value":1}`}}, apierr.MissingParameters, []string{"$.amount is required"}},

	// Texts.
	{[]edit{{"merchant_order_id", "77001"}}, apierr.InvalidParameters, []string{"$.merchant_order_id must be a string"}},
	{[]edit{{"merchant_order_id", `["geheim"]`}}, apierr.InvalidParameters, []string{"$.merchant_order_id must be a string"}},
	{[]edit{{"merchant_order_id", `""`}}, apierr.InvalidParameters, []string{"$.merchant_order_id must have 3 to 255 characters"}},
	{[]edit{{"merchant_order_id", `"ab"`}}, apierr.InvalidParameters, []string{"$.merchant_order_id must have 3 to 255 characters"}},
	{[]edit{{"merchant_order_id", quoted("geheim", 256)}}, apierr.InvalidParameters, []string{"$.merchant_order_id must have 3 to 255 characters"}},
	{[]edit{{"merchant_order_id", `"geheim\n7"`}}, apierr.InvalidParameters, []string{"$.merchant_order_id must not contain control characters"}},
	{[]edit{{"merchant_order_id", `"geheim\u0085"`}}, apierr.InvalidParameters, []string{"$.merchant_order_id must not contain control characters"}},
	{[]edit{{"merchant_reference", `"x"`}}, apierr.InvalidParameters, []string{"$.merchant_reference must have 3 to 255 characters"}},
	{[]edit{{"merchant_reference", "true"}}, apierr.InvalidParameters, []string{"$.merchant_reference must be a string"}},
	{[]edit{{"description", quoted("é", 256)}}, apierr.InvalidParameters, []string{"$.description must have 3 to 255 characters"}},
	{[]edit{{"description", `{"geheim":"geheim"}`}}, apierr.InvalidParameters, []string{"$.description must be a string"}},
	{[]edit{{"callback_url", quoted("https://geheim.test/", 527)}}, apierr.InvalidParameters, []string{"$.callback_url must have 3 to 526 characters"}},

	// Who, and where.
	{[]edit{{"account_id", `"0198c2f3-7777-7777-8888-999999999999"`}}, apierr.InvalidAccountID, []string{accountRule}},
	{[]edit{{"account_id", "77001"}}, apierr.InvalidAccountID, []string{accountRule}},
	{[]edit{{"account_id", `""`}}, apierr.InvalidAccountID, []string{accountRule}},
	{[]edit{{"country", `"us"`}}, apierr.CountryNotSupported, []string{countryRule}},
	{[]edit{{"country", `"USA"`}}, apierr.CountryNotSupported, []string{countryRule}},
	{[]edit{{"country", `"XK"`}}, apierr.CountryNotSupported, []string{countryRule}},
	{[]edit{{"country", "840"}}, apierr.CountryNotSupported, []string{countryRule}},

	// How much.
	{[]edit{{"amount", `"4567 USD"`}}, apierr.InvalidParameters, []string{"$.amount must be an object", "$.amount.currency is required", "$.amount.value is required"}},
	{[]edit{{"amount.currency", `"usd"`}}, apierr.CurrencyNotAllowed, []string{currencyRule}},
	{[]edit{{"amount.currency", `"HRK"`}}, apierr.CurrencyNotAllowed, []string{currencyRule}}, // left the list in 2023
	{[]edit{{"amount.currency", `"XAU"`}}, apierr.CurrencyNotAllowed, []string{currencyRule}},
	{[]edit{{"amount.currency", "840"}}, apierr.CurrencyNotAllowed, []string{currencyRule}},
	{[]edit{{"amount.value", "0"}}, apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
	{[]edit{{"amount.value", "-0.01"}}, apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
	{[]edit{{"amount.value", `"0.00"`}}, apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
	{[]edit{{"amount.value", "45.678"}}, apierr.InvalidAmount, []string{"$.amount.value must not have more decimal places than its currency: USD has 2"}},
	{[]edit{{"amount.value", "0.00001"}}, apierr.InvalidAmount, []string{"$.amount.value must have at most 4 decimal places"}},
	{[]edit{{"amount.value", "77000000000"}}, apierr.InvalidAmount, []string{"$.amount.value must be at most 9999999999.9999"}},
	{[]edit{{"amount.value", "10000000000"}}, apierr.InvalidAmount, []string{"$.amount.value must be at most 9999999999.9999"}},
	{[]edit{{"amount.value", "10.5"}, {"amount.currency", `"JPY"`}}, apierr.InvalidAmount, []string{"$.amount.value must not have more decimal places than its currency: JPY has 0"}},
	{[]edit{{"amount.value", "1.2345"}, {"amount.currency", `"KWD"`}}, apierr.InvalidAmount, []string{"$.amount.value must not have more decimal places than its currency: KWD has 3"}},
	{[]edit{{"amount.value", `"45,67"`}}, apierr.InvalidAmount, []string{syntaxRule}},
	{[]edit{{"amount.value", `" 45.67"`}}, apierr.InvalidAmount, []string{syntaxRule}},
	{[]edit{{"amount.value", `"+45.67"`}}, apierr.InvalidAmount, []string{syntaxRule}},
	{[]edit{{"amount.value", `"NaN"`}}, apierr.InvalidAmount, []string{syntaxRule}},
	{[]edit{{"amount.value", `""`}}, apierr.InvalidAmount, []string{syntaxRule}},
	{[]edit{{"amount.value", `"0.00000000000000000000000000000000000000077"`}}, apierr.InvalidAmount, []string{syntaxRule}},
	{[]edit{{"amount.value", "1e77"}}, apierr.InvalidAmount, []string{"$.amount.value must not have an exponent beyond 20"}},
	{[]edit{{"amount.value", "true"}}, apierr.InvalidAmount, []string{"$.amount.value must be a number, or a string that holds one"}},
	{[]edit{{"amount.value", `{"geheim":4567}`}}, apierr.InvalidAmount, []string{"$.amount.value must be a number, or a string that holds one"}},
	{[]edit{{"amount.currency_conversion", `{"geheim":"EUR"}`}}, apierr.InvalidParameters, []string{"$.amount.currency_conversion is not available yet and must be left out"}},

	// By which way.
	{[]edit{{"workflow", `"GEHEIM"`}}, apierr.InvalidParameters, []string{workflowRule}},
	{[]edit{{"workflow", `"direct"`}}, apierr.InvalidParameters, []string{workflowRule}},
	{[]edit{{"workflow", "77001"}}, apierr.InvalidParameters, []string{"$.workflow must be a string", workflowRule}},
	{[]edit{{"workflow", `"REDIRECT"`}}, apierr.UnavailablePaymentMethod, []string{"$.workflow must not be REDIRECT: no redirect method is available"}},
	{[]edit{{"workflow", `"SDK_CHECKOUT"`}}, apierr.MissingParameters, []string{"$.checkout.session is required by this workflow"}},
	{[]edit{{"workflow", `"SDK_SEAMLESS"`}}, apierr.InvalidParameters, []string{"$.workflow must not be SDK_SEAMLESS: the browser pays such a session itself"}},
	{[]edit{{"workflow", `"SDK_CHECKOUT"`}, {"checkout.session", `"geheim-session"`}}, apierr.CheckoutSessionNotFound, []string{sessionRule}},
	{[]edit{{"workflow", ""}, {"checkout.session", `"geheim-session"`}}, apierr.CheckoutSessionNotFound, []string{sessionRule}}, // SDK_CHECKOUT, then
	{[]edit{{"checkout", `"geheim-session"`}}, apierr.InvalidParameters, []string{"$.checkout must be an object"}},
	{[]edit{{"checkout.session", "77001"}}, apierr.InvalidParameters, []string{"$.checkout.session must be a string"}},

	// With what.
	{[]edit{{"payment_method", `"geheim"`}}, apierr.InvalidParameters, []string{"$.payment_method must be an object", "$.payment_method.type is required", "$.payment_method.detail.card is required"}},
	{[]edit{{"payment_method.type", `"PIX"`}}, apierr.UnavailablePaymentMethod, []string{"$.payment_method.type must be CARD: no other payment method is available"}},
	{[]edit{{"payment_method.type", "77001"}}, apierr.UnavailablePaymentMethod, []string{"$.payment_method.type must be CARD: no other payment method is available"}},
	{[]edit{{"payment_method.token", `"geheim-token"`}}, apierr.InvalidToken, []string{"$.payment_method.token must be a token of this account"}},
	{[]edit{{"payment_method.vaulted_token", `"geheim-token"`}}, apierr.InvalidToken, []string{"$.payment_method.vaulted_token must be a token of this account"}},
	{[]edit{{"payment_method.vault_on_success", "true"}}, apierr.MissingParameters, []string{"$.customer_payer.id is required where payment_method.vault_on_success is true"}},
	{[]edit{{"payment_method.vault_on_success", `"yes, geheim"`}}, apierr.InvalidParameters, []string{"$.payment_method.vault_on_success must be true or false"}},
	{[]edit{{"payment_method.detail", `["geheim"]`}}, apierr.InvalidParameters, []string{"$.payment_method.detail must be an object", "$.payment_method.detail.card is required"}},
	{[]edit{{"payment_method.detail.card", `"4111111111111111"`}}, apierr.InvalidParameters, []string{"$.payment_method.detail.card must be an object", "$.payment_method.detail.card.card_data is required"}},
	{[]edit{{cardPath + "capture", `"nope"`}}, apierr.InvalidParameters, []string{"$.payment_method.detail.card.capture must be true or false"}},
	{[]edit{{cardPath + "installments", "0"}}, apierr.InvalidParameters, []string{installRule}},
	{[]edit{{cardPath + "installments", "100"}}, apierr.InvalidParameters, []string{installRule}},
	{[]edit{{cardPath + "installments", "3.5"}}, apierr.InvalidParameters, []string{installRule}},
	{[]edit{{cardPath + "installments", `"3"`}}, apierr.InvalidParameters, []string{installRule}},
	{[]edit{{cardPath + "soft_descriptor", `"geheim geheim 16"`}}, apierr.InvalidParameters, []string{"$.payment_method.detail.card.soft_descriptor must have 0 to 15 characters"}},
	{[]edit{{cardPath + "verify", "true"}}, apierr.InvalidAmount, []string{"$.amount.value must be 0 where payment_method.detail.card.verify is true"}},
	{[]edit{{cardPath + "stored_credentials", `"geheim"`}}, apierr.InvalidParameters, []string{"$.payment_method.detail.card.stored_credentials must be an object"}},
	{[]edit{{cardPath + "delayed_capture_settings", `{"geheim":"P77D"}`}}, apierr.InvalidParameters, []string{"$.payment_method.detail.card.delayed_capture_settings is not available yet and must be left out"}},
	{[]edit{{cardPath + "delayed_cancel_settings", `"P77D"`}}, apierr.InvalidParameters, []string{"$.payment_method.detail.card.delayed_cancel_settings is not available yet and must be left out"}},

	// The card itself.
	{[]edit{{cardPath + "card_data", `"4111111111111111"`}}, apierr.InvalidParameters, []string{
		"$.payment_method.detail.card.card_data must be an object",
		"$.payment_method.detail.card.card_data.number is required",
		"$.payment_method.detail.card.card_data.expiration_month is required",
		"$.payment_method.detail.card.card_data.expiration_year is required",
	}},
	{[]edit{{cardDataPath + "number", `"41111111111"`}}, apierr.InvalidParameters, []string{cardNumberRule}},
	{[]edit{{cardDataPath + "number", `"41111111111111111111"`}}, apierr.InvalidParameters, []string{cardNumberRule}},
	{[]edit{{cardDataPath + "number", `"4111 1111 1111 1111"`}}, apierr.InvalidParameters, []string{cardNumberRule}},
	{[]edit{{cardDataPath + "number", "4111111111111111"}}, apierr.InvalidParameters, []string{cardNumberRule}},
	{[]edit{{cardDataPath + "number", `"٤١١١١١١١١١١١١١١١"`}}, apierr.InvalidParameters, []string{cardNumberRule}},
	{[]edit{{cardDataPath + "number", `""`}}, apierr.InvalidParameters, []string{cardNumberRule}},
	{[]edit{{cardDataPath + "security_code", `"77"`}}, apierr.InvalidParameters, []string{codeRule}},
	{[]edit{{cardDataPath + "security_code", `"77777"`}}, apierr.InvalidParameters, []string{codeRule}},
	{[]edit{{cardDataPath + "security_code", "7777"}}, apierr.InvalidParameters, []string{codeRule}},
	{[]edit{{cardDataPath + "security_code", `"77a"`}}, apierr.InvalidParameters, []string{codeRule}},
	{[]edit{{cardDataPath + "expiration_month", "0"}}, apierr.InvalidParameters, []string{monthRule}},
	{[]edit{{cardDataPath + "expiration_month", "13"}}, apierr.InvalidParameters, []string{monthRule}},
	{[]edit{{cardDataPath + "expiration_month", `"11"`}}, apierr.InvalidParameters, []string{monthRule}},
	{[]edit{{cardDataPath + "expiration_year", "100"}}, apierr.InvalidParameters, []string{yearRule}},
	{[]edit{{cardDataPath + "expiration_year", "1999"}}, apierr.InvalidParameters, []string{yearRule}},
	{[]edit{{cardDataPath + "expiration_year", `"2028"`}}, apierr.InvalidParameters, []string{yearRule}},
	{[]edit{{cardDataPath + "holder_name", `""`}}, apierr.InvalidParameters, []string{"$.payment_method.detail.card.card_data.holder_name must have 1 to 255 characters"}},
	{[]edit{{cardDataPath + "holder_name", quoted("geheim", 256)}}, apierr.InvalidParameters, []string{"$.payment_method.detail.card.card_data.holder_name must have 1 to 255 characters"}},

	// What describes: type and size alone.
	{[]edit{{"customer_payer", `"geheim"`}}, apierr.InvalidParameters, []string{"$.customer_payer must be an object"}},
	{[]edit{{"customer_payer", `{"note":` + quoted("geheim", 65_536) + `}`}}, apierr.InvalidParameters, []string{"$.customer_payer must have at most 65536 bytes"}},
	{[]edit{{"additional_data", `[["geheim"]]`}}, apierr.InvalidParameters, []string{"$.additional_data must be an object"}},
	{[]edit{{"metadata", `{"geheim":"geheim"}`}}, apierr.InvalidParameters, []string{metadataRule}},
	{[]edit{{"metadata", pairs(121)}}, apierr.InvalidParameters, []string{metadataRule}},
	{[]edit{{"metadata", `["geheim"]`}}, apierr.InvalidParameters, []string{"$.metadata[0] must be an object", "$.metadata[0].key is required", "$.metadata[0].value is required"}},
	{[]edit{{"metadata", `[{"key":"abc","value":"def"},{"key":` + quoted("geheim", 49) + `,"value":""}]`}}, apierr.InvalidParameters,
		[]string{"$.metadata[1].key must have 1 to 48 characters", "$.metadata[1].value must have 1 to 512 characters"}},
	{[]edit{{"metadata", `[{"key":"abc","value":7777}]`}}, apierr.InvalidParameters, []string{"$.metadata[0].value must be a string"}},
	{[]edit{{"fraud_screening.stand_alone", "true"}}, apierr.InvalidParameters, []string{"$.fraud_screening.stand_alone must be false: stand-alone screening is not available yet"}},
	{[]edit{{"split_marketplace", `[{"geheim":1}]`}}, apierr.InvalidParameters, []string{"$.split_marketplace is not available yet and must be left out"}},
	{[]edit{{"subscription", `{"geheim":1}`}}, apierr.InvalidParameters, []string{"$.subscription is not available yet and must be left out"}},

	// Several at once: all are told, and the first one's code is the answer's.
	{[]edit{{"country", `"us"`}, {"amount.value", "-77001"}, {"description", "7"}, {"workflow", `"GEHEIM"`}}, apierr.InvalidParameters,
		[]string{"$.description must be a string", countryRule, "$.amount.value must be greater than 0", workflowRule}},
	{[]edit{{"account_id", `"geheim-account"`}, {"amount", ""}}, apierr.InvalidAccountID, []string{accountRule, "$.amount is required"}},
}

// quoted is a JSON string of n characters that repeats s.
func quoted(s string, n int) string {
	runes := []rune(strings.Repeat(s, n))
	b, err := json.Marshal(string(runes[:n]))
	if err != nil {
		panic(err) // a string
	}
	return string(b)
}

// pairs is metadata with n pairs.
func pairs(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(`{"key":"geheim-%d","value":"geheim"}`, i)
	}
	return "[" + strings.Join(all, ",") + "]"
}

// wantSilent fails the test if r repeats something that was sent.
func (w *world) wantSilent(r response, sent ...string) {
	w.t.Helper()
	// The request's id is drawn, and may hold any few digits by chance.
	answer := bytes.ToLower(bytes.ReplaceAll(r.body, []byte(r.header.Get(httpapi.HeaderRequestID)), nil))
	for _, s := range append(sent, "41111111", "11111111", "john doe", w.account.String()) {
		if bytes.Contains(answer, bytes.ToLower([]byte(s))) {
			w.t.Fatalf("the answer repeats %q, which was sent: %s", s, r)
		}
	}
}

// words are names that an answer may say although a body held them: they are the
// contract's own.
var words = map[string]bool{"currency": true, "value": true, "key": true, "REDIRECT": true, "SDK_CHECKOUT": true, "SDK_SEAMLESS": true, "direct": true, "USD": true, "JPY": true, "KWD": true}

func TestEveryRuleOfARequestIsToldByPlaceAndNeverByValue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, c := range brokenRules {
		name := fmt.Sprintf("%03d %s", i, c.messages[0])
		before := w.footprint()
		nonce := fmt.Sprintf("nonce-%d", i)
		r := w.create(nonce, w.edited(c.edits...))
		status := http.StatusBadRequest
		if c.code == apierr.InvalidToken {
			status = http.StatusUnauthorized // as the contract lists it
		}
		if r.status != status || r.code() != string(c.code) {
			t.Errorf("%s: got %s, want %d %s", name, r, status, c.code)
			continue
		}
		w.wantError(r, status, string(c.code), c.messages...)
		for _, e := range c.edits {
			for _, text := range texts(e.json) {
				if !words[text] {
					w.wantSilent(r, text)
				}
			}
		}
		w.wantUntouched(before, "arrivals") // the one record of what it met
		if n := w.count(`SELECT count(*) FROM arrivals a WHERE nonce = $1 AND verdict = 'rejected' AND transaction_id IS NULL AND differs = ''`, nonce); n != 1 {
			t.Errorf("%s: %d arrivals were noted as rejected, want 1", name, n)
		}
	}
	if n := w.count(`SELECT count(*) FROM arrivals a WHERE a::text ~* 'geheim|john'`); n != 0 {
		t.Errorf("%d arrivals hold something of a body", n)
	}
	w.public.Close() // so that every line is written
	if logs := w.logs.String(); strings.Contains(logs, "geheim") || strings.Contains(logs, "41111111") || strings.Contains(logs, "John") {
		t.Error("a log line holds something of a body")
	}
}

func TestBodyThatIsNoRequestAtAllIsRefusedByPlaceAndRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	valid := string(w.body("order-1", nil))
	member := func(raw string) string { return `{"geheim":"geheim",` + raw + strings.TrimPrefix(valid, "{") }
	before := w.footprint()
	for name, c := range map[string]struct{ body, message string }{
		"nothing":             {"", "$ must not be empty"},
		"blanks":              {" \r\n\t", "$ must not be empty"},
		"a form":              {"geheim=4111111111111111", "$ must be well-formed JSON"},
		"a list":              {"[" + valid + "]", "$ must be an object"},
		"a text":              {`"geheim 4111111111111111"`, "$ must be an object"},
		"a number":            {"4111111111111111", "$ must be an object"},
		"null":                {"null", "$ must be an object"},
		"cut off":             {valid[:len(valid)-1], "$ must be well-formed JSON"},
		"two of them":         {valid + valid, "$ must not be followed by anything"},
		"a byte order mark":   {"\ufeff" + valid, "$ must not begin with a byte order mark"},
		"a name twice":        {member(`"amount":{},`), "$.amount must not appear twice in the same object"},
		"a secret name twice": {member(`"4111111111111111":1,"4111111111111111":1,`), "$.* must not appear twice in the same object"},
		"a comma too many":    {member(`"a":1,,`), "$ must be well-formed JSON"},
		"no UTF-8":            {member("\"a\":\"geheim \xff\","), "$.a must be valid UTF-8"},
		"half a character":    {member(`"a":"geheim \ud83d",`), "$.a must be well-formed JSON"},
		"a NUL":               {member(`"a":"geheim \u0000",`), "$.a must not contain the character U+0000"},
		"a long number":       {member(`"a":4111111111111111` + strings.Repeat("0", 128) + `,`), "$.a must not be a number of more than 128 characters"},
		"33 deep":             {member(`"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `,`), "$.a" + strings.Repeat("[0]", 31) + " must not be nested more than 32 deep"},
		"16385 values":        {member(`"a":[` + strings.Repeat("0,", 16_384) + `0],`), "$.a must not have more than 16384 values in all"},
		"one for a comment":   {"// geheim\n" + valid, "$ must be well-formed JSON"},
	} {
		r := w.create("nonce-1", []byte(c.body))
		if r.status != http.StatusBadRequest {
			t.Errorf("%s: got %s", name, r)
			continue
		}
		w.wantError(r, http.StatusBadRequest, "INVALID_REQUEST", c.message)
		w.wantSilent(r, "geheim")
	}
	w.wantUntouched(before, "arrivals")
}

// A body of nonsense gets a short answer.
func TestAtMost20RulesAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.create("nonce-1", w.edited(edit{"metadata", `[` + strings.TrimSuffix(strings.Repeat("{},", 100), ",") + `]`}))
	w.want(r, http.StatusBadRequest, "MISSING_PARAMETERS")
	if messages, ok := r.get("messages").([]any); !ok || len(messages) != fields.MaxMessages {
		t.Errorf("%d messages, want %d", len(messages), fields.MaxMessages)
	}
}

// What real shops send, and what the contract allows: none of it may be refused.
func TestValidRequestsAreTakenAsTheyAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, c := range []struct {
		edits []edit
		path  string // what the answer then says there
		want  any
	}{
		{nil, "amount.currency", "USD"},
		{[]edit{{"account_id", `"` + strings.ToUpper(w.account.String()) + `"`}}, "account_id", w.account.String()},
		{[]edit{{"amount.value", `"45.67"`}}, "amount.value", 45.67},
		{[]edit{{"amount.value", "4567e-2"}}, "amount.value", 45.67},
		{[]edit{{"amount.value", "45.6700000"}}, "amount.value", 45.67},
		{[]edit{{"amount.currency_conversion", "null"}}, "amount.currency_conversion", nil},
		{[]edit{{"merchant_order_id", `"abc"`}}, "merchant_order_id", "abc"},
		{[]edit{{"merchant_order_id", quoted("ü", 255)}}, "merchant_order_id", strings.Repeat("ü", 255)},
		{[]edit{{"merchant_reference", `"ref '; DROP TABLE payments; --"`}}, "merchant_reference", "ref '; DROP TABLE payments; --"},
		{[]edit{{"merchant_reference", "null"}}, "merchant_reference", nil},
		{[]edit{{"description", `"<b>\"é\" \\ \ud83d\ude00 $1 ? @name"`}}, "description", "<b>\"é\" \\ 😀 $1 ? @name"},
		{[]edit{{"country", `"DE"`}}, "country", "DE"},
		{[]edit{{"workflow", ""}}, "workflow", "DIRECT"},
		{[]edit{{"workflow", "null"}}, "workflow", "DIRECT"},
		{[]edit{{"checkout", "null"}}, "checkout.session", ""},
		{[]edit{{"checkout", `{"session":""}`}, {"workflow", ""}}, "workflow", "DIRECT"},
		{[]edit{{"callback_url", quoted("https://shop.test/", 526)}}, "workflow", "DIRECT"},
		{[]edit{{"payment_method.vault_on_success", "false"}, {"payment_method.token", "null"}, {"payment_method.vaulted_token", `""`}}, "payment_method.token", ""},
		{[]edit{{cardPath + "verify", "false"}}, "payment_method.payment_method_detail.card.verify", false},
		{[]edit{{cardPath + "installments", "99"}}, "payment_method.payment_method_detail.card.installments", 99.0},
		{[]edit{{cardPath + "soft_descriptor", `"SHOP*FIFTEEN 15"`}}, "payment_method.payment_method_detail.card.soft_descriptor", "SHOP*FIFTEEN 15"},
		{[]edit{{cardPath + "stored_credentials", `{"usage":"FIRST"}`}}, "payment_method.payment_method_detail.card.stored_credentials.usage", "FIRST"},
		{[]edit{{cardPath + "delayed_capture_settings", "{}"}, {cardPath + "delayed_cancel_settings", "null"}}, "workflow", "DIRECT"},
		{[]edit{{cardDataPath + "expiration_year", "2028"}}, "payment_method.payment_method_detail.card.card_data.expiration_year", 28.0},
		{[]edit{{cardDataPath + "holder_name", ""}}, "payment_method.payment_method_detail.card.card_data.holder_name", ""},
		{[]edit{{cardDataPath + "security_code", ""}}, "payment_method.payment_method_detail.card.card_data.security_code_length", 0.0},
		{[]edit{{cardDataPath + "number", `"4111111111111112"`}}, "payment_method.payment_method_detail.card.card_data.lfd", "1112"}, // Luhn counts in live mode
		{[]edit{{cardDataPath + "number", `"370000000000002"`}, {cardDataPath + "security_code", `"1234"`}}, "payment_method.payment_method_detail.card.card_data.iin", "370000"},
		{[]edit{{cardDataPath + "number", `"400000000000"`}}, "payment_method.payment_method_detail.card.card_data.number_length", 12.0},
		{[]edit{{"customer_payer", `{"gender":"MALE","billing_address":{"country":"st"}}`}}, "customer_payer.billing_address.country", "st"},
		{[]edit{{"additional_data", `{"airline":{"legs":[{"base_fare":200.10}]}}`}}, "workflow", "DIRECT"},
		{[]edit{{"metadata", pairs(120)}}, "workflow", "DIRECT"},
		{[]edit{{"metadata", "[]"}}, "workflow", "DIRECT"},
		{[]edit{{"split_marketplace", "[]"}, {"subscription", "{}"}, {"fraud_screening", `{"stand_alone":false}`}}, "fraud_screening", nil},
		{[]edit{{"Amount", `{"value":-1}`}, {"surprise", `[{"a":null}]`}, {"cvv", `"999"`}}, "amount.value", 45.67}, // H46, and unknown fields
	} {
		r := w.create(fmt.Sprintf("nonce-%d", i), w.edited(c.edits...))
		if r.status != http.StatusCreated {
			t.Errorf("%v: got %s", c.edits, r)
			continue
		}
		if got := r.get(strings.Split(c.path, ".")...); got != c.want {
			t.Errorf("%v: %s is %v, want %v", c.edits, c.path, got, c.want)
		}
	}
}

// What depends on who asks: live mode checks the number's last digit, and takes no
// raw number at all unless the operator switched it on.
func TestLiveModeIsStricterAboutCards(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wrong := w.edited(edit{cardDataPath + "number", `"4111111111111112"`})
	r := w.createOn(w.instance, w.live, "nonce-1", wrong)
	w.wantError(r, http.StatusBadRequest, "INVALID_PARAMETERS", "$.payment_method.detail.card.card_data.number must be a valid card number")
	w.wantSilent(r, "1112")
	for _, number := range []string{"4111111111111111", "370000000000002", "5252440000000002", "30569309025904", "6304000000000000018"} {
		if !luhn(number) {
			t.Errorf("%s is not valid to us", number)
		}
	}

	w.service.rawLive = false
	r = w.createOn(w.instance, w.live, "nonce-1", w.body("order-1", nil))
	w.wantError(r, http.StatusBadRequest, "INVALID_PARAMETERS",
		"$.payment_method.detail.card.card_data.number must not be sent in live mode: this installation takes no raw card numbers")
	w.wantSilent(r)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated) // test mode does not mind
	if w.transactionsOf("nonce-1") != 1 {
		t.Error("a refused card began a payment")
	}
}

func TestBrandsAreToldByTheLeadingDigits(t *testing.T) {
	t.Parallel()
	for number, want := range map[string]string{
		"4111111111111111": "VISA", "5105105105105100": "MASTERCARD", "5599999999999999": "MASTERCARD", "2221000000000009": "MASTERCARD",
		"2720990000000000": "MASTERCARD", "2220990000000000": "", "2721000000000000": "", "370000000000002": "AMEX", "340000000000009": "AMEX",
		"36471666000000": "DINERS", "30500000000000": "DINERS", "30600000000000": "", "38000000000000": "DINERS", "3528000000000000": "JCB",
		"3589000000000000": "JCB", "3590000000000000": "", "6011000000000000": "DISCOVER", "6440000000000000": "DISCOVER", "6500000000000000": "DISCOVER",
		"6200000000000000": "UNIONPAY", "113900000000000": "UATP", "9999999999999999": "", "0000000000000000": "",
	} {
		if got := brand(number); got != want {
			t.Errorf("a number that begins with %s is %q, want %q", number[:6], got, want)
		}
	}
}

// What is kept of a request names each field, so that no card and no unknown member
// is kept by accident.
func TestNothingOfTheCardIsKeptButWhatMayBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.edited(edit{cardDataPath + "number", `"4507990000000028"`}, edit{cardDataPath + "security_code", `"987"`},
		edit{"pan", `"4507990000000028"`}, edit{"metadata", `[{"key":"abc","value":"def","pan":"4507990000000028"}]`})
	w.want(w.create("nonce-1", body), http.StatusCreated)
	for _, table := range []string{"payments", "transactions", "idempotency_keys", "arrivals", "provider_calls", "events"} {
		var rows []string
		if err := w.db.Conn(t.Context()).Raw(`SELECT to_jsonb(r)::text FROM ` + table + ` r`).Scan(&rows).Error; err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			for _, secret := range []string{"4507990000000028", "450799000", "990000000028", `"987"`, "pan"} {
				if strings.Contains(row, secret) {
					t.Errorf("a row of %s holds %s", table, secret)
				}
			}
		}
	}
	if n := w.count(`SELECT count(*) FROM transactions WHERE card::jsonb ->> 'iin' = '45079900' AND card::jsonb ->> 'lfd' = '0028'`); n != 1 {
		t.Error("the first eight and the last four digits are not kept")
	}
}

// FuzzRequest asks of any body: it is valid, and can be kept; or the answer is one
// of the codes, at most 20 rules long, and about places.
func FuzzRequest(f *testing.F) {
	const account = "0198c2f3-7777-7777-8888-999999999999"
	for _, seed := range []string{
		"{}", "[]", `{"amount":{"value":1e20,"currency":"USD"}}`, `{"metadata":[{"key":1}]}`,
		`{"account_id":"` + account + `","merchant_order_id":"order","description":"A test","country":"US","amount":{"currency":"USD","value":45.67},
		  "payment_method":{"type":"CARD","detail":{"card":{"card_data":{"number":"4111111111111111","expiration_month":11,"expiration_year":28}}}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		body, err := jsontree.Parse(data)
		if err != nil {
			return
		}
		r, err := parseRequest(body, rules{uuid.MustParse(account), CardRules{luhn: true, rawCards: true, fingerprint: func(string) string { return "keyed" }}})
		if err == nil {
			if _, err := r.kept(); err != nil {
				t.Fatalf("a valid request cannot be kept: %v", err)
			}
			if _, err := r.keptCard(); err != nil {
				t.Fatalf("a valid card cannot be kept: %v", err)
			}
			return
		}
		e, ok := apierr.From(err)
		if !ok || e.Status != http.StatusBadRequest && e.Code != apierr.InvalidToken || len(e.Messages) < 1 || len(e.Messages) > fields.MaxMessages {
			t.Fatalf("refused with %v", err)
		}
		for _, m := range e.Messages {
			if !strings.HasPrefix(m, "$") {
				t.Fatalf("a message without a place: %q", m)
			}
		}
	})
}
