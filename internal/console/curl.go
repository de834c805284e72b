package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/transactions"
)

// The lines to copy are for a shell that has the merchant's keys in its environment, and the
// card, where one is needed. Neither is ever in them: we keep no secret that could be shown.
const (
	publicKeyVariable  = "PUBLIC_API_KEY"
	privateKeyVariable = "PRIVATE_SECRET_KEY"
)

// cardVariables are where the numbers of a card come from; the members are the API's.
var cardVariables = []struct {
	member, variable string
	text             bool
}{
	{"number", "CARD_NUMBER", true}, {"holder_name", "CARD_HOLDER", true},
	{"expiration_month", "CARD_MONTH", false}, {"expiration_year", "CARD_YEAR", false}, {"security_code", "CARD_CODE", true},
}

// word is one word of a shell's command: pieces that stand for themselves, and variables.
type word []piece

type piece struct {
	text     string
	variable bool
}

func plain(text string) word { return word{{text: text}} }

func variable(name string) piece { return piece{name, true} }

// String is the word as sh reads it. Within single quotes nothing has a meaning but the quote
// itself, so whatever a merchant has sent stays what it is: text. Variables are in double
// quotes, in which their values have no meaning either.
func (w word) String() string {
	var b strings.Builder
	text := ""
	quote := func() {
		if text != "" {
			b.WriteString("'" + strings.ReplaceAll(text, "'", `'\''`) + "'")
		}
		text = ""
	}
	for _, p := range w {
		if !p.variable {
			text += p.text
			continue
		}
		quote()
		b.WriteString(`"$` + p.text + `"`)
	}
	quote()
	return b.String()
}

// command puts words into lines: an option begins a new one.
func command(first string, options ...[2]word) string {
	var b strings.Builder
	b.WriteString(first)
	for _, o := range options {
		b.WriteString(" \\\n  " + o[0][0].text + " " + o[1].String())
	}
	return b.String()
}

func header(name string, value ...piece) [2]word {
	return [2]word{plain("-H"), append(plain(name+": "), value...)}
}

func credentials() [][2]word {
	return [][2]word{
		header(merchants.HeaderPublicKey, variable(publicKeyVariable)),
		header(merchants.HeaderSecret, variable(privateKeyVariable)),
	}
}

// askCurl asks what became of a nonce, as the merchant. The nonce is in the query, because
// curl tidies a path that has dots in it.
func askCurl(base, nonce string) string {
	at := base + "/v1/idempotency-keys?" + url.Values{"nonce": {nonce}}.Encode()
	return command("curl -sS "+plain(at).String(), credentials()...)
}

// errNotKept says that a request cannot be made again from what is kept of it.
var errNotKept = errors.New("what is kept of the request does not make one")

// sendCurl is the request that made a transaction once more, with the same nonce: what is kept
// of it. The card is not: the shell's variables stand for one. It fails with errNotKept where
// that is not enough; nothing of the request is in an error.
func sendCurl(base string, policy idem.Policy, file transactions.PaymentFile, tx transactions.FileTransaction, nonce string) (string, error) {
	path, body, err := "/v1/payments", word(nil), errNotKept
	switch tx.Type {
	case transactions.Purchase, transactions.Authorize, transactions.Verify:
		// The first is what a browser has paid. Of the second it is not kept whether the card
		// was there before, or is there since.
		if file.Workflow != transactions.WorkflowSeamless && file.KeptCardID == uuid.Nil {
			body, err = openingOf(file)
		}
	case transactions.Capture, transactions.Cancel, transactions.Refund:
		// Of a cancel-or-refund it is not kept whether it named the transaction.
		if tx.Route != transactions.RouteCancelOrRefund {
			path += "/" + file.ID.String() + "/transactions/" + tx.TargetID.String() + "/" + string(tx.Route)
			body, err = actionOf(tx)
		}
	case transactions.Chargeback: // nobody here began it
	}
	if err != nil {
		return "", err
	}
	options := append(credentials(),
		header(policy.Headers[0], piece{text: sentForm(policy.Format, nonce)}),
		header("Content-Type", piece{text: "application/json"}),
		[2]word{plain("--data-binary"), body})
	return command("curl -sS -i "+plain(base+path).String(), options...), nil
}

