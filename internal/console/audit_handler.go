package console

import (
	"context"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/operators"
)

const (
	pathAudit = "/audit"

	// auditLimit is how many entries a page shows: a few screens.
	auditLimit = 50
	// verifyFor bounds the check that a page waits for. Some hundred thousand entries are
	// computed meanwhile; more are for the command line.
	verifyFor = 10 * time.Second
)

// auditHandler serves the pages of the audit log.
type auditHandler struct {
	*Handler
	checking chan struct{} // one check at a time: it reads the whole log
	limit    time.Duration // of one check
}

func (h *Handler) mountAudit(e *echo.Echo) {
	a := &auditHandler{h, make(chan struct{}, 1), verifyFor}
	e.GET(pathAudit, a.list)
	e.POST(pathAudit+"/verify", a.verify)
}

// auditFilter is which entries are shown, as it was asked for.
type auditFilter struct{ Target, Actor, Action, Account string }

// params are the parameters of a filter. They are in links that people keep.
func (f auditFilter) params() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"target": f.Target, "actor": f.Actor, "action": f.Action, "account": f.Account} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return v
}

// Active reports whether there is a filter at all.
func (f auditFilter) Active() bool { return f != auditFilter{} }

// path is where those entries are that match, with other parameters.
func (f auditFilter) path(more ...string) string {
	v := f.params()
	for i := 0; i+1 < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	if len(v) == 0 {
		return pathAudit
	}
	return pathAudit + "?" + v.Encode()
}

// auditPage is what the page of the audit log shows.
type auditPage struct {
	Filter   auditFilter
	Problem  string
	Lines    []auditLine
	LookedTo int64  // where the page ends that has looked at enough; 0: it is full, or all
	Older    string // where it goes on; "": it ends
	Newest   string // where it begins; "": here
	Anchor   string // that was entered
	Verdict  *auditVerdict
}

// auditLine is an entry as a page shows it.
type auditLine struct {
	audit.Record
	Path  string // of what it is about; "": there is no page of it
	Facts []auditFact
}

// Same is where the entries are that are about the same.
func (l auditLine) Same() string { return auditFilter{Target: l.Target}.path() }

// By is where those are of who did it.
func (l auditLine) By() string { return auditFilter{Actor: l.Actor.Name}.path() }

// Alike is where those are of things that were done as this was.
func (l auditLine) Alike() string { return auditFilter{Action: l.Action}.path() }

// Sum is the beginning of the hash, enough to tell two apart.
func (l auditLine) Sum() string {
	const length = 12
	sum := hex.EncodeToString(l.Hash)
	return sum[:min(length, len(sum))]
}

// auditFact is one of an entry's details, with what was there before, if it says so.
type auditFact struct {
	Name, Value, Before string
	Changed             bool
}

// beforeSuffix is what an entry calls a detail that another one replaced.
const beforeSuffix = "_before"

// auditFacts are an entry's details by their names.
func auditFacts(details map[string]string) []auditFact {
	var facts []auditFact
	for name, value := range details {
		if is, before := strings.CutSuffix(name, beforeSuffix); before {
			if _, told := details[is]; told {
				continue // it is told there
			}
		}
		before, changed := details[name+beforeSuffix]
		facts = append(facts, auditFact{name, value, before, changed})
	}
	slices.SortFunc(facts, func(a, b auditFact) int { return strings.Compare(a.Name, b.Name) })
	return facts
}

// targetPath is the page of what an entry is about, for somebody with that role; "" where
// there is none.
func targetPath(r audit.Record, role operators.Role) string {
	noun, name, _ := strings.Cut(r.Target, "/")
	id, isID := fields.ParseID(name)
	switch {
	case noun == "merchant" && isID:
		return merchantPath(id)
	case noun == "key" && isID && r.AccountID != uuid.Nil:
		return keyPath(r.AccountID, id)
	case noun == "payment" && isID:
		return "/payments/" + id.String()
	case noun == "transaction" && isID:
		return "/transactions/" + id.String()
	case noun == "operator" && name != "" && role.Includes(operators.Admin):
		return operatorPath(name)
	case noun == "token" && isID && role.Includes(operators.Admin):
		return pathOperators + "#token-" + id.String()
	}
	return ""
}

