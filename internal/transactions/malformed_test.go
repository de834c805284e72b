package transactions

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
)

// Every kind of request that is wrong, word for word as it comes over the wire, with
// the exact answer. The rules of a payment's body, one by one, are in brokenRules;
// here is one of each kind, and everything around the body.

// malformed is a good request with something wrong, and what is answered. Without a
// code the answer is that of Go's own server, in plain text.
type malformed struct {
	name     string
	wrong    []change
	status   int
	code     apierr.Code
	messages []string
}

const (
	pairRule     = "public-api-key and private-secret-key must be a valid pair"
	tokenRule    = "Authorization must be Bearer and the admin token, or an API token"
	missingRule  = "X-Idempotency-Key is required"
	visibleRule  = "X-Idempotency-Key must have only visible ASCII characters without a comma"
	onceRule     = "X-Idempotency-Key must be sent once"
	equalRule    = "X-Idempotency-Key and Idempotency-Key must be equal when both are sent"
	typeRule     = "Content-Type must be application/json"
	charsetRule  = "charset must be utf-8"
	encodingRule = "Content-Encoding must be gzip, or not be set"
	earlyRule    = "the body ended early"
	tooLargeRule = "the body must have at most 262144 bytes"
	jsonRule     = "$ must be well-formed JSON"
	pathRule     = "there is nothing at this path"
	methodRule   = "this path does not take this method"
	limitRule    = "limit must be a whole number from 1 to 100"
	afterRule    = "after must be a cursor from a Link header"
	orderRule    = "merchant_order_id must be UTF-8 without control characters"
	lookedUpRule = "nonce must have only printable ASCII characters"
	noPayment    = "there is no payment with this id"
	noNonce      = "nothing is known of this idempotency key"
	cardData     = "$.payment_method.detail.card.card_data"
)

// rule is a row that breaks one rule, of code INVALID_REQUEST and status 400 unless
// said otherwise.
func (w *world) rule(name string, status int, code apierr.Code, message string, wrong ...change) malformed {
	return malformed{name, wrong, status, code, []string{message}}
}

// malformedCredentials are requests of nobody.
func (w *world) malformedCredentials() []malformed {
	const public, secret = "public-api-key", "private-secret-key"
	p := w.test
	var rows []malformed
	for name, wrong := range map[string][]change{
		"no keys":                        {header(public), header(secret)},
		"no public key":                  {header(public)},
		"no secret":                      {header(secret)},
		"an empty public key":            {header(public, "")},
		"an empty secret":                {header(secret, "")},
		"a key that nobody has":          {header(public, "sandbox_"+strings.Repeat("A", 52))},
		"a secret that nobody has":       {header(secret, "sandbox_secret_"+strings.Repeat("A", 52))},
		"a secret less a character":      {header(secret, p.PrivateSecretKey[:len(p.PrivateSecretKey)-1])},
		"a secret and more":              {header(secret, p.PrivateSecretKey+"A")},
		"a secret in small letters":      {header(secret, strings.ToLower(p.PrivateSecretKey))},
		"the halves mixed up":            {header(public, p.PrivateSecretKey), header(secret, p.PublicAPIKey)},
		"the public key twice":           {header(secret, p.PublicAPIKey)},
		"the halves of two modes":        {header(secret, w.live.PrivateSecretKey)},
		"the halves of two modes, other": {header(public, w.live.PublicAPIKey)},
		"the pair in Authorization":      {header(public), header(secret), raw("Authorization: Bearer " + p.PrivateSecretKey)},
		"the operator's token":           {header(public), header(secret), raw("Authorization: Bearer " + operatorToken)},
		"bytes that are no text":         {header(public, "sandbox_\xff\xfe")},
		"before the body is looked at":   {header(secret), text("{geheim")},
		"before the nonce is looked at":  {header(secret), header(idem.Header, "a b")},
		"and a payment is asked for":     {asking("/v1/payments/" + uuid.NewString()), header(secret)},
		"and an order is asked for":      {asking("/v1/payments?merchant_order_id=order-1"), header(secret)},
		"and a nonce is asked for":       {asking("/v1/idempotency-keys/nonce-1"), header(public)},
	} {
		rows = append(rows, w.rule("credentials: "+name, 401, apierr.InvalidCredentials, pairRule, wrong...))
	}
	return rows
}

