package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// merchantsCmd looks after merchants, through the operator's API.
type merchantsCmd struct {
	Create  merchantsCreateCmd  `cmd:"" help:"Make a merchant with a key for test mode."`
	List    merchantsListCmd    `cmd:"" help:"List the merchants, the newest first."`
	Show    merchantsShowCmd    `cmd:"" help:"Show one merchant."`
	Update  merchantsUpdateCmd  `cmd:"" help:"Change how a merchant's nonces behave, where its pages may call from, or its name."`
	Disable merchantsDisableCmd `cmd:"" help:"Take none of a merchant's keys any more."`
	Enable  merchantsEnableCmd  `cmd:"" help:"Take a disabled merchant's keys again."`
}

// listPage is how many entries of a list are asked for at a time: the most there are.
const listPage = 100

// merchantView is a merchant as the operator's API shows it.
type merchantView struct {
	AccountID         string   `json:"account_id"`
	Name              string   `json:"name"`
	IdempotencyPolicy string   `json:"idempotency_policy"`
	Origins           []string `json:"origins"`
	CreatedAt         string   `json:"created_at"`
	DisabledAt        *string  `json:"disabled_at"`
}

// state is whether the merchant's keys are taken.
func (m merchantView) state() string {
	if m.DisabledAt != nil {
		return "disabled since " + *m.DisabledAt
	}
	return "enabled"
}

// print prints the merchant. Its name is quoted: it may hold what a terminal takes for a
// command, which an origin cannot.
func (m merchantView) print(w io.Writer) {
	fmt.Fprintf(w, "merchant %s is %s\n\n  name     %q\n  policy   %s\n  created  %s\n",
		m.AccountID, m.state(), m.Name, m.IdempotencyPolicy, m.CreatedAt)
	label := "origins"
	for _, o := range m.Origins {
		fmt.Fprintf(w, "  %-7s  %s\n", label, o)
		label = ""
	}
}

// line is the merchant on one line.
func (m merchantView) line() string {
	parts := []string{m.AccountID, m.state(), fmt.Sprintf("%-4s", m.IdempotencyPolicy), strconv.Quote(m.Name), "created " + m.CreatedAt}
	if len(m.Origins) > 0 {
		parts = append(parts, "origins "+strings.Join(m.Origins, ","))
	}
	return strings.Join(parts, "  ")
}

// madeMerchant is a merchant in the answer that made it.
type madeMerchant struct {
	merchantView
	APIKey madeKey `json:"api_key"`
}

type merchantsCreateCmd struct {
	operatorFlags
	Name   string   `arg:"" help:"The merchant's name."`
	Policy string   `env:"-" help:"How the merchant's nonces behave: yuno, novu, fyno or ietf (default: yuno)." placeholder:"NAME"`
	Origin []string `env:"-" sep:"none" help:"An origin whose pages may call from a browser, such as https://shop.example; give it again for each, 50 at most (default: none's)." placeholder:"ORIGIN"`
}

// Run makes a merchant and prints it with its first key.
func (c merchantsCreateCmd) Run(ctx context.Context, s streams) error {
	data, err := c.order(ctx, "/admin/v1/merchants", map[string]any{"name": c.Name, "idempotency_policy": c.Policy, "origins": c.Origin})
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(m madeMerchant) {
		fmt.Fprintf(s.out, "merchant %s is made: %q\n\n", m.AccountID, m.Name)
		m.APIKey.print(s.out)
	})
}

type merchantsListCmd struct{ operatorFlags }

// Run prints the merchants.
func (c merchantsListCmd) Run(ctx context.Context, s streams) error {
	return list(ctx, c.operatorFlags, s.out, "/admin/v1/merchants", func(m merchantView) (id, line string) {
		return m.AccountID, m.line()
	})
}

type merchantsShowCmd struct {
	operatorFlags
	AccountID string `arg:"" help:"The merchant's account_id."`
}

// Run prints a merchant.
func (c merchantsShowCmd) Run(ctx context.Context, s streams) error {
	o, err := c.connect()
	if err != nil {
		return err
	}
	data, err := o.do(ctx, http.MethodGet, merchantPath(c.AccountID), nil)
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(m merchantView) { m.print(s.out) })
}

