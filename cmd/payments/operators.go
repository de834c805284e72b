package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// operatorsCmd looks after those who may sign in to the console, through the operator's API.
type operatorsCmd struct {
	List          operatorsListCmd     `cmd:"" help:"List the operators, the newest first."`
	Invite        operatorsInviteCmd   `cmd:"" help:"Make a link by which somebody new chooses a password."`
	Withdraw      operatorsWithdrawCmd `cmd:"" help:"End a link that nobody has used."`
	SetRole       operatorsSetRoleCmd  `cmd:"" help:"Give an operator another role."`
	Disable       operatorsDisableCmd  `cmd:"" help:"Let an operator not sign in any more."`
	Enable        operatorsEnableCmd   `cmd:"" help:"Let a disabled operator sign in again."`
	ResetPassword operatorsResetCmd    `cmd:"" help:"Make a link by which an operator chooses another password."`
	SignOut       operatorsSignOutCmd  `cmd:"" help:"End all sessions of an operator."`
}

const operatorsPath = "/admin/v1/operators"

// ofOperator says whom it is about.
type ofOperator struct {
	Name string `arg:"" help:"What the operator signs in with."`
}

func (o ofOperator) path() string { return operatorsPath + "/" + url.PathEscape(o.Name) }

// personView is an operator as the operator's API shows one.
type personView struct {
	ID         string  `json:"id"`
	Name       string  `json:"name"`
	Role       string  `json:"role"`
	DisabledAt *string `json:"disabled_at"`
	SeenAt     *string `json:"seen_at"`
}

// line is an operator on one line.
func (p personView) line() string {
	state, seen := "enabled", "no session"
	if p.DisabledAt != nil {
		state = "disabled since " + *p.DisabledAt
	}
	if p.SeenAt != nil {
		seen = "seen " + *p.SeenAt
	}
	return strings.Join([]string{p.Name, fmt.Sprintf("%-8s", p.Role), state, seen}, "  ")
}

type operatorsListCmd struct{ operatorFlags }

// Run prints the operators.
func (c operatorsListCmd) Run(ctx context.Context, s streams) error {
	return list(ctx, c.operatorFlags, s.out, operatorsPath, func(p personView) (id, line string) { return p.ID, p.line() })
}

// linkView is a link in the answer that made it.
type linkView struct {
	Name           string `json:"name"`
	Role           string `json:"role"`
	InvitationPath string `json:"invitation_path"`
	ExpiresAt      string `json:"expires_at"`
}

// showLink prints a link with the address that was asked.
func showLink(f operatorFlags, out io.Writer, o operator, data []byte) error {
	return show(f, out, data, func(l linkView) {
		fmt.Fprintf(out, "%s (%s) chooses a password, once, until %s, at\n\n  %s%s\n\nIt is not kept and will not be shown again. Give it to nobody else.\n",
			l.Name, l.Role, l.ExpiresAt, o.url, l.InvitationPath)
	})
}

type operatorsInviteCmd struct {
	operatorFlags
	ofOperator
	Role string `required:"" env:"-" enum:"viewer,operator,admin" help:"viewer, operator or admin."`
}

// Run makes a link and prints it.
func (c operatorsInviteCmd) Run(ctx context.Context, s streams) error {
	o, err := c.connect()
	if err != nil {
		return err
	}
	data, err := o.do(ctx, http.MethodPost, operatorsPath, map[string]string{"name": c.Name, "role": c.Role})
	if err != nil {
		return err
	}
	return showLink(c.operatorFlags, s.out, o, data)
}

type operatorsResetCmd struct {
	operatorFlags
	ofOperator
}

// Run makes a link and prints it.
func (c operatorsResetCmd) Run(ctx context.Context, s streams) error {
	o, err := c.connect()
	if err != nil {
		return err
	}
	data, err := o.do(ctx, http.MethodPost, c.path()+"/reset-password", nil)
	if err != nil {
		return err
	}
	return showLink(c.operatorFlags, s.out, o, data)
}

type operatorsWithdrawCmd struct {
	operatorFlags
	ofOperator
}

// Run ends a link.
func (c operatorsWithdrawCmd) Run(ctx context.Context, s streams) error {
	data, err := c.order(ctx, c.path()+"/withdraw-invitation", nil)
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(p personView) { fmt.Fprintf(s.out, "the link for %s cannot be used any more\n", p.Name) })
}

type operatorsSignOutCmd struct {
	operatorFlags
	ofOperator
}