// malformedNonces are headers without a nonce in them.
func (w *world) malformedNonces() []malformed {
	const name, alias = idem.Header, idem.AliasHeader
	missing := func(what string, wrong ...change) malformed {
		return w.rule("nonce: "+what, 400, apierr.MissingParameters, missingRule, wrong...)
	}
	invalid := func(what, message string, wrong ...change) malformed {
		return w.rule("nonce: "+what, 400, apierr.InvalidParameters, message, wrong...)
	}
	return []malformed{
		missing("none", header(name)),
		missing("empty", header(name, "")),
		missing("blanks", header(name, " \t ")),
		missing("a name with underscores", header(name), raw("X_Idempotency_Key: nonce-1")),
		missing("a name of others", header(name), raw("Idempotent-Key: nonce-1")),
		missing("in the query", header(name), target("/v1/payments?nonce=nonce-1")),
		invalid("65 characters", nonceRule, header(name, strings.Repeat("n", 65))),
		invalid("8000 characters", nonceRule, header(name, strings.Repeat("n", 8000))),
		invalid("twice the same", onceRule, header(name, "nonce-1", "nonce-1")),
		invalid("twice, in other letters", onceRule, raw("x-idempotency-KEY: nonce-1")),
		invalid("twice, and one is empty", onceRule, raw("X-Idempotency-Key:")),
		invalid("a list", visibleRule, header(name, "nonce-1, nonce-1")),
		invalid("a comma", visibleRule, header(name, "nonce,1")),
		invalid("a blank inside", visibleRule, header(name, "nonce 1")),
		invalid("a tab inside", visibleRule, header(name, "nonce\t1")),
		invalid("a folded line", visibleRule, header(name, "nonce\r\n -1")),
		invalid("a composed letter", visibleRule, header(name, "nonc\u00e9")),
		invalid("a decomposed letter", visibleRule, header(name, "nonce\u0301")),
		invalid("an emoji", visibleRule, header(name, "nonce-😀")),
		invalid("a blank that is none", visibleRule, header(name, "nonce\u00a01")),
		invalid("a byte that is no character", visibleRule, header(name, "nonce\xff")),
		invalid("another alias", equalRule, raw(alias+": nonce-2")),
		invalid("an alias in other letters", equalRule, raw(alias+": NONCE-1")),
		invalid("a quoted alias", equalRule, raw(alias+`: "nonce-1"`)),
		invalid("an alias twice", "Idempotency-Key must be sent once", raw(alias+": nonce-1"), raw(alias+": nonce-1")),
		invalid("an alias that is none", "Idempotency-Key must have only visible ASCII characters without a comma", raw(alias+": nonce 1")),
		{"nonce: a NUL", []change{header(name, "nonce\x00")}, 400, "", []string{"400 Bad Request"}},
		{"nonce: an escape", []change{header(name, "nonce\x1b[2J")}, 400, "", []string{"400 Bad Request"}},
		{"nonce: a delete", []change{header(name, "nonce\x7f")}, 400, "", []string{"400 Bad Request"}},
		{"nonce: a bare carriage return", []change{header(name, "nonce\r1")}, 400, "", []string{"400 Bad Request"}},
		{"nonce: a blank before the colon", []change{header(name), raw("X-Idempotency-Key : nonce-1")}, 400, "", []string{"400 Bad Request: invalid header name"}},
	}
}

// malformedTypes are bodies of another kind.
func (w *world) malformedTypes() []malformed {
	const contentType, encoding = "Content-Type", "Content-Encoding"
	other := func(what, message string, wrong ...change) malformed {
		return w.rule("type: "+what, 415, apierr.UnsupportedMediaType, message, wrong...)
	}
	return []malformed{
		other("none", typeRule, header(contentType)),
		other("empty", typeRule, header(contentType, "")),
		other("text", typeRule, header(contentType, "text/plain")),
		other("a form", typeRule, header(contentType, "application/x-www-form-urlencoded"), text("amount=1")),
		other("a form in parts", typeRule, header(contentType, "multipart/form-data; boundary=x")),
		other("XML", typeRule, header(contentType, "application/xml"), text("<payment/>")),
		other("JSON of another kind", typeRule, header(contentType, "application/merge-patch+json")),
		other("anything", typeRule, header(contentType, "*/*")),
		other("a list", typeRule, header(contentType, "application/json, application/json")),
		other("half a parameter", typeRule, header(contentType, "application/json; charset")),
		other("another charset", charsetRule, header(contentType, "application/json; charset=iso-8859-1")),
		other("UTF-16", charsetRule, header(contentType, "application/json; charset=utf-16le")),
		other("deflate", encodingRule, header(encoding, "deflate")),
		other("two encodings", encodingRule, header(encoding, "br, gzip")),
		other("an unheard-of encoding", encodingRule, header(encoding, "rot13")),
	}
}

