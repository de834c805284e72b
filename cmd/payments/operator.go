package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/transactions"
)

// operatorFlags say which instance to ask.
type operatorFlags struct {
	AdminURL string `help:"URL of the operator's listener (default: the running dev's). PAYMENTS_ADMIN_TOKEN goes with it." placeholder:"URL"`
	AdminCA  string `name:"admin-ca" help:"The authority behind the certificate at --admin-url, in PEM (default: those that this machine trusts)." placeholder:"FILE"`
	DataDir  string `default:".data" help:"Folder of the running dev, where --admin-url is not given." type:"path"`
	JSON     bool   `name:"json" help:"Print JSON."`
}

const (
	// operatorTimeout is longer than a resolve takes, which may ask the provider.
	operatorTimeout = 90 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 16 << 20
)

// operator speaks to the operator's API.
type operator struct {
	url, token string
	client     *http.Client
}

func (f operatorFlags) connect() (operator, error) {
	transport, err := clientTrusting(f.AdminCA)
	if err != nil {
		return operator{}, err
	}
	o := operator{url: strings.TrimRight(f.AdminURL, "/"), client: &http.Client{Timeout: operatorTimeout, Transport: transport}}
	if o.token, err = setting(envAdminToken); err != nil {
		return o, err
	}
	if o.url == "" {
		d, err := readDevInfo(f.DataDir)
		if err != nil {
			return o, unavailableError("no `payments dev` is running on %s; start one, or give --admin-url and %s", f.DataDir, envAdminToken)
		}
		o.url, o.token = d.AdminURL, d.AdminToken
	}
	if o.token == "" {
		return o, usage("%s is not set: it goes with --admin-url", envAdminToken)
	}
	return o, nil
}

// do sends one request and returns the body of a 200 or 201. A refusal's messages become
// the error.
func (o operator) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, o.url+path, payload)
	if err != nil {
		return nil, usage("--admin-url must be a URL such as http://127.0.0.1:8081")
	}
	req.Header.Set("Authorization", "Bearer "+o.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := o.client.Do(req)
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted {
		return nil, unavailableError("%s shows a certificate that is not trusted; give its authority with --admin-ca, and a URL with a name that it is for", o.url)
	}
	if err != nil {
		return nil, unavailableError("nobody answers at %s: is it running?", o.url)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, unavailableError("the answer from %s broke off", o.url)
	}
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusCreated {
		return data, nil
	}
	var refusal struct{ Messages []string }
	_ = json.Unmarshal(data, &refusal) // without messages the status must do
	told := strings.Join(refusal.Messages, "; ")
	if told == "" {
		told = res.Status
	}
	switch res.StatusCode {
	case http.StatusNotFound:
		return nil, notFound("%s", told)
	case http.StatusServiceUnavailable:
		return nil, unavailableError("%s", told)
	}
	return nil, errors.New(told)
}

// order connects and asks for something to be done.
func (f operatorFlags) order(ctx context.Context, path string, body any) ([]byte, error) {
	o, err := f.connect()
	if err != nil {
		return nil, err
	}
	return o.do(ctx, http.MethodPost, path, body)
}

var errUnreadable = errors.New("the answer cannot be read; is the other side of this version?")

// show prints an answer: as it came where --json asks for that, else read, by tell.
func show[T any](f operatorFlags, out io.Writer, answer []byte, tell func(T)) error {
	if f.JSON {
		_, err := out.Write(answer)
		return err
	}
	var read T
	if json.Unmarshal(answer, &read) != nil {
		return errUnreadable
	}
	tell(read)
	return nil
}

// lookupCmd tells what became of a nonce.
type lookupCmd struct {
	operatorFlags
	Nonce     string `arg:"" help:"The value of X-Idempotency-Key."`
	AccountID string `env:"-" help:"Only this merchant's lives (default: all merchants')." placeholder:"UUID"`
}

// Run prints the nonce's lives, the newest first.
func (c lookupCmd) Run(ctx context.Context, s streams) error {
	o, err := c.connect()
	if err != nil {
		return err
	}
	q := url.Values{"nonce": {c.Nonce}}
	if c.AccountID != "" {
		q.Set("account_id", c.AccountID)
	}
	data, err := o.do(ctx, http.MethodGet, "/admin/v1/nonces?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(found transactions.Lives) {
		for _, l := range found.Lives {
			printLife(s.out, l)
		}
	})
}