// Run ends somebody's sessions.
func (c operatorsSignOutCmd) Run(ctx context.Context, s streams) error {
	data, err := c.order(ctx, c.path()+"/sign-out", nil)
	if err != nil {
		return err
	}
	type ended struct {
		Name          string `json:"name"`
		SessionsEnded int    `json:"sessions_ended"`
	}
	return show(c.operatorFlags, s.out, data, func(e ended) { fmt.Fprintf(s.out, "%s is signed out; sessions ended: %d\n", e.Name, e.SessionsEnded) })
}

// patch changes an operator and prints them as they are then.
func (o ofOperator) patch(ctx context.Context, f operatorFlags, out io.Writer, wanted map[string]any) error {
	api, err := f.connect()
	if err != nil {
		return err
	}
	data, err := api.do(ctx, http.MethodPatch, o.path(), wanted)
	if err != nil {
		return err
	}
	return show(f, out, data, func(p personView) { fmt.Fprintln(out, p.line()) })
}

type operatorsSetRoleCmd struct {
	operatorFlags
	ofOperator
	Role string `arg:"" enum:"viewer,operator,admin" help:"viewer, operator or admin."`
}

// Run changes a role.
func (c operatorsSetRoleCmd) Run(ctx context.Context, s streams) error {
	return c.patch(ctx, c.operatorFlags, s.out, map[string]any{"role": c.Role})
}

type operatorsDisableCmd struct {
	operatorFlags
	ofOperator
}

// Run disables an operator.
func (c operatorsDisableCmd) Run(ctx context.Context, s streams) error {
	return c.patch(ctx, c.operatorFlags, s.out, map[string]any{"disabled": true})
}

type operatorsEnableCmd struct {
	operatorFlags
	ofOperator
}

// Run enables an operator.
func (c operatorsEnableCmd) Run(ctx context.Context, s streams) error {
	return c.patch(ctx, c.operatorFlags, s.out, map[string]any{"disabled": false})
}

// tokensCmd looks after the tokens by which programs call the operator's API.
type tokensCmd struct {
	List   tokensListCmd   `cmd:"" help:"List the tokens, the newest first."`
	Create tokensCreateCmd `cmd:"" help:"Make a token with a scope and an end."`
	Revoke tokensRevokeCmd `cmd:"" help:"End a token now."`
}

const tokensPath = "/admin/v1/tokens"

// tokenView is a token as the operator's API shows it; Token only in the answer that made it.
type tokenView struct {
	ID         string  `json:"id"`
	Name       string  `json:"name"`
	Scope      string  `json:"scope"`
	Status     string  `json:"status"`
	CreatedBy  string  `json:"created_by"`
	ExpiresAt  string  `json:"expires_at"`
	LastUsedAt *string `json:"last_used_at"`
	Token      string  `json:"token"`
}

// line is a token on one line. Its name is quoted: it may hold what a terminal shows
// otherwise than it is.
func (t tokenView) line() string {
	used := "never used"
	if t.LastUsedAt != nil {
		used = "used " + *t.LastUsedAt
	}
	return strings.Join([]string{t.ID, fmt.Sprintf("%-8s", t.Status), fmt.Sprintf("%-8s", t.Scope), strconv.Quote(t.Name), "by " + t.CreatedBy, used, "ends " + t.ExpiresAt}, "  ")
}

type tokensListCmd struct{ operatorFlags }

// Run prints the tokens.
func (c tokensListCmd) Run(ctx context.Context, s streams) error {
	return list(ctx, c.operatorFlags, s.out, tokensPath, func(t tokenView) (id, line string) { return t.ID, t.line() })
}

type tokensCreateCmd struct {
	operatorFlags
	Name  string `arg:"" help:"What the token is for."`
	Scope string `required:"" env:"-" enum:"viewer,operator,admin" help:"What it may do: viewer, operator or admin."`
	Days  int    `env:"-" default:"90" help:"For how many days it is taken, 1 to 366."`
}

// Run makes a token and prints it.
func (c tokensCreateCmd) Run(ctx context.Context, s streams) error {
	data, err := c.order(ctx, tokensPath, map[string]any{"name": c.Name, "scope": c.Scope, "lifetime_days": c.Days})
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(t tokenView) {
		fmt.Fprintf(s.out, "  token   %s\n  id      %s\n  name    %q\n  scope   %s\n  ends    %s\n\nThe token is not kept and will not be shown again.\n",
			t.Token, t.ID, t.Name, t.Scope, t.ExpiresAt)
	})
}

type tokensRevokeCmd struct {
	operatorFlags
	TokenID string `arg:"" help:"The token's id."`
}

// Run ends a token.
func (c tokensRevokeCmd) Run(ctx context.Context, s streams) error {
	data, err := c.order(ctx, tokensPath+"/"+url.PathEscape(c.TokenID)+"/revoke", nil)
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(t tokenView) { fmt.Fprintf(s.out, "token %s is revoked: it is taken nowhere\n", t.ID) })
}