// malformedFrames are bodies that do not arrive as they were announced, or are too
// large; and what is no HTTP.
func (w *world) malformedFrames() []malformed {
	const length, chunked = "Content-Length", "Transfer-Encoding: chunked"
	whole := string(w.body("order-1", nil))
	early := func(what string, wrong ...change) malformed {
		return w.rule("frame: "+what, 400, apierr.InvalidRequest, earlyRule, append(wrong, hangUp)...)
	}
	large := func(what string, wrong ...change) malformed {
		return w.rule("frame: "+what, 413, apierr.RequestTooLarge, tooLargeRule, wrong...)
	}
	gos := func(what string, status int, answer string, wrong ...change) malformed {
		return malformed{"frame: " + what, wrong, status, "", []string{answer}}
	}
	padded := whole + strings.Repeat(" ", httpapi.MaxBody+1-len(whole))
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	return []malformed{
		early("shorter than its length", header(length, fmt.Sprint(len(whole)+1))),
		early("nothing of it", header(length, "100"), text("")),
		early("half a chunk", raw(chunked), text("fff\r\n{")),
		early("no last chunk", raw(chunked), text(chunk(whole))),
		early("no chunks", raw(chunked), text(whole)),
		early("a chunk of a wrong length", raw(chunked), text("3\r\n{}\r\n0\r\n\r\n")),
		large("a byte too many", text(padded)),
		large("a byte too many, in chunks", raw(chunked), text(chunk(padded)+"0\r\n\r\n")),
		large("a number too many", text(`{"a":1`+strings.Repeat("0", httpapi.MaxBody)+`}`)),
		gos("two lengths", 400, "400 Bad Request", header(length, "1", "2")),
		gos("a negative length", 400, "400 Bad Request", header(length, "-1")),
		gos("a length that is none", 400, "400 Bad Request", header(length, "ten")),
		gos("another transfer encoding", 501, "Unsupported transfer encoding", raw("Transfer-Encoding: gzip")),
		gos("another expectation", 417, "", raw("Expect: the-unexpected")),
		gos("a header too large", 431, "431 Request Header Fields Too Large", raw("X-Large: "+strings.Repeat("x", 2*httpapi.MaxHeader))),
		gos("a header without a name", 400, "400 Bad Request", raw(": nameless")),
		gos("a header without a colon", 400, "400 Bad Request", raw("colonless")),
		gos("no host", 400, "400 Bad Request: missing required Host header", header("Host")),
		gos("two hosts", 400, "400 Bad Request", raw("Host: other.test")),
		gos("HTTP of another kind", 505, "505 HTTP Version Not Supported: unsupported protocol version", func(l *letter) { l.version = "HTTP/3.0" }),
		gos("no HTTP", 400, "400 Bad Request", func(l *letter) { l.version = "GOPHER" }),
		gos("a target with blanks", 400, "400 Bad Request", target("/v1/pay ments")),
		gos("a target of nothing", 400, "400 Bad Request", target("")),
		gos("a method that is none", 400, "400 Bad Request", method("PO(ST")),
	}
}

