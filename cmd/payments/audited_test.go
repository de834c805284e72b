package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/operators"
)

// deed is a request that is not a mere look, and the entries that it leaves: none, if it
// changes nothing by itself.
type deed struct {
	route, target, body string
	entries             []string
}

// unresolved is a payment whose outcome the bank has not told.
func (r *running) unresolved(o owned, nonce string) string {
	r.t.Helper()
	body := strings.Replace(o.body(), "A test payment", "unclear", 1)
	r.ask(false, http.MethodPost, "/v1/payments", body, append(o.keys(), "X-Idempotency-Key", nonce)...)
	var id string
	if err := r.db.Conn(r.t.Context()).Raw(`SELECT id FROM transactions WHERE nonce = ?`, nonce).Row().Scan(&id); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// deeds are all that an admin can do, by the API or by the console. link makes a link for
// somebody, and token a token, whose id it returns.
func (r *running) deeds(o, other owned, console bool) []deed {
	r.t.Helper()
	ctx, kind := r.t.Context(), map[bool]string{true: "console", false: "api"}[console]
	person := func(name string) string {
		link, err := r.operators.Invite(ctx, name+"-"+kind, operators.Viewer)
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err = r.operators.Accept(ctx, link.Secret, "", "a long password of "+kind, ""); err != nil {
			r.t.Fatal(err)
		}
		return name + "-" + kind
	}
	grace, joan := person("grace"), person("joan")
	if _, err := r.operators.Invite(ctx, "late-"+kind, operators.Viewer); err != nil {
		r.t.Fatal(err)
	}
	made, _, err := r.operators.CreateToken(ctx, "a program", operators.Viewer, operators.DefaultTokenLife)
	if err != nil {
		r.t.Fatal(err)
	}
	tx := r.unresolved(o, "unclear-by-"+kind)
	merchant, theirs := "merchants/"+o.account, "merchants/"+other.account
	key, theirKey := merchant+"/keys/"+o.pair.ID.String(), theirs+"/keys/"+other.pair.ID.String()
	if !console {
		return []deed{
			{"POST /admin/v1/merchants", "merchants", `{"name":"Third"}`, []string{"merchant.created", "key.created"}},
			{"PATCH /admin/v1/merchants/:account_id", merchant, `{"name":"Renamed"}`, []string{"merchant.updated"}},
			{"POST /admin/v1/merchants/:account_id/disable", theirs + "/disable", "", []string{"merchant.disabled"}},
			{"POST /admin/v1/merchants/:account_id/enable", theirs + "/enable", "", []string{"merchant.enabled"}},
			{"POST /admin/v1/merchants/:account_id/keys", merchant + "/keys", `{"mode":"live"}`, []string{"key.created"}},
			{"PATCH /admin/v1/merchants/:account_id/keys/:key_id", key, `{"allowed_networks":["10.0.0.0/8"]}`, []string{"key.restricted"}},
			{"POST /admin/v1/merchants/:account_id/keys/:key_id/rotate", key + "/rotate", `{}`, []string{"key.created", "key.rotated"}},
			{"POST /admin/v1/merchants/:account_id/keys/:key_id/revoke", theirKey + "/revoke", "", []string{"key.revoked"}},
			{"POST /admin/v1/reconciliations", "reconciliations", `{"since":"1h"}`, []string{"reconciliation.ordered"}},
			{"POST /admin/v1/transactions/:transaction_id/resolve", "transactions/" + tx + "/resolve", `{"outcome":"succeeded","reason":"seen"}`, []string{"transaction.resolved"}},
			{"POST /admin/v1/operators", "operators", `{"name":"new-api","role":"viewer"}`, []string{"operator.invited"}},
			{"PATCH /admin/v1/operators/:name", "operators/" + grace, `{"role":"operator","disabled":true}`, []string{"operator.role_changed", "operator.disabled"}},
			{"POST /admin/v1/operators/:name/reset-password", "operators/" + joan + "/reset-password", "", []string{"operator.password_reset_sent"}},
			{"POST /admin/v1/operators/:name/sign-out", "operators/" + joan + "/sign-out", "", []string{"operator.signed_out"}},
			{"POST /admin/v1/operators/:name/withdraw-invitation", "operators/late-api/withdraw-invitation", "", []string{"operator.invitation_withdrawn"}},
			{"POST /admin/v1/tokens", "tokens", `{"name":"another","scope":"viewer"}`, []string{"token.created"}},
			{"POST /admin/v1/tokens/:token_id/revoke", "tokens/" + made.ID.String() + "/revoke", "", []string{"token.revoked"}},
		}
	}
	order := func(s sale, amount, reason string) string {
		return url.Values{"transaction": {s.transaction}, "nonce": {uuid.NewString()}, "amount": {amount}, "reason": {reason}}.Encode()
	}
	return []deed{
		{"GET /payments.csv", "payments.csv?order=some", "", []string{"payments.exported"}},
		{"POST /merchants", "merchants", "name=Fourth&policy=yuno", []string{"merchant.created", "key.created"}},
		{"POST /merchants/:account_id", merchant, "name=Again&policy=yuno&shown=SHOWN", []string{"merchant.updated"}},
		{"POST /merchants/:account_id/disable", theirs + "/disable", "", []string{"merchant.disabled"}},
		{"POST /merchants/:account_id/enable", theirs + "/enable", "", []string{"merchant.enabled"}},
		{"POST /merchants/:account_id/keys", merchant + "/keys", "mode=live", []string{"key.created"}},
		{"POST /merchants/:account_id/keys/:key_id/restrict", key + "/restrict", "networks=10.0.0.0/8", []string{"key.restricted"}},
		{"POST /merchants/:account_id/keys/:key_id/rotate", key + "/rotate", "overlap_seconds=3600", []string{"key.created", "key.rotated"}},
		{"POST /merchants/:account_id/keys/:key_id/revoke", theirKey + "/revoke", "", []string{"key.revoked"}},
		{"POST /payments/:payment_id/cancel", "payments/" + o.held[0].payment + "/cancel", order(o.held[0], "", ""), []string{"payment.cancel_ordered"}},
		{"POST /payments/:payment_id/capture", "payments/" + o.held[1].payment + "/capture", order(o.held[1], "1", "PRODUCT_CONFIRMED"), []string{"payment.capture_ordered"}},
		{"POST /payments/:payment_id/refund", "payments/" + o.payment + "/refund", order(o.sale, "1", ""), []string{"payment.refund_ordered"}},
		{"POST /transactions/:transaction_id/resolve", "transactions/" + tx + "/resolve", "outcome=succeeded&reason=seen", []string{"transaction.resolved"}},
		{"POST /audit/verify", "audit/verify", "", nil},
		{"POST /operators", "operators", "name=new-console&role=viewer", []string{"operator.invited"}},
		{"POST /operators/:name/role", "operators/" + grace + "/role", "role=operator", []string{"operator.role_changed"}},
		{"POST /operators/:name/disable", "operators/" + grace + "/disable", "", []string{"operator.disabled"}},
		{"POST /operators/:name/enable", "operators/" + grace + "/enable", "", []string{"operator.enabled"}},
		{"POST /operators/:name/reset-password", "operators/" + joan + "/reset-password", "", []string{"operator.password_reset_sent"}},
		{"POST /operators/:name/sign-out", "operators/" + joan + "/sign-out", "", []string{"operator.signed_out"}},
		{"POST /operators/:name/withdraw-invitation", "operators/late-console/withdraw-invitation", "", []string{"operator.invitation_withdrawn"}},
		{"POST /tokens", "tokens", "name=more&scope=viewer&days=1", []string{"token.created"}},
		{"POST /tokens/:token_id/revoke", "tokens/" + made.ID.String() + "/revoke", "", []string{"token.revoked"}},
		{"POST /account", "account", "current=CURRENT&password=another+long+password&again=another+long+password", []string{"operator.password_changed", "operator.signed_in"}},
		{"POST /sign-out", "sign-out", "", []string{"operator.signed_out"}}, // the last: it ends the session
	}
}

// Whatever changes something leaves exactly the entries that tell of it, each with who did
// it, from where and in which request. The routes are those that are mounted: one that is
// added without a line above fails.
func TestEveryChangeIsInTheAuditLogWithWhoAndWhence(t *testing.T) {
	t.Parallel()
	r := start(t)
	ctx := t.Context()
	const password = "a long password of the chief"
	link, err := r.operators.Invite(ctx, "chief", operators.Admin)
	if err != nil {
		t.Fatal(err)
	}
	in, err := r.operators.Accept(ctx, link.Secret, "", password, "")
	if err != nil {
		t.Fatal(err)
	}
	made, secret, err := r.operators.CreateToken(ctx, "deeds", operators.Admin, operators.DefaultTokenLife)
	if err != nil {
		t.Fatal(err)
	}
	done := []string{"POST /sign-in", "POST /invitations/:secret"} // who they are is known only when they are in: see below
	for _, console := range []bool{false, true} {
		who := audit.Actor{Kind: audit.KindToken, ID: made.ID.String(), Name: "deeds"}
		headers := []string{"Authorization", "Bearer " + secret}
		if console {
			who = audit.Actor{Kind: audit.KindOperator, ID: in.Principal.ID.String(), Name: "chief"}
			headers = []string{"Cookie", "oncepay_session=" + in.Session, "Content-Type", "application/x-www-form-urlencoded"}
		}
		first, _, other, _ := r.people()
		for _, d := range r.deeds(first, other, console) {
			done = append(done, d.route)
			method, target, body := strings.SplitN(d.route, " ", 2)[0], "/admin/v1/"+d.target, d.body
			if console {
				target, body = "/"+d.target, body+"&"+url.Values{"password": {password}}.Encode()
				body = strings.Replace(body, "CURRENT", url.QueryEscape(password), 1)
				if strings.Contains(body, "SHOWN") {
					page := string(r.ask(true, http.MethodGet, target, "", headers...).body)
					_, shown, _ := strings.Cut(page, `name="shown" value="`)
					shown, _, _ = strings.Cut(shown, `"`)
					body = strings.Replace(body, "SHOWN", shown, 1)
				}
			}
			before, err := audit.Log{DB: r.db}.Head(ctx)
			if err != nil {
				t.Fatal(err)
			}
			a := r.ask(true, method, target, body, headers...)
			who.Address = fmt.Sprintf("10.%d.%d.%d", r.calls>>16&255, r.calls>>8&255, r.calls&255)
			who.RequestID = a.header.Get("X-Request-Id")
			if a.status >= 400 {
				t.Errorf("%s: %s", d.route, a)
			}
			for _, cookie := range (&http.Response{Header: a.header}).Cookies() {
				if cookie.Name == "oncepay_session" && cookie.Value != "" {
					headers[1] = "oncepay_session=" + cookie.Value
				}
			}
			found, err := audit.Log{DB: r.db}.Page(ctx, audit.Filter{}, 0, 20)
			if err != nil {
				t.Fatal(err)
			}
			var actions []string
			for _, e := range found.Records {
				if e.Seq <= before.Seq {
					continue
				}
				actions = append(actions, e.Action)
				if e.Actor != who {
					t.Errorf("%s: %s was done by %+v, want %+v", d.route, e.Action, e.Actor, who)
				}
				for name, value := range e.Details {
					if strings.Contains(value, password) || strings.Contains(value, secret) || strings.Contains(value, "_secret_") {
						t.Errorf("%s: a secret is in %s", d.route, name)
					}
				}
			}
			slices.Sort(actions)
			slices.Sort(d.entries)
			if !slices.Equal(actions, d.entries) {
				t.Errorf("%s left %v, want %v: %s", d.route, actions, d.entries, a)
			}
		}
	}
	for _, name := range r.routes(r.operator) {
		if !strings.HasPrefix(name, "GET ") && !slices.Contains(done, name) {
			t.Errorf("nobody has looked whether %s is in the audit log", name)
		}
	}
}

// One who comes in is in the log by the name they have from then on; one who does not is
// nobody, and what was given for a name that nobody has is not written down.
func TestWhoComesInIsInTheAuditLogAndAStrangersNameIsNot(t *testing.T) {
	t.Parallel()
	r := start(t)
	const password = "a long password of the first"
	link, _, err := r.operators.FirstInvitation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	for _, step := range []struct {
		target  string
		values  url.Values
		actor   audit.Kind
		entries []string
	}{
		{link.Path(), url.Values{"name": {"ada"}, "password": {password}, "again": {password}}, audit.KindOperator, []string{"operator.created", "operator.signed_in"}},
		{"/sign-in", url.Values{"name": {"ada"}, "password": {password}}, audit.KindOperator, []string{"operator.signed_in"}},
		{"/sign-in", url.Values{"name": {"ada"}, "password": {"a wrong password"}}, audit.KindNobody, []string{"operator.sign_in_failed"}},
		{"/sign-in", url.Values{"name": {"my-secret-password"}, "password": {"a wrong password"}}, audit.KindNobody, nil},
		{link.Path(), url.Values{"name": {"eve"}, "password": {password}, "again": {password}}, audit.KindNobody, nil},
	} {
		before, err := audit.Log{DB: r.db}.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a := r.ask(true, http.MethodPost, step.target, step.values.Encode(), form...)
		found, err := audit.Log{DB: r.db}.Page(t.Context(), audit.Filter{}, 0, 20)
		if err != nil {
			t.Fatal(err)
		}
		var actions []string
		for _, e := range found.Records {
			if e.Seq <= before.Seq {
				continue
			}
			actions = append(actions, e.Action)
			if e.Actor.Kind != step.actor || e.Actor.RequestID != a.header.Get("X-Request-Id") || e.Actor.Address == "" {
				t.Errorf("%s by %+v", e.Action, e.Actor)
			}
		}
		slices.Sort(actions)
		if !slices.Equal(actions, step.entries) {
			t.Errorf("%v left %v, want %v: %s", step.values["name"], actions, step.entries, a)
		}
	}
}

// Who orders money to be moved is in the log, with what they ordered: also if the order has a
// nonce that somebody else's refused order had, which anybody reads in the log.
func TestAnOrderUnderSomebodyElsesNonceIsInTheAuditLog(t *testing.T) {
	t.Parallel()
	r := start(t)
	o, _, _, _ := r.people()
	const password = "a long password of both"
	nonce := uuid.NewString()
	for _, by := range []struct {
		name, amount string
		status       int
	}{{"ada", "5000", http.StatusBadRequest}, {"grace", "7.50", http.StatusSeeOther}} {
		link, err := r.operators.Invite(t.Context(), by.name, operators.Operator)
		if err != nil {
			t.Fatal(err)
		}
		in, err := r.operators.Accept(t.Context(), link.Secret, "", password, "")
		if err != nil {
			t.Fatal(err)
		}
		form := url.Values{"transaction": {o.transaction}, "nonce": {nonce}, "amount": {by.amount}, "password": {password}}
		a := r.ask(true, http.MethodPost, "/payments/"+o.payment+"/refund", form.Encode(),
			"Cookie", "oncepay_session="+in.Session, "Content-Type", "application/x-www-form-urlencoded")
		if a.status != by.status {
			t.Errorf("%s: %s", by.name, a)
		}
		found, err := audit.Log{DB: r.db}.Page(t.Context(), audit.Filter{Action: "payment.refund_ordered", Actor: by.name}, 0, 20)
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Records) != 1 || found.Records[0].Details["amount"] != strings.TrimSuffix(by.amount, "0") && found.Records[0].Details["amount"] != by.amount {
			t.Errorf("of %s, who ordered %s, the log has %v", by.name, by.amount, found.Records)
		}
	}
}
