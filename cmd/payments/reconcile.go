package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"

	"github.com/oncepay/oncepay/internal/transactions"
)

// reconcileCmd compares our books with the providers', step by step.
type reconcileCmd struct {
	operatorFlags
	Since    string `required:"" env:"-" help:"From when on: a time such as 2026-11-22T08:00:00Z, or how long ago, such as 24h." placeholder:"WHEN"`
	Until    string `env:"-" help:"Up to when: a time such as 2026-11-22T09:00:00Z (default: as late as can be, which is some minutes ago)." placeholder:"TIME"`
	Provider string `env:"-" help:"Only this provider's books (default: all providers')." placeholder:"NAME"`
}

// maxReported bounds what is held of the differences until they are printed. All of
// them are kept by the API.
const maxReported = 1000

// reported is a step as the API tells it. The differences are passed on as they came.
type reported struct {
	Provider    string              `json:"provider"`
	From        string              `json:"from"`
	To          string              `json:"to"`
	Counts      transactions.Counts `json:"counts"`
	Differences []json.RawMessage   `json:"differences"`
	Next        *string             `json:"next"`
}

// summed is all steps of one provider.
type summed struct {
	Provider string              `json:"provider"`
	From     string              `json:"from"`
	To       string              `json:"to"`
	Counts   transactions.Counts `json:"counts"`
}

// report is all steps together, by provider.
type report struct {
	Providers   []*summed         `json:"providers"`
	Differences []json.RawMessage `json:"differences"`
	// Truncated says that there are more differences than these.
	Truncated bool `json:"truncated"`
}

// add adds a step.
func (r *report) add(s reported) {
	last := len(r.Providers) - 1
	if last < 0 || r.Providers[last].Provider != s.Provider {
		r.Providers = append(r.Providers, &summed{Provider: s.Provider, From: s.From})
		last++
	}
	p := r.Providers[last]
	p.To, p.Counts = s.To, p.Counts.Plus(s.Counts)
	r.Differences = append(r.Differences, s.Differences...)
	r.Truncated = r.Truncated || len(s.Differences) < s.Counts.Differences()
	if len(r.Differences) > maxReported {
		r.Differences, r.Truncated = r.Differences[:maxReported], true
	}
}

// differences is how many there are in all.
func (r *report) differences() (n int) {
	for _, p := range r.Providers {
		n += p.Counts.Differences()
	}
	return n
}

// Run compares, telling on the way how far it is, and fails if anything differs.
func (c reconcileCmd) Run(ctx context.Context, s streams) error {
	o, err := c.connect()
	if err != nil {
		return err
	}
	ask := map[string]string{"since": c.Since}
	for name, value := range map[string]string{"until": c.Until, "provider": c.Provider} {
		if value != "" {
			ask[name] = value
		}
	}
	all := &report{Providers: []*summed{}, Differences: []json.RawMessage{}}
	for {
		data, err := o.do(ctx, http.MethodPost, "/admin/v1/reconciliations", ask)
		if err != nil {
			return err
		}
		var step reported
		if json.Unmarshal(data, &step) != nil {
			return errUnreadable
		}
		fmt.Fprintf(s.err, "%s  %s to %s  %d matched, %d different, %d open\n",
			step.Provider, step.From, step.To, step.Counts.Matched, step.Counts.Differences(), step.Counts.Open)
		all.add(step)
		if step.Next == nil {
			break
		}
		ask = map[string]string{"after": *step.Next}
	}
	if err := c.print(s.out, all); err != nil {
		return err
	}
	if n := all.differences(); n > 0 {
		return fmt.Errorf("the books differ, %d times; docs/operate/reconciliation.md says what each difference means", n)
	}
	return nil
}

func (c reconcileCmd) print(out io.Writer, all *report) error {
	if c.JSON {
		return json.NewEncoder(out).Encode(all)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, raw := range all.Differences {
		var d struct {
			Provider       string      `json:"provider"`
			AccountID      string      `json:"account_id"`
			Reference      string      `json:"reference"`
			Finding        string      `json:"finding"`
			OurStatus      string      `json:"our_status"`
			OurAmount      json.Number `json:"our_amount"`
			ProviderStatus string      `json:"provider_status"`
			ProviderAmount json.Number `json:"provider_amount"`
			Currency       string      `json:"currency"`
		}
		if json.Unmarshal(raw, &d) != nil {
			return errUnreadable
		}
		// Quoted: what a provider says may hold what a terminal takes for a command.
		fmt.Fprintf(w, "%s\t%s\t%q\t%q\there %s\tthere %s\t%q\n", d.Provider, d.Finding, d.AccountID, d.Reference,
			side(d.OurStatus, d.OurAmount), side(d.ProviderStatus, d.ProviderAmount), d.Currency)
	}
	if all.Truncated {
		fmt.Fprintln(w, "… and more: GET /admin/v1/differences has all of them")
	}
	if len(all.Differences) > 0 {
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "provider\tfrom\tto\tmatched\tmissing_here\tmissing_there\tamount_differs\topen")
	for _, p := range all.Providers {
		n := p.Counts
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", p.Provider, p.From, p.To, n.Matched, n.MissingHere, n.MissingThere, n.AmountDiffers, n.Open)
	}
	return w.Flush()
}

// side is what one side says.
func side(status string, amount json.Number) string {
	switch {
	case status == "":
		return "nothing"
	case amount == "":
		return status
	}
	return status + " " + amount.String()
}