// list is GET /audit.
func (a *auditHandler) list(c echo.Context) error {
	return a.auditPage(c, http.StatusOK, func(*auditPage) {})
}

// auditPage shows the entries that were asked for; fill adds what was found out.
func (a *auditHandler) auditPage(c echo.Context, status int, fill func(p *auditPage)) error {
	p := auditPage{Filter: auditFilter{
		strings.TrimSpace(c.QueryParam("target")), strings.TrimSpace(c.QueryParam("actor")),
		strings.TrimSpace(c.QueryParam("action")), strings.TrimSpace(c.QueryParam("account")),
	}}
	f, before, err := p.asked(c.QueryParam("before"))
	if r, ok := refused(err); ok {
		p.Problem = r.Words
		return a.show(c, r.Status, "audit", page{Title: "Audit", Section: pathAudit, Data: p})
	}
	found, err := a.o.Audit.Page(c.Request().Context(), f, before, auditLimit)
	if err != nil {
		return err
	}
	role := operators.PrincipalOf(c).Role
	for _, r := range found.Records {
		p.Lines = append(p.Lines, auditLine{r, targetPath(r, role), auditFacts(r.Details)})
	}
	if found.Next > 0 {
		p.Older = p.Filter.path("before", strconv.FormatInt(found.Next, 10))
	}
	if found.Partial {
		p.LookedTo = found.Next
	}
	if before > 0 {
		p.Newest = p.Filter.path()
	}
	fill(&p)
	return a.show(c, status, "audit", page{Title: "Audit", Section: pathAudit, Data: p})
}

// asked is a filter as the log takes it.
func (p auditPage) asked(before string) (f audit.Filter, from int64, err error) {
	f = audit.Filter{Target: p.Filter.Target, Actor: p.Filter.Actor, Action: p.Filter.Action}
	if p.Filter.Account != "" {
		id, ok := fields.ParseID(p.Filter.Account)
		if !ok {
			return f, 0, apierr.New(apierr.InvalidParameters, "the account must be an id of 36 characters")
		}
		f.AccountID = id
	}
	if before != "" {
		if from, err = strconv.ParseInt(before, 10, 64); err != nil || from < 1 {
			return f, 0, apierr.New(apierr.InvalidParameters, "before must be the number of an entry")
		}
	}
	return f, from, nil
}

// auditVerdict is what a check has found.
type auditVerdict struct {
	audit.Report
	// Stopped says that there was no time for all: Entries of Of are as they were written.
	Stopped bool
	Of      int64
}

// verify is POST /audit/verify. It changes nothing.
func (a *auditHandler) verify(c echo.Context) error {
	ctx, entered := c.Request().Context(), strings.TrimSpace(c.FormValue("anchor"))
	var o audit.VerifyOptions
	if entered != "" {
		o.Anchor = new(audit.Anchor)
		if o.Anchor.UnmarshalText([]byte(entered)) != nil {
			return a.auditPage(c, http.StatusBadRequest, func(p *auditPage) {
				p.Anchor, p.Problem = entered, "the anchor must be the number of an entry, a colon and its hash in 64 hexadecimal digits"
			})
		}
	}
	select {
	case a.checking <- struct{}{}:
		defer func() { <-a.checking }()
	default:
		return a.auditPage(c, http.StatusConflict, func(p *auditPage) {
			p.Anchor, p.Problem = entered, "somebody else is checking the chain at the moment; try again in a few seconds"
		})
	}
	v, err := a.check(ctx, o)
	if err != nil {
		return err
	}
	return a.auditPage(c, http.StatusOK, func(p *auditPage) { p.Anchor, p.Verdict = entered, v })
}

// check walks the chain for as long as somebody waits for a page.
func (a *auditHandler) check(ctx context.Context, o audit.VerifyOptions) (*auditVerdict, error) {
	limited, cancel := context.WithTimeout(ctx, a.limit)
	defer cancel()
	var v auditVerdict
	o.Progress = func(done, of int64) { v.Entries, v.Of = done, of }
	r, err := a.o.Audit.Verify(limited, o)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		v.Stopped = true
		return &v, nil
	}
	return &auditVerdict{Report: r}, err
}