// malformedJSON are bodies that are no request.
func (w *world) malformedJSON() []malformed {
	whole := string(w.body("order-1", nil))
	with := func(member string) string { return `{` + member + `,` + whole[1:] }
	var rows []malformed
	for _, c := range []struct{ name, body, message string }{
		{"nothing", "", "$ must not be empty"},
		{"blanks", "\r\n\t ", "$ must not be empty"},
		{"a byte order mark", "\ufeff" + whole, "$ must not begin with a byte order mark"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "$ must be valid UTF-8"},
		{"a broken text", with("\"note\":\"geheim \xc3\x28\""), "$.note must be valid UTF-8"},
		{"a broken name", with("\"geheim\xff\":1"), "$ must be valid UTF-8"},
		{"an overlong slash", with("\"note\":\"\xc0\xaf\""), "$.note must be valid UTF-8"},
		{"half a surrogate in UTF-8", with("\"note\":\"\xed\xa0\x80\""), "$.note must be valid UTF-8"},
		{"half a surrogate, escaped", with(`"note":"\ud800"`), "$.note must be well-formed JSON"},
		{"an escape of nothing", with(`"note":"\x41"`), "$.note must be well-formed JSON"},
		{"a NUL", with(`"note":"a\u0000"`), "$.note must not contain the character U+0000"},
		{"a NUL in a name", with(`"a\u0000":1`), "$.* must not contain the character U+0000"},
		{"a line break in a text", with("\"note\":\"a\nb\""), "$.note must be well-formed JSON"},
		{"a name twice", with(`"amount":{"value":1}`), "$.amount must not appear twice in the same object"},
		{"a name twice, one escaped", with(`"amoun\u0074":1`), "$.amount must not appear twice in the same object"},
		{"a name twice, below", with(`"x":{"y":[{"z":1,"z":1}]}`), "$.x.y[0].z must not appear twice in the same object"},
		{"two bodies", whole + whole, "$ must not be followed by anything"},
		{"a line more", whole + "\n1", "$ must not be followed by anything"},
		{"a bracket more", whole + "}", "$ must not be followed by anything"},
		{"a bracket less", whole[:len(whole)-1], jsonRule},
		{"a comma more", with(`"a":1,`), jsonRule},
		{"a comment", whole[:len(whole)-1] + "/* geheim */}", jsonRule},
		{"other quotes", "{'amount':1}", jsonRule},
		{"no quotes", "{amount:1}", jsonRule},
		{"a form", "amount=1&currency=USD", jsonRule},
		{"XML", "<payment>geheim</payment>", jsonRule},
		{"not a number", with(`"a":NaN`), "$.a must be well-formed JSON"},
		{"infinity", with(`"a":-Infinity`), "$.a must be well-formed JSON"},
		{"a plus", with(`"a":+1`), "$.a must be well-formed JSON"},
		{"a zero in front", with(`"a":01`), jsonRule},
		{"no digit in front", with(`"a":.5`), "$.a must be well-formed JSON"},
		{"no digit behind", with(`"a":5.`), "$.a must be well-formed JSON"},
		{"a number of 129 characters", with(`"a":` + strings.Repeat("7", 129)), "$.a must not be a number of more than 128 characters"},
		{"33 deep", with(`"a":` + strings.Repeat(`{"b":`, 32) + "1" + strings.Repeat("}", 32)), "$.a" + strings.Repeat(".b", 31) + " must not be nested more than 32 deep"},
		{"100000 deep", strings.Repeat("[", 100_000), "$" + strings.Repeat("[0]", 32) + " must not be nested more than 32 deep"},
		{"16385 values", with(`"a":[` + strings.Repeat("0,", 16_384) + `0]`), "$.a must not have more than 16384 values in all"},
		{"a list of one", "[" + whole + "]", "$ must be an object"},
		{"a text", `"geheim"`, "$ must be an object"},
		{"a number", "4111111111111111", "$ must be an object"},
		{"true", "true", "$ must be an object"},
		{"null", "null", "$ must be an object"},
	} {
		rows = append(rows, w.rule("JSON: "+c.name, 400, apierr.InvalidRequest, c.message, text(c.body)))
	}
	return rows
}

