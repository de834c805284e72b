package admin

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/oncepay/oncepay/internal/apidocs"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/operators"
)

// Rule says who may use a route of the operator's listener.
type Rule struct {
	// Open is for everybody: what has no secrets, and the way in.
	Open bool
	// Role is the least that may.
	Role operators.Role
	// Password asks a person for theirs again: money moves, or a credential changes.
	Password bool
	// Unattended is for what a page asks by itself, as long as it is open. That nobody has
	// gone home is not to be concluded from it.
	Unattended bool
}

// The rules there are.
var (
	open     = Rule{Open: true}
	view     = Rule{Role: operators.Viewer}
	watch    = Rule{Role: operators.Viewer, Unattended: true}
	operate  = Rule{Role: operators.Operator}
	manage   = Rule{Role: operators.Admin}
	money    = Rule{Role: operators.Operator, Password: true}
	security = Rule{Role: operators.Admin, Password: true}
)

// rules are those of all routes of the listener, by method and route. A route that is not
// here is refused to everybody, whatever it does.
var rules = map[string]Rule{
	// Who watches over processes has no credentials, and the figures name no merchant.
	"GET " + httpapi.MetricsPath: open,
	"GET " + httpapi.LivezPath:   open,
	"GET " + httpapi.ReadyzPath:  open,

	// Profiles show no data, but what is being worked on, and taking one costs time.
	"GET /debug/pprof/":             manage,
	"GET /debug/pprof/profile":      manage,
	"GET /debug/pprof/trace":        manage,
	"GET /debug/pprof/allocs":       manage,
	"GET /debug/pprof/block":        manage,
	"GET /debug/pprof/goroutine":    manage,
	"GET /debug/pprof/heap":         manage,
	"GET /debug/pprof/mutex":        manage,
	"GET /debug/pprof/threadcreate": manage,

	// The operator's API.
	"GET /admin/v1/nonces":                                     view,
	"GET /admin/v1/nonces/*":                                   view,
	"GET /admin/v1/invariants":                                 view,
	"POST /admin/v1/transactions/:transaction_id/resolve":      operate,
	"GET /admin/v1/differences":                                view,
	"POST /admin/v1/reconciliations":                           operate,
	"GET /admin/v1/merchants":                                  view,
	"GET /admin/v1/merchants/:account_id":                      view,
	"GET /admin/v1/merchants/:account_id/keys":                 view,
	"POST /admin/v1/merchants":                                 manage,
	"PATCH /admin/v1/merchants/:account_id":                    manage,
	"POST /admin/v1/merchants/:account_id/disable":             manage,
	"POST /admin/v1/merchants/:account_id/enable":              manage,
	"POST /admin/v1/merchants/:account_id/keys":                manage,
	"PATCH /admin/v1/merchants/:account_id/keys/:key_id":       manage,
	"POST /admin/v1/merchants/:account_id/keys/:key_id/rotate": manage,
	"POST /admin/v1/merchants/:account_id/keys/:key_id/revoke": manage,

	"GET /admin/v1/operators":                            manage,
	"POST /admin/v1/operators":                           manage,
	"PATCH /admin/v1/operators/:name":                    manage,
	"POST /admin/v1/operators/:name/reset-password":      manage,
	"POST /admin/v1/operators/:name/sign-out":            manage,
	"POST /admin/v1/operators/:name/withdraw-invitation": manage,
	"GET /admin/v1/tokens":                               manage,
	"POST /admin/v1/tokens":                              manage,
	"POST /admin/v1/tokens/:token_id/revoke":             manage,

	// The console's way in.
	"GET /assets/:file":         open,
	"GET /sign-in":              open,
	"POST /sign-in":             open,
	"GET /invitations/:secret":  open,
	"POST /invitations/:secret": open,
	"POST /sign-out":            view,

	// The console.
	"GET /account":                                      view,
	"POST /account":                                     view, // the password that it asks for is the one that it changes
	"GET /":                                             view,
	"GET /front":                                        watch,
	"GET /audit":                                        view,
	"POST /audit/verify":                                view,
	"GET /merchants":                                    view,
	"POST /merchants":                                   security,
	"GET /merchants/:account_id":                        view,
	"POST /merchants/:account_id":                       security,
	"POST /merchants/:account_id/disable":               security,
	"POST /merchants/:account_id/enable":                security,
	"GET /merchants/:account_id/keys":                   watch,
	"POST /merchants/:account_id/keys":                  security,
	"GET /merchants/:account_id/keys/:key_id":           view,
	"POST /merchants/:account_id/keys/:key_id/restrict": security,
	"POST /merchants/:account_id/keys/:key_id/revoke":   security,
	"POST /merchants/:account_id/keys/:key_id/rotate":   security,
	"GET /merchants/:account_id/keys/:key_id/state":     watch,
	"GET /operators":                                    manage,
	"POST /operators":                                   security,
	"GET /operators/:name":                              manage,
	"POST /operators/:name/disable":                     security,
	"POST /operators/:name/enable":                      security,
	"POST /operators/:name/reset-password":              security,
	"POST /operators/:name/role":                        security,
	"POST /operators/:name/sign-out":                    security,
	"POST /operators/:name/withdraw-invitation":         security,
	"GET /payments":                                     view,
	"GET /payments.csv":                                 view,
	"GET /payments/:payment_id":                         view,
	"POST /payments/:payment_id/cancel":                 money,
	"POST /payments/:payment_id/capture":                money,
	"POST /payments/:payment_id/refund":                 money,
	"GET /payments/rows":                                watch,
	"GET /nonces":                                       view,
	"GET /nonces/*":                                     view,
	"GET /search":                                       view,
	"GET /tokens":                                       manage,
	"POST /tokens":                                      security,
	"POST /tokens/:token_id/revoke":                     security,
	"GET /transactions/:transaction_id":                 view,
	"POST /transactions/:transaction_id/resolve":        money,
	"GET /unsettled":                                    view,
}

// RuleOf finds the rule of a route. Documentation is no secret.
func RuleOf(method, route string) (Rule, bool) {
	if method == http.MethodGet && apidocs.Serves(route) {
		return open, true
	}
	r, ok := rules[method+" "+route]
	return r, ok
}

// Ruled are the routes with a rule, as "METHOD route", in order, but for documentation.
func Ruled() []string { return slices.Sorted(maps.Keys(rules)) }

// ForPrograms says whether a path is for programs, who bring a token with each request where
// one is needed, and are answered in the API's envelope; all others are for people, who sign
// in. It is asked for paths that lead nowhere, too.
func ForPrograms(path string) bool {
	switch path {
	case apiPrefix, httpapi.MetricsPath, httpapi.LivezPath, httpapi.ReadyzPath:
		return true
	}
	return strings.HasPrefix(path, apiPrefix+"/") || strings.HasPrefix(path, "/debug/") || apidocs.Serves(path)
}
