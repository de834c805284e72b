package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/apidocs"
	"github.com/oncepay/oncepay/internal/operators"
)

// accessPage is what operators read of this. Its table is made of the rules:
//
//	go test ./cmd/payments -run TestAccessPage -update
const accessPage = "../../docs/operate/access.md"

var roles = []operators.Role{operators.Viewer, operators.Operator, operators.Admin}

// asker is somebody who asks on the operator's listener: in which role, and how they show
// it to a program's routes and to a page.
type asker struct {
	name          string
	role          operators.Role // "": none
	token, cookie string
}

// askers are somebody of each role, and strangers.
func (r *running) askers() []asker {
	r.t.Helper()
	ctx := r.t.Context()
	all := []asker{
		{name: "nobody"},
		{name: "a made-up token and session", token: operators.TokenPrefix + strings.Repeat("x", 43), cookie: strings.Repeat("y", 43)},
		{name: "PAYMENTS_ADMIN_TOKEN", role: operators.Admin, token: r.cfg.adminToken},
	}
	for i, role := range roles {
		name := "person-" + string(role)
		link, err := r.operators.Invite(ctx, name, role)
		if err != nil {
			r.t.Fatal(err)
		}
		in, err := r.operators.Accept(ctx, link.Secret, name, "a long password of "+string(role), "")
		if err != nil {
			r.t.Fatal(err)
		}
		_, token, err := r.operators.CreateToken(ctx, fmt.Sprint("token ", i), role, 24*time.Hour)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, asker{"a session of role " + string(role), role, "", in.Session}, asker{"a token of scope " + string(role), role, token, ""})
	}
	return all
}

// parameter is one of a route's.
var parameter = regexp.MustCompile(`:[a-z_]+|\*`)

// opened reports whether an answer is one of a route that has let somebody in. What it has
// to say of a body that is empty and of things that are nowhere does not matter here.
func opened(a answered) bool {
	if a.status == http.StatusUnauthorized || strings.HasPrefix(a.header.Get("Location"), "/sign-in") {
		return false
	}
	return a.status != http.StatusForbidden || bytes.Contains(a.body, []byte("INVALID_CREDENTIALS")) // the password was asked for
}

// Each route of the operator's listener has a rule, each rule a route, and each role gets
// in where the rule says, and nowhere else: by session to the pages, by token to the API.
func TestEveryRoleGetsInWhereTheRulesSayAndNowhereElse(t *testing.T) {
	t.Parallel()
	r := start(t)
	routes := r.routes(r.operator)
	for _, name := range admin.Ruled() {
		if !slices.Contains(routes, name) {
			t.Errorf("there is a rule for %s, and nothing there", name)
		}
	}
	askers, tried := r.askers(), 0
	for _, name := range routes {
		method, route, _ := strings.Cut(name, " ")
		rule, ruled := admin.RuleOf(method, route)
		if !ruled {
			t.Errorf("there is no rule for %s", name)
			continue
		}
		switch route {
		case "/debug/pprof/profile", "/debug/pprof/trace", "/sign-out": // two are one at a time, the third ends what it is asked with
			continue
		case "/sign-in": // in front of every rule, and it refuses by itself
			continue
		}
		programs := admin.ForPrograms(route)
		target := parameter.ReplaceAllStringFunc(route, func(string) string { return uuid.NewString() })
		for _, who := range askers {
			var headers []string
			if who.token != "" {
				headers = append(headers, "Authorization", "Bearer "+who.token)
			}
			if who.cookie != "" {
				headers = append(headers, "Cookie", "oncepay_session="+who.cookie)
			}
			if !programs && method == http.MethodPost {
				headers = append(headers, "Content-Type", "application/x-www-form-urlencoded")
			}
			shown := who.token != "" && programs || who.cookie != "" && !programs
			want := rule.Open || shown && who.role.Includes(rule.Role)
			tried++
			if a := r.ask(true, method, target, "", headers...); opened(a) != want {
				t.Errorf("%s, with %s: let in: %t, want %t: %s", name, who.name, !want, want, a)
			}
		}
	}
	if tried < 500 {
		t.Errorf("only %d of role and route were tried", tried)
	}
}

// A page of another site cannot act for whoever has signed in, whatever it sends.
func TestNoOtherSiteActsForWhoHasSignedIn(t *testing.T) {
	t.Parallel()
	r := start(t)
	var in asker
	for _, who := range r.askers() {
		if who.role == operators.Admin && who.cookie != "" {
			in = who
		}
	}
	form := []string{"Cookie", "oncepay_session=" + in.cookie, "Content-Type", "application/x-www-form-urlencoded"}
	for name, from := range map[string][]string{
		"another site":     {"Sec-Fetch-Site", "cross-site"},
		"a sibling":        {"Sec-Fetch-Site", "same-site"},
		"an older browser": {"Origin", "https://elsewhere.example"},
		"a hidden origin":  {"Origin", "null"},
	} {
		for _, route := range r.routes(r.operator) {
			method, path, _ := strings.Cut(route, " ")
			if method != http.MethodPost || admin.ForPrograms(path) {
				continue
			}
			target := parameter.ReplaceAllStringFunc(path, func(string) string { return uuid.NewString() })
			a := r.ask(true, method, target, url.Values{"password": {"a long password of admin"}}.Encode(), append(slices.Clone(form), from...)...)
			if a.status != http.StatusForbidden || !bytes.Contains(a.body, []byte("another site")) {
				t.Errorf("%s, from %s: %s", route, name, a)
			}
		}
	}
	if a := r.ask(true, http.MethodPost, "/sign-out", "", append(form, "Sec-Fetch-Site", "same-origin")...); a.status != http.StatusSeeOther {
		t.Errorf("from our own page: %s", a)
	}
}

// accessTable is the rules as a table: who may use which route.
func accessTable() string {
	var b strings.Builder
	b.WriteString("| route | viewer | operator | admin |\n|---|---|---|---|\n")
	for _, pages := range []bool{true, false} {
		for _, name := range admin.Ruled() {
			method, route, _ := strings.Cut(name, " ")
			rule, _ := admin.RuleOf(method, route)
			if admin.ForPrograms(route) == pages || apidocs.Serves(route) {
				continue
			}
			if rule.Open {
				fmt.Fprintf(&b, "| `%s` | everybody | everybody | everybody |\n", name)
				continue
			}
			fmt.Fprintf(&b, "| `%s` |", name)
			for _, role := range roles {
				switch {
				case !role.Includes(rule.Role):
					b.WriteString(" no |")
				case rule.Password:
					b.WriteString(" password again |")
				default:
					b.WriteString(" yes |")
				}
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// TestAccessPageIsMadeOfTheRules is not parallel, because it may write.
func TestAccessPageIsMadeOfTheRules(t *testing.T) {
	was, err := os.ReadFile(accessPage)
	if err != nil {
		t.Fatal(err)
	}
	is := withPart(t, string(was), "access", accessTable())
	if is == string(was) {
		return
	}
	if *updatePage {
		if err := os.WriteFile(accessPage, []byte(is), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s is not what the rules say: run this test with -update", accessPage)
}