// malformedPayments are bodies that ask for what cannot be.
func (w *world) malformedPayments() []malformed {
	var rows []malformed
	for _, c := range []struct {
		path, json string
		code       apierr.Code
		messages   []string
	}{
		{"amount.value", "0", apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
		{"amount.value", "-0", apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
		{"amount.value", "-45.67", apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
		{"amount.value", "0e20", apierr.InvalidAmount, []string{"$.amount.value must be greater than 0"}},
		{"amount.value", "45.671", apierr.InvalidAmount, []string{"$.amount.value must not have more decimal places than its currency: USD has 2"}},
		{"amount.value", "4567100e-5", apierr.InvalidAmount, []string{"$.amount.value must not have more decimal places than its currency: USD has 2"}},
		{"amount.value", "1e-5", apierr.InvalidAmount, []string{"$.amount.value must have at most 4 decimal places"}},
		{"amount.value", "1e10", apierr.InvalidAmount, []string{"$.amount.value must be at most 9999999999.9999"}},
		{"amount.value", "1e21", apierr.InvalidAmount, []string{"$.amount.value must not have an exponent beyond 20"}},
		{"amount.value", "1e-9999999999", apierr.InvalidAmount, []string{"$.amount.value must not have an exponent beyond 20"}},
		{"amount.value", strings.Repeat("1", 41), apierr.InvalidAmount, []string{syntaxRule}},
		{"amount.value", `"45,67"`, apierr.InvalidAmount, []string{syntaxRule}},
		{"amount.value", `"1.234.567,89"`, apierr.InvalidAmount, []string{syntaxRule}},
		{"amount.value", `"45.67 "`, apierr.InvalidAmount, []string{syntaxRule}},
		{"amount.value", `"٤٥"`, apierr.InvalidAmount, []string{syntaxRule}},
		{"amount.value", `"0x2D"`, apierr.InvalidAmount, []string{syntaxRule}},
		{"amount.value", "[45.67]", apierr.InvalidAmount, []string{"$.amount.value must be a number, or a string that holds one"}},
		{"amount.value", "false", apierr.InvalidAmount, []string{"$.amount.value must be a number, or a string that holds one"}},
		{"amount.value", "", apierr.MissingParameters, []string{"$.amount.value is required"}},
		{"amount", "45.67", apierr.InvalidParameters, []string{"$.amount must be an object", "$.amount.currency is required", "$.amount.value is required"}},
		{"amount", "[]", apierr.InvalidParameters, []string{"$.amount must be an object", "$.amount.currency is required", "$.amount.value is required"}},
		{"amount.currency", `"Usd"`, apierr.CurrencyNotAllowed, []string{currencyRule}},
		{"amount.currency", `"$"`, apierr.CurrencyNotAllowed, []string{currencyRule}},
		{"amount.currency", `["USD"]`, apierr.CurrencyNotAllowed, []string{currencyRule}},
		{"amount.currency", "null", apierr.MissingParameters, []string{"$.amount.currency is required"}},
		{"country", `"UK"`, apierr.CountryNotSupported, []string{countryRule}},
		{"country", `""`, apierr.CountryNotSupported, []string{countryRule}},
		{"country", `{}`, apierr.CountryNotSupported, []string{countryRule}},
		{"account_id", `"` + uuid.NewString() + `"`, apierr.InvalidAccountID, []string{accountRule}},
		{"account_id", `"{` + w.account.String() + `}"`, apierr.InvalidAccountID, []string{accountRule}},
		{"account_id", `"` + w.account.String() + ` "`, apierr.InvalidAccountID, []string{accountRule}},
		{"account_id", "null", apierr.MissingParameters, []string{"$.account_id is required"}},
		{"merchant_order_id", "1", apierr.InvalidParameters, []string{"$.merchant_order_id must be a string"}},
		{"merchant_order_id", quoted("o", 256), apierr.InvalidParameters, []string{"$.merchant_order_id must have 3 to 255 characters"}},
		{"merchant_order_id", `"order\u001b[2J"`, apierr.InvalidParameters, []string{"$.merchant_order_id must not contain control characters"}},
		{"description", "[]", apierr.InvalidParameters, []string{"$.description must be a string"}},
		{"workflow", `"Direct"`, apierr.InvalidParameters, []string{workflowRule}},
		{"workflow", `""`, apierr.InvalidParameters, []string{"$.workflow must have 1 to 255 characters", workflowRule}},
		{"checkout", "[]", apierr.InvalidParameters, []string{"$.checkout must be an object"}},
		{"customer_payer", "[]", apierr.InvalidParameters, []string{"$.customer_payer must be an object"}},
		{"additional_data", "1", apierr.InvalidParameters, []string{"$.additional_data must be an object"}},
		{"metadata", `[[]]`, apierr.InvalidParameters, []string{"$.metadata[0] must be an object", "$.metadata[0].key is required", "$.metadata[0].value is required"}},
		{"metadata", `[{"key":"k","value":true}]`, apierr.InvalidParameters, []string{"$.metadata[0].value must be a string"}},
		{"payment_method", "[]", apierr.InvalidParameters, []string{
			"$.payment_method must be an object", "$.payment_method.type is required", "$.payment_method.detail.card is required",
		}},
		{"payment_method.type", `"card"`, apierr.UnavailablePaymentMethod, []string{"$.payment_method.type must be CARD: no other payment method is available"}},
		{"payment_method.token", `"` + uuid.NewString() + `"`, apierr.InvalidToken, []string{"$.payment_method.token must be a token of this account and, if it was made in a checkout session, be used there"}},
		{"payment_method.detail", "1", apierr.InvalidParameters, []string{"$.payment_method.detail must be an object", "$.payment_method.detail.card is required"}},
		{"payment_method.detail.card", "[]", apierr.InvalidParameters, []string{"$.payment_method.detail.card must be an object", cardData + " is required"}},
		{cardPath + "capture", `"true"`, apierr.InvalidParameters, []string{"$.payment_method.detail.card.capture must be true or false"}},
		{cardPath + "capture", "1", apierr.InvalidParameters, []string{"$.payment_method.detail.card.capture must be true or false"}},
		{cardPath + "installments", "1e1", apierr.InvalidParameters, []string{installRule}},
		{cardPath + "installments", "99999999999999999999", apierr.InvalidParameters, []string{installRule}},
		{cardPath + "card_data", "[]", apierr.InvalidParameters, []string{
			cardData + " must be an object", cardData + ".number is required", cardData + ".expiration_month is required", cardData + ".expiration_year is required",
		}},
		{cardDataPath + "number", `"4111-1111-1111-1111"`, apierr.InvalidParameters, []string{cardNumberRule}},
		{cardDataPath + "number", "4.111111111111111e15", apierr.InvalidParameters, []string{cardNumberRule}},
		{cardDataPath + "number", `["4111111111111111"]`, apierr.InvalidParameters, []string{cardNumberRule}},
		{cardDataPath + "number", "null", apierr.MissingParameters, []string{cardData + ".number is required"}},
		{cardDataPath + "security_code", "123", apierr.InvalidParameters, []string{codeRule}},
		{cardDataPath + "security_code", `"12 "`, apierr.InvalidParameters, []string{codeRule}},
		{cardDataPath + "expiration_month", "0", apierr.InvalidParameters, []string{monthRule}},
		{cardDataPath + "expiration_month", "13", apierr.InvalidParameters, []string{monthRule}},
		{cardDataPath + "expiration_month", "11.0", apierr.InvalidParameters, []string{monthRule}},
		{cardDataPath + "expiration_month", `"November"`, apierr.InvalidParameters, []string{monthRule}},
		{cardDataPath + "expiration_year", "-28", apierr.InvalidParameters, []string{yearRule}},
		{cardDataPath + "expiration_year", "2100", apierr.InvalidParameters, []string{yearRule}},
		{cardDataPath + "expiration_year", `"11/28"`, apierr.InvalidParameters, []string{yearRule}},
	} {
		status := http.StatusBadRequest
		if c.code == apierr.InvalidToken {
			status = http.StatusUnauthorized
		}
		rows = append(rows, malformed{"payment: " + c.path + " = " + c.json, []change{text(string(w.edited(edit{c.path, c.json})))}, status, c.code, c.messages})
	}
	return rows
}

// malformedQuestions are reads of what is not there, or cannot be.
func (w *world) malformedQuestions() []malformed {
	ask := func(path string, status int, code apierr.Code, message string) malformed {
		return w.rule("GET "+path, status, code, message, asking(path))
	}
	const orders, nonces = "/v1/payments?merchant_order_id=order-1", "/v1/idempotency-keys"
	rows := []malformed{
		ask("/v1/payments", 400, apierr.MissingParameters, "merchant_order_id is required"),
		ask("/v1/payments?merchant_order_id=", 400, apierr.MissingParameters, "merchant_order_id is required"),
		ask("/v1/payments?Merchant_Order_Id=order-1", 400, apierr.MissingParameters, "merchant_order_id is required"),
		ask("/v1/payments?merchant_order_id=%00", 400, apierr.InvalidParameters, orderRule),
		ask("/v1/payments?merchant_order_id=order%00-1", 400, apierr.InvalidParameters, orderRule),
		ask("/v1/payments?merchant_order_id=%ff%fe", 400, apierr.InvalidParameters, orderRule),
		ask("/v1/payments?merchant_order_id=%ed%a0%80", 400, apierr.InvalidParameters, orderRule),
		ask("/v1/payments?merchant_order_id=order-1%0a", 400, apierr.InvalidParameters, orderRule),
		ask("/v1/payments?merchant_order_id=%zz", 400, apierr.MissingParameters, "merchant_order_id is required"), // no pair of a query at all
		ask(nonces+"?nonce=%zz", 400, apierr.MissingParameters, "nonce is required"),
		ask(orders+"&after=1", 400, apierr.InvalidParameters, afterRule),
		ask(orders+"&after=00000000-0000-0000-0000-00000000000g", 400, apierr.InvalidParameters, afterRule),
		ask("/v1/payments/1", 400, apierr.PaymentNotFound, noPayment),
		ask("/v1/payments/"+uuid.NewString(), 400, apierr.PaymentNotFound, noPayment),
		ask("/v1/payments/"+strings.ReplaceAll(uuid.NewString(), "-", ""), 400, apierr.PaymentNotFound, noPayment),
		ask("/v1/payments/%7B"+uuid.NewString()+"%7D", 400, apierr.PaymentNotFound, noPayment),
		ask("/v1/payments/urn:uuid:"+uuid.NewString(), 400, apierr.PaymentNotFound, noPayment),
		ask("/v1/payments/%00", 400, apierr.PaymentNotFound, noPayment),
		ask("/v1/payments/%ff", 400, apierr.PaymentNotFound, noPayment),
		ask("/v1/payments/'%20OR%201=1--", 400, apierr.PaymentNotFound, noPayment),
		ask("/v1/payments/x/y", 404, apierr.NotFound, pathRule),
		ask(nonces, 400, apierr.MissingParameters, "nonce is required"),
		ask(nonces+"/", 400, apierr.MissingParameters, "nonce is required"),
		ask(nonces+"?nonce=", 400, apierr.MissingParameters, "nonce is required"),
		ask(nonces+"?key=nonce-1", 400, apierr.MissingParameters, "nonce is required"),
		ask(nonces+"/a%09b", 400, apierr.InvalidParameters, lookedUpRule),
		ask(nonces+"/%C3%A9", 400, apierr.InvalidParameters, lookedUpRule),
		ask(nonces+"/%ff", 400, apierr.InvalidParameters, lookedUpRule),
		ask(nonces+"/%00", 400, apierr.InvalidParameters, lookedUpRule),
		ask(nonces+"?nonce=%00", 400, apierr.InvalidParameters, lookedUpRule),
		ask(nonces+"?nonce=nonce-1&after=yesterday", 400, apierr.InvalidParameters, afterRule),
		ask(nonces+"/unheard-of", 404, apierr.NotFound, noNonce),
		ask(nonces+"?nonce=unheard-of", 404, apierr.NotFound, noNonce),
	}
	for _, limit := range []string{"0", "-1", "101", "1.5", "1e1", "ten", "%20", "1%00", "99999999999999999999", "%EF%BC%91"} {
		rows = append(rows, ask(orders+"&limit="+limit, 400, apierr.InvalidParameters, limitRule),
			ask(nonces+"?nonce=nonce-1&limit="+limit, 400, apierr.InvalidParameters, limitRule))
	}
	return rows
}

// malformedRoutes are paths and methods that are not there.
func (w *world) malformedRoutes() []malformed {
	var rows []malformed
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v2/payments", "/V1/payments", "/v1/Payments", "//v1/payments", "/v1//payments", "/v1/./payments",
		"/v1/../v1/payments", "/v1%2Fpayments", "/v1/payments%3Fx", "/v1/idempotency-key", "/metrics", "/admin/v1/nonces/nonce-1", "/admin/v1/merchants", "/debug/pprof/",
	} {
		rows = append(rows, w.rule("nowhere: GET "+path, 404, apierr.NotFound, pathRule, asking(path)),
			w.rule("nowhere: POST "+path, 404, apierr.NotFound, pathRule, target(path)))
	}
	for _, r := range [][2]string{
		{"PUT", "/v1/payments"}, {"PATCH", "/v1/payments"}, {"DELETE", "/v1/payments"}, {"TRACE", "/v1/payments"}, {"BREW", "/v1/payments"}, {"post", "/v1/payments"},
		{"POST", "/v1/payments/" + uuid.NewString()}, {"DELETE", "/v1/payments/" + uuid.NewString()}, {"POST", "/v1/idempotency-keys"}, {"DELETE", "/v1/idempotency-keys/nonce-1"},
	} {
		rows = append(rows, w.rule("no method: "+r[0]+" "+r[1], 405, apierr.UnsupportedMethod, methodRule, method(r[0]), target(r[1])))
	}
	return rows
}

// malformedOrders are mistakes of an operator.
func (w *world) malformedOrders() []malformed {
	resolve := func(id string) string { return "/admin/v1/transactions/" + id + "/resolve" }
	const keysOf, made = "/admin/v1/merchants/%s/keys", "/admin/v1/merchants"
	nobody := uuid.NewString()
	var rows []malformed
	for _, c := range []struct {
		path, body string
		status     int
		code       apierr.Code
		message    string
	}{
		{made, "", 400, apierr.InvalidRequest, "$ must not be empty"},
		{made, "[]", 400, apierr.InvalidRequest, "$ must be an object"},
		{made, `{"name":"a","name":"b"}`, 400, apierr.InvalidRequest, "$.name must not appear twice in the same object"},
		{made, `{"name":7}`, 400, apierr.InvalidParameters, "$.name must be a string"},
		{made, `{"name":"` + strings.Repeat("n", 256) + `"}`, 400, apierr.InvalidParameters, "$.name must have 1 to 255 characters"},
		{made, `{"name":"a","idempotency_policy":"other"}`, 400, apierr.InvalidParameters, "$.idempotency_policy must be yuno, novu, fyno or ietf"},
		{fmt.Sprintf(keysOf, w.account), `{}`, 400, apierr.MissingParameters, "$.mode is required"},
		{fmt.Sprintf(keysOf, w.account), `{"mode":"production"}`, 400, apierr.InvalidParameters, "$.mode must be test or live"},
		{fmt.Sprintf(keysOf, "1"), `{"mode":"test"}`, 404, apierr.NotFound, "there is no merchant with this account_id"},
		{fmt.Sprintf(keysOf, nobody), `{"mode":"test"}`, 404, apierr.NotFound, "there is no merchant with this account_id"},
		{resolve("1"), `{"outcome":"failed","reason":"seen"}`, 404, apierr.NotFound, "there is no transaction with this id"},
		{resolve(nobody), `{"outcome":"failed","reason":"seen"}`, 404, apierr.NotFound, "there is no transaction with this id"},
		{resolve(nobody), `{"outcome":"maybe","reason":"seen"}`, 400, apierr.InvalidParameters, "$.outcome must be succeeded or failed"},
		{resolve(nobody), `{"outcome":"failed"}`, 400, apierr.MissingParameters, "$.reason is required"},
		{resolve(nobody), `{"outcome":"failed","reason":"` + strings.Repeat("r", 501) + `"}`, 400, apierr.InvalidParameters, "$.reason must have 1 to 500 characters"},
		{resolve(nobody), `null`, 400, apierr.InvalidRequest, "$ must be an object"},
		{"/admin/v1/nothing", `{}`, 404, apierr.NotFound, pathRule},
	} {
		rows = append(rows, w.rule(fmt.Sprintf("operator: %s %.40s", c.path, c.body), c.status, c.code, c.message, toOperator(c.path, c.body)))
	}
	for _, c := range []struct {
		path    string
		status  int
		code    apierr.Code
		message string
	}{
		{"/admin/v1/nonces", 400, apierr.MissingParameters, "nonce is required"},
		{"/admin/v1/nonces/a%0ab", 400, apierr.InvalidParameters, lookedUpRule},
		{"/admin/v1/nonces/unheard-of", 404, apierr.NotFound, noNonce},
		{"/admin/v1/nonces?nonce=n&account_id=1", 400, apierr.InvalidParameters, "account_id must be a UUID"},
		{"/admin/v1/nonces?nonce=n&after=1", 400, apierr.InvalidParameters, afterRule},
		{resolve(nobody), 405, apierr.UnsupportedMethod, methodRule},
		{made + "?limit=0", 400, apierr.InvalidParameters, limitRule},
		{made + "?after=1", 400, apierr.InvalidParameters, afterRule},
		{made + "/" + nobody, 404, apierr.NotFound, "there is no merchant with this account_id"},
		{fmt.Sprintf(keysOf, nobody), 404, apierr.NotFound, "there is no merchant with this account_id"},
	} {
		rows = append(rows, w.rule("operator: GET "+c.path, c.status, c.code, c.message, operatorAsks(c.path)))
	}
	return append(rows,
		w.rule("operator: no token", 401, apierr.InvalidCredentials, tokenRule, toOperator(made, `{"name":"a"}`), header("Authorization")),
		w.rule("operator: another token", 401, apierr.InvalidCredentials, tokenRule, toOperator(made, `{"name":"a"}`), header("Authorization", "Bearer x")),
		w.rule("operator: no JSON by its type", 415, apierr.UnsupportedMediaType, typeRule, toOperator(made, `{"name":"a"}`), header("Content-Type", "text/plain")),
		w.rule("operator: too much", 413, apierr.RequestTooLarge, tooLargeRule, toOperator(made, `{"name":"`+strings.Repeat("n", httpapi.MaxBody)+`"}`)),
	)
}

// Nothing of all that is written, sent or kept, but a line in the timeline that a
// nonce's request was rejected; and the nonce is as free as before.
func TestMalformedRequestsAreToldExactlyWhatIsWrongAndLeaveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	publicMux, operatorMux := w.edges(w.instance, w.service.log)
	public, operator := w.front(publicMux), w.front(operatorMux)
	good := w.paying("nonce-1", w.body("order-1", nil))

	var rows []malformed
	for _, chapter := range [][]malformed{
		w.malformedCredentials(), w.malformedNonces(), w.malformedTypes(), w.malformedFrames(), w.malformedJSON(), w.malformedPayments(),
		w.malformedQuestions(), w.malformedRoutes(), w.malformedOrders(),
	} {
		rows = append(rows, chapter...)
	}
	if len(rows) < 80 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	before := w.footprint()
	for _, row := range rows {
		l, server := good.but(row.wrong...), public
		if l.operators {
			server = operator
		}
		r := w.send(server, l)
		if row.code == "" {
			if r.status != row.status || string(r.body) != row.messages[0] || r.header.Get(httpapi.HeaderRequestID) != "" {
				t.Errorf("%s: got %s, want %d %s of Go's server", row.name, r, row.status, row.messages[0])
			}
		} else if got, want := fmt.Sprint(r.status, r.code(), r.get("messages")), fmt.Sprint(row.status, row.code, row.messages); got != want {
			t.Errorf("%s: got %s, want %s", row.name, got, want)
			continue
		} else {
			w.wantError(r, row.status, string(row.code), row.messages...)
		}
		w.wantSilent(r, "geheim", w.test.PublicAPIKey, w.test.PrivateSecretKey, operatorToken)
		w.wantUntouched(before, "arrivals")
	}
	if n := w.count(`SELECT count(*) FROM arrivals WHERE nonce <> 'nonce-1' OR verdict <> 'rejected' OR transaction_id IS NOT NULL OR body_differs OR differs <> ''`); n != 0 {
		t.Errorf("%d arrivals say more than that a request was rejected", n)
	}

	r := w.send(public, good)
	w.want(r, http.StatusCreated)
	w.wantNoReplay(r)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}