func printLife(w io.Writer, l transactions.Life) {
	key := string(l.KeyState)
	if l.AnswerStatus != nil {
		key += ", with " + strconv.Itoa(*l.AnswerStatus)
	}
	fmt.Fprintf(w, "%s\n\n  key          %s\n  policy       %s\n  payment      %s\n  transaction  %s  %s %s, attempts %d\n  account      %s (%s)\n  charges      %d\n\n",
		l.Verdict, key, l.Policy, l.PaymentID, l.Transaction.ID, l.Transaction.Type, l.Transaction.Status, l.Transaction.Attempts,
		l.AccountID, l.Mode, l.Charges)
	for _, m := range l.Timeline {
		fmt.Fprintf(w, "  %s  %s\n", m.At, describeMoment(m))
	}
	if l.Truncated {
		fmt.Fprintln(w, "  … and more, not shown")
	}
	fmt.Fprintln(w)
}

// describeMoment is one line of a timeline, in the order a person reads it.
func describeMoment(m transactions.Moment) string {
	parts := []string{fmt.Sprintf("%-11s", m.Kind)}
	for _, p := range []string{m.Verdict, m.Outcome, m.Reason} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if m.BodyDiffers != nil && *m.BodyDiffers {
		parts = append(parts, strings.TrimSpace("another body "+strings.Join(m.Differs, ", ")))
	}
	if m.Provider != "" {
		parts = append(parts, "at "+m.Provider)
	}
	if m.Reference != "" {
		parts = append(parts, "as "+m.Reference)
	}
	if m.DurationMS != nil {
		parts = append(parts, fmt.Sprintf("in %d ms", *m.DurationMS))
	}
	if m.By != "" {
		parts = append(parts, "by "+m.By)
	}
	if m.RequestID != "" {
		parts = append(parts, "request "+m.RequestID)
	}
	return strings.Join(parts, "  ")
}

// resolveCmd decides what became of a transaction.
type resolveCmd struct {
	operatorFlags
	Transaction       string `arg:"" help:"The transaction's id."`
	Outcome           string `required:"" env:"-" enum:"succeeded,failed" help:"What the provider's own records say: succeeded or failed."`
	ProviderReference string `env:"-" help:"The provider's id of the charge, at most 255 characters." placeholder:"ID"`
	Reason            string `required:"" env:"-" help:"Why, 1 to 500 characters; kept with the decision." placeholder:"TEXT"`
}

// Run sends the decision and prints what the transaction is now.
func (c resolveCmd) Run(ctx context.Context, s streams) error {
	data, err := c.order(ctx, "/admin/v1/transactions/"+url.PathEscape(c.Transaction)+"/resolve", map[string]string{
		"outcome": c.Outcome, "provider_reference": c.ProviderReference, "reason": c.Reason,
	})
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(t struct{ ID, Status string }) {
		fmt.Fprintf(s.out, "transaction %s is %s\n", t.ID, t.Status)
	})
}

// invariantsCmd has the whole database recomputed.
type invariantsCmd struct {
	operatorFlags
}

// Why `payments invariants` fails: a script's reason to wake somebody, or to try again.
var (
	errViolated  = errors.New("the database breaks its own rules; docs/operate/invariants.md says what each means")
	errUnchecked = errors.New("not everything could be checked; the log of the instance says why")
)

// Run prints each check with what it found. It fails unless all of them were made and
// found nothing.
func (c invariantsCmd) Run(ctx context.Context, s streams) error {
	o, err := c.connect()
	if err != nil {
		return err
	}
	o.client.Timeout = transactions.InvariantsLimit + operatorTimeout
	data, err := o.do(ctx, http.MethodGet, "/admin/v1/invariants", nil)
	if err != nil {
		return err
	}
	var found transactions.Invariants
	if json.Unmarshal(data, &found) != nil {
		return errUnreadable
	}
	if err := show(c.operatorFlags, s.out, data, func(transactions.Invariants) { printInvariants(s.out, found) }); err != nil {
		return err
	}
	violated := slices.ContainsFunc(found.Checks, func(i transactions.Invariant) bool { return i.Violations != nil && *i.Violations > 0 })
	switch {
	case violated:
		return errViolated
	case !found.OK:
		return errUnchecked
	}
	return nil
}

func printInvariants(w io.Writer, found transactions.Invariants) {
	for _, i := range found.Checks {
		switch {
		case i.OK:
			fmt.Fprintf(w, "ok        %s\n", i.Name)
		case i.Violations == nil:
			fmt.Fprintf(w, "unknown   %s: it could not be checked in time\n", i.Name)
		default:
			fmt.Fprintf(w, "VIOLATED  %s: %d\n", i.Name, *i.Violations)
		}
	}
}