// sentForm is a nonce as its header takes it.
func sentForm(format idem.Format, nonce string) string {
	if format == idem.Quoted || format == idem.QuotedOrBare {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(nonce) + `"`
	}
	return nonce
}

// amount is as the API takes it. The value is a JSON number, digit by digit as it was.
type amount struct {
	Currency string      `json:"currency"`
	Value    json.Number `json:"value"`
}

// again is a request as the API takes it, but for how it was paid.
type again struct {
	AccountID         string          `json:"account_id,omitempty"`
	MerchantOrderID   string          `json:"merchant_order_id,omitempty"`
	MerchantReference string          `json:"merchant_reference,omitempty"`
	Description       string          `json:"description,omitempty"`
	Reason            string          `json:"reason,omitempty"`
	Country           string          `json:"country,omitempty"`
	Amount            *amount         `json:"amount,omitempty"`
	Workflow          string          `json:"workflow,omitempty"`
	CallbackURL       string          `json:"callback_url,omitempty"`
	Checkout          *checkoutOf     `json:"checkout,omitempty"`
	CustomerPayer     json.RawMessage `json:"customer_payer,omitempty"`
	AdditionalData    json.RawMessage `json:"additional_data,omitempty"`
	Metadata          json.RawMessage `json:"metadata,omitempty"`
}

type checkoutOf struct {
	Session string `json:"session"`
}

// actionOf is the body of a capture, a cancellation or a refund.
func actionOf(tx transactions.FileTransaction) (word, error) {
	body := again{MerchantReference: tx.MerchantReference, Description: tx.Description, Reason: tx.Reason}
	if tx.Type != transactions.Cancel {
		body.Amount = &amount{tx.Currency, json.Number(tx.Amount.String())}
	}
	text, err := indented(body)
	return plain(text), err
}

// openingOf is the body of a request that made a payment.
func openingOf(file transactions.PaymentFile) (word, error) {
	body := again{
		AccountID: file.AccountID.String(), MerchantOrderID: file.Order, MerchantReference: file.MerchantReference,
		Description: file.Description, Country: file.Country, Amount: &amount{file.Currency, json.Number(file.Amount.String())},
		Workflow: file.Workflow, CallbackURL: file.CallbackURL,
		CustomerPayer: json.RawMessage(file.CustomerPayer), AdditionalData: json.RawMessage(file.AdditionalData), Metadata: json.RawMessage(file.Metadata),
	}
	if file.SessionID != uuid.Nil {
		body.Checkout = &checkoutOf{file.SessionID.String()}
	}
	text, err := indented(body)
	if err != nil {
		return nil, err
	}
	method, err := methodOf(file)
	if err != nil {
		return nil, err
	}
	open := strings.TrimSuffix(text, "\n}")
	return append(append(plain(open+",\n  \"payment_method\": "), method...), piece{text: "\n}"}), nil
}

// methodOf is how it was paid: with a one-time token, or with a card, for which variables
// stand.
func methodOf(file transactions.PaymentFile) (word, error) {
	text, err := compact(struct {
		Capture        bool   `json:"capture"`
		Verify         bool   `json:"verify,omitempty"`
		Installments   int    `json:"installments"`
		SoftDescriptor string `json:"soft_descriptor,omitempty"`
	}{file.Capture, file.Verify, max(file.Installments, 1), file.SoftDescriptor})
	if err != nil {
		return nil, err
	}
	if file.TokenID != uuid.Nil {
		return plain(`{"type":"CARD","token":"` + file.TokenID.String() + `","detail":{"card":` + text + `}}`), nil
	}
	w := plain(`{"type":"CARD","detail":{"card":` + strings.TrimSuffix(text, "}") + ",\"card_data\":{\n      ")
	for i, c := range cardVariables {
		before, quote := ",\n      ", ""
		if i == 0 {
			before = ""
		}
		if c.text {
			quote = `"`
		}
		w = append(w, piece{text: before + `"` + c.member + `":` + quote}, variable(c.variable))
		if quote != "" {
			w = append(w, piece{text: quote})
		}
	}
	return append(w, piece{text: "\n  }}}}"}), nil
}

func indented(v any) (string, error) {
	text, err := compact(v)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return "", errNotKept
	}
	return b.String(), nil
}

// compact is v as JSON, with < and > as they are: nobody's browser reads it.
func compact(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return "", errNotKept // the cause may quote it
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
