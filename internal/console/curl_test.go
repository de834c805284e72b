package console

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/transactions"
)

// shell runs commands with a curl that says what it was given.
type shell struct {
	t   *testing.T
	dir string
}

func newShell(t *testing.T) shell {
	t.Helper()
	dir := t.TempDir()
	fake := "#!/bin/sh\nfor a in \"$@\"; do printf '%s\\0' \"$a\"; done\n"
	if err := os.WriteFile(filepath.Join(dir, "curl"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	return shell{t, dir}
}

// shellSecrets are what is in the shell's environment.
var shellSecrets = []string{
	"PUBLIC_API_KEY=sandbox_public $HOME", "PRIVATE_SECRET_KEY=secret'\"`id`", "CARD_NUMBER=4111111111111111", "CARD_HOLDER=John Doe",
	"CARD_MONTH=11", "CARD_YEAR=40", "CARD_CODE=123",
}

// run is what curl gets as its arguments.
func (s shell) run(command string) []string {
	s.t.Helper()
	c := exec.CommandContext(s.t.Context(), "/bin/sh", "-c", command)
	c.Env = append(slices.Clone(shellSecrets), "PATH="+s.dir)
	c.Dir = s.dir
	out, err := c.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %s\n%s", err, out, command)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

// nasty are texts that a shell, curl or JSON could take for something else.
var nasty = []string{
	"order-71-a", `a'b`, `'; touch pwned; '`, "$(touch pwned)", "`touch pwned`", "${IFS}", `\`, `"`, `"$PRIVATE_SECRET_KEY"`, "a\nb", "-x", "@/etc/passwd",
	"a&b=c", "%2F", "[1-9]{a,b}", "!!", "~", "*", "#", "a\\\nb", "<script>", "é…", "..",
}

// random makes a text of pieces of the nasty ones.
func random(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(6) {
		b.WriteString(nasty[r.IntN(len(nasty))])
	}
	return b.String()
}

func TestAskingGivesTheShellNothingToInterpret(t *testing.T) {
	t.Parallel()
	s, r := newShell(t), rand.New(rand.NewPCG(10, 7))
	for i := range 60 {
		nonce := nasty[i%len(nasty)]
		if i >= len(nasty) {
			nonce = random(r)
		}
		got := s.run(askCurl("http://127.0.0.1:8080", nonce))
		if len(got) != 6 {
			t.Fatalf("%q: curl gets %q", nonce, got)
		}
		u, err := url.Parse(got[1])
		if err != nil || u.Path != "/v1/idempotency-keys" || u.Query().Get("nonce") != nonce || strings.ContainsAny(got[1], "[]{}") {
			t.Errorf("%q is asked for as %s", nonce, got[1])
		}
		if want := []string{"-H", "public-api-key: sandbox_public $HOME", "-H", "private-secret-key: secret'\"`id`"}; !slices.Equal(got[2:], want) {
			t.Errorf("%q: %q", nonce, got[2:])
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "pwned")); err == nil {
		t.Error("something ran")
	}
}

// fileOf is a payment of which every text is the same.
func fileOf(text string) (transactions.PaymentFile, transactions.FileTransaction) {
	quoted, err := json.Marshal(map[string]string{"note": text})
	if err != nil {
		panic(err) // a string always can be
	}
	id := uuid.MustParse("01a20101-4973-7dc0-a5f0-ed1eb569528c")
	file := transactions.PaymentFile{
		PaymentLine: transactions.PaymentLine{ID: id, AccountID: id, Order: text, Amount: decimal.RequireFromString("45.670"), Currency: "USD"},
		Description: text, MerchantReference: text, Country: "US", Workflow: "DIRECT", SoftDescriptor: text, Installments: 3, Capture: true,
		CustomerPayer: string(quoted), Metadata: string(quoted),
	}
	tx := transactions.FileTransaction{
		ID: id, TargetID: id, Type: transactions.Purchase, Amount: file.Amount, Currency: "USD", Reason: text, Description: text, MerchantReference: text,
	}
	return file, tx
}

func policyOf(t *testing.T, name string) idem.Policy {
	t.Helper()
	all, err := idem.NewPolicies(idem.Presets(idem.Options{})...)
	if err != nil {
		t.Fatal(err)
	}
	return all.Of(name)
}

func TestSendingAgainGivesTheShellNothingToInterpret(t *testing.T) {
	t.Parallel()
	s, r := newShell(t), rand.New(rand.NewPCG(10, 8))
	for i := range 60 {
		text := nasty[i%len(nasty)]
		if i >= len(nasty) {
			text = random(r)
		}
		file, tx := fileOf(text)
		command, err := sendCurl("http://127.0.0.1:8080", policyOf(t, "yuno"), file, tx, "nonce")
		if err != nil {
			t.Fatal(err)
		}
		got := s.run(command)
		var body struct {
			Order   string          `json:"merchant_order_id"`
			Amount  json.RawMessage `json:"amount"`
			Payer   map[string]any  `json:"customer_payer"`
			Method  json.RawMessage `json:"payment_method"`
			Account string          `json:"account_id"`
		}
		if err := json.Unmarshal([]byte(got[len(got)-1]), &body); err != nil {
			t.Fatalf("%q: %v in %s", text, err, got[len(got)-1])
		}
		if body.Order != text || body.Payer["note"] != text || body.Account != file.AccountID.String() {
			t.Errorf("%q became %q and %q", text, body.Order, body.Payer)
		}
		if amount := strings.Join(strings.Fields(string(body.Amount)), ""); amount != `{"currency":"USD","value":45.67}` {
			t.Errorf("the amount is %s", amount)
		}
		var method bytes.Buffer
		if err := json.Compact(&method, body.Method); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(method.String(), `"card_data":{"number":"4111111111111111","holder_name":"John Doe","expiration_month":11,"expiration_year":40,"security_code":"123"}`) {
			t.Errorf("the card is %s", body.Method)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "pwned")); err == nil {
		t.Error("something ran")
	}
}

func TestTheNonceIsSentAsItsPolicyReadsIt(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	file, tx := fileOf("text")
	for name, want := range map[string]string{
		"yuno": `X-Idempotency-Key: a"b\c`, "novu": `Idempotency-Key: a"b\c`, "ietf": `Idempotency-Key: "a\"b\\c"`,
	} {
		command, err := sendCurl("http://127.0.0.1:8080", policyOf(t, name), file, tx, `a"b\c`)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.run(command); !slices.Contains(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestActionsAreSentToTheirTransactions(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	file, tx := fileOf("REQUESTED_BY_CUSTOMER")
	for typ, want := range map[transactions.Type]string{
		transactions.Capture: `"value":45.67`, transactions.Refund: `"value":45.67`, transactions.Cancel: "",
	} {
		tx.Type, tx.Route = typ, transactions.Route(strings.ToLower(string(typ)))
		command, err := sendCurl("http://127.0.0.1:8080", policyOf(t, "yuno"), file, tx, "nonce")
		if err != nil {
			t.Fatal(err)
		}
		got := s.run(command)
		at := "http://127.0.0.1:8080/v1/payments/" + file.ID.String() + "/transactions/" + tx.TargetID.String() + "/" + strings.ToLower(string(typ))
		body := strings.Join(strings.Fields(got[len(got)-1]), "")
		if !slices.Contains(got, at) || !strings.Contains(body, want) || want == "" && strings.Contains(body, "amount") || strings.Contains(body, "card") {
			t.Errorf("%s: %q", typ, got)
		}
	}
}

func TestWhatIsNotKeptIsNotMadeUp(t *testing.T) {
	t.Parallel()
	browserPaid, tx := fileOf("text")
	browserPaid.Workflow = transactions.WorkflowSeamless
	keptCard, _ := fileOf("text")
	keptCard.KeptCardID = uuid.New()
	disputed := tx
	disputed.Type = transactions.Chargeback
	for name, c := range map[string]struct {
		file transactions.PaymentFile
		tx   transactions.FileTransaction
	}{"a browser's": {browserPaid, tx}, "with a kept card": {keptCard, tx}, "a dispute": {keptCard, disputed}} {
		if command, err := sendCurl("http://127.0.0.1:8080", policyOf(t, "yuno"), c.file, c.tx, "nonce"); err == nil {
			t.Errorf("%s is %s", name, command)
		}
	}
}