type merchantsUpdateCmd struct {
	operatorFlags
	AccountID string   `arg:"" help:"The merchant's account_id."`
	Policy    *string  `env:"-" help:"How the merchant's new nonces are to behave: yuno, novu, fyno or ietf." placeholder:"NAME"`
	Name      *string  `env:"-" help:"The merchant's new name." placeholder:"TEXT"`
	Origin    []string `env:"-" sep:"none" help:"An origin whose pages may call from a browser, such as https://shop.example; give all of them, each with its flag: they replace those that there were." placeholder:"ORIGIN"`
	NoOrigins bool     `env:"-" help:"No page of others may call any more."`
}

// wanted is what the operator's API is asked for.
func (c merchantsUpdateCmd) wanted() (map[string]any, error) {
	wanted := map[string]any{}
	if c.Policy != nil {
		wanted["idempotency_policy"] = *c.Policy
	}
	if c.Name != nil {
		wanted["name"] = *c.Name
	}
	switch {
	case c.NoOrigins && c.Origin != nil:
		return nil, usage("--origin and --no-origins contradict each other")
	case c.NoOrigins:
		wanted["origins"] = []string{}
	case c.Origin != nil:
		wanted["origins"] = c.Origin
	}
	if len(wanted) == 0 {
		return nil, usage("say what is to be different: --policy, --name, --origin or --no-origins")
	}
	return wanted, nil
}

// Run changes a merchant and prints it as it is then.
func (c merchantsUpdateCmd) Run(ctx context.Context, s streams) error {
	wanted, err := c.wanted()
	if err != nil {
		return err
	}
	o, err := c.connect()
	if err != nil {
		return err
	}
	data, err := o.do(ctx, http.MethodPatch, merchantPath(c.AccountID), wanted)
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(m merchantView) {
		m.print(s.out)
		if c.Policy != nil {
			fmt.Fprintln(s.out, "\nWithin 5 s the policy holds on every instance, for new nonces; what has begun keeps its own.")
		}
		if wanted["origins"] != nil {
			fmt.Fprintln(s.out, "\nWithin 5 s the origins hold on every instance.")
		}
	})
}

// merchantPath is where the operator's API has a merchant.
func merchantPath(account string) string { return "/admin/v1/merchants/" + url.PathEscape(account) }

type merchantsDisableCmd struct {
	operatorFlags
	AccountID string `arg:"" help:"The merchant's account_id."`
}

// Run disables a merchant.
func (c merchantsDisableCmd) Run(ctx context.Context, s streams) error {
	return setDisabled(ctx, c.operatorFlags, s.out, c.AccountID, "disable", "disabled: within 5 s none of its keys is taken")
}

type merchantsEnableCmd struct {
	operatorFlags
	AccountID string `arg:"" help:"The merchant's account_id."`
}

// Run enables a merchant.
func (c merchantsEnableCmd) Run(ctx context.Context, s streams) error {
	return setDisabled(ctx, c.operatorFlags, s.out, c.AccountID, "enable", "enabled")
}

func setDisabled(ctx context.Context, f operatorFlags, out io.Writer, account, action, done string) error {
	data, err := f.order(ctx, merchantPath(account)+"/"+action, nil)
	if err != nil {
		return err
	}
	return show(f, out, data, func(m merchantView) { fmt.Fprintf(out, "merchant %s is %s\n", m.AccountID, done) })
}

// list prints a list of the operator's API as it comes, page by page: however long it
// is, no more than a page of it is held. line makes a line of an entry, and tells its
// id, behind which the next page begins. With --json the list is printed as one array.
func list[T any](ctx context.Context, f operatorFlags, out io.Writer, path string, line func(T) (id, text string)) error {
	o, err := f.connect()
	if err != nil {
		return err
	}
	printed, after := 0, ""
	for {
		q := url.Values{"limit": {strconv.Itoa(listPage)}}
		if after != "" {
			q.Set("after", after)
		}
		data, err := o.do(ctx, http.MethodGet, path+"?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		var page []json.RawMessage
		if json.Unmarshal(data, &page) != nil {
			return errUnreadable
		}
		for _, raw := range page {
			var entry T
			if json.Unmarshal(raw, &entry) != nil {
				return errUnreadable
			}
			id, text := line(entry)
			after = id
			switch {
			case !f.JSON:
				fmt.Fprintln(out, text)
			case printed == 0:
				fmt.Fprintf(out, "[%s", raw)
			default:
				fmt.Fprintf(out, ",\n%s", raw)
			}
			printed++
		}
		if len(page) < listPage {
			break
		}
	}
	switch {
	case f.JSON && printed == 0:
		fmt.Fprintln(out, "[]")
	case f.JSON:
		fmt.Fprintln(out, "]")
	}
	return nil
}
