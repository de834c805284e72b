// Package console is what operators see: pages on their own listener that say what became
// of a nonce, of a payment, of a merchant's key.
//
// The pages are made by the server and work without a script. htmx, which is embedded, only
// exchanges parts of them; nothing is evaluated, nothing comes from elsewhere, and the
// Content-Security-Policy holds it to that. Who may see or do what is not decided here: see
// package admin.
package console

import (
	"net/url"
	"strings"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/operators"
	"github.com/oncepay/oncepay/internal/telemetry"
	"github.com/oncepay/oncepay/internal/transactions"
)

// Options are what the pages show.
type Options struct {
	Payments  *transactions.Service
	Merchants *merchants.Service
	Operators *operators.Service
	Audit     audit.Log
	Minutes   *telemetry.Minutes
	// BaseURL is where merchants reach the API, for lines to copy.
	BaseURL func() string
	Version string
}

// section is a part of the console that its navigation leads to.
type section struct {
	Name, Path string
	Role       operators.Role // the least for whom it is of use
}

// sections are in the order of the navigation.
var sections = []section{
	{"Overview", "/", operators.Viewer},
	{"Payments", "/payments", operators.Viewer},
	{"Unsettled", "/unsettled", operators.Viewer},
	{"Merchants", "/merchants", operators.Viewer},
	{"Audit", "/audit", operators.Viewer},
	{"Operators", "/operators", operators.Admin},
}

// page is what the layout is given.
type page struct {
	Title   string
	Section string // the path of the current section; "": none
	Who     operators.Principal
	Version string
	Query   string // what was searched for
	Data    any
}

// May reports whether whoever sees the page has a role.
func (p page) May(role string) bool { return p.Who.Role.Includes(operators.Role(role)) }

// Sections are those of use for whoever sees the page.
func (p page) Sections() []section {
	var all []section
	for _, s := range sections {
		if p.Who.Role.Includes(s.Role) {
			all = append(all, s)
		}
	}
	return all
}

// SignedIn reports whether there is anybody who has signed in.
func (p page) SignedIn() bool { return p.Who.Kind == audit.KindOperator }

// noncePath is the page of a nonce, which may hold any printable character. Browsers take
// "." and ".." for directories, however they are written: those two are in the query.
func noncePath(nonce string) string {
	if nonce == "." || nonce == ".." {
		return "/nonces?" + url.Values{paramNonce: {nonce}}.Encode()
	}
	return "/nonces/" + url.PathEscape(nonce)
}

// localPath is where somebody goes on to after they have signed in: a path of ours, and
// nobody else's page. Browsers take a backslash for a slash, and leave some of what is not
// visible out before they look; whatever our own links lead to is visible ASCII.
func localPath(next string) string {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsFunc(next, odd) {
		return "/"
	}
	return next
}

// said is what an error says, without the sign that JSON's paths begin with.
func said(e *apierr.Error) []string {
	all := make([]string, len(e.Messages))
	for i, m := range e.Messages {
		all[i] = strings.TrimPrefix(m, "$.")
	}
	return all
}

// joined is what an error says, in one line.
func joined(e *apierr.Error) string { return strings.Join(said(e), "; ") }
