package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// keysCmd looks after a merchant's API keys, through the operator's API.
type keysCmd struct {
	Create keysCreateCmd `cmd:"" help:"Make another key."`
	List   keysListCmd   `cmd:"" help:"List a merchant's keys, the newest first."`
	Rotate keysRotateCmd `cmd:"" help:"Make a key's successor, and let the key end after an overlap."`
	Revoke keysRevokeCmd `cmd:"" help:"End a key now."`
}

// ofMerchant says whose key it is.
type ofMerchant struct {
	AccountID string `required:"" env:"-" help:"The merchant's account_id." placeholder:"UUID"`
}

func (m ofMerchant) path() string {
	return "/admin/v1/merchants/" + url.PathEscape(m.AccountID) + "/keys"
}

// keyView is a key as the operator's API shows it, but for its secret.
type keyView struct {
	ID              string   `json:"id"`
	Mode            string   `json:"mode"`
	PublicAPIKey    string   `json:"public_api_key"`
	Status          string   `json:"status"`
	LastUsedAt      *string  `json:"last_used_at"`
	ExpiresAt       *string  `json:"expires_at"`
	RevokedAt       *string  `json:"revoked_at"`
	AllowedNetworks []string `json:"allowed_networks"`
}

// line is a key on one line.
func (k keyView) line() string {
	parts := []string{k.ID, fmt.Sprintf("%-4s", k.Mode), fmt.Sprintf("%-8s", k.Status), k.PublicAPIKey}
	used := "never used"
	if k.LastUsedAt != nil {
		used = "used " + *k.LastUsedAt
	}
	parts = append(parts, used)
	switch {
	case k.RevokedAt != nil:
		parts = append(parts, "revoked "+*k.RevokedAt)
	case k.ExpiresAt != nil:
		parts = append(parts, "ends "+*k.ExpiresAt)
	}
	if k.AllowedNetworks != nil {
		parts = append(parts, "from "+strings.Join(k.AllowedNetworks, ","))
	}
	return strings.Join(parts, "  ")
}

// madeKey is a key in the answer that made it.
type madeKey struct {
	keyView
	PrivateSecretKey string   `json:"private_secret_key"`
	Replaces         *keyView `json:"replaces"`
}

// print prints the key, and what became of the one it replaces.
func (k madeKey) print(w io.Writer) {
	fmt.Fprintf(w, "  key                 %s (%s)\n  public-api-key      %s\n  private-secret-key  %s\n",
		k.ID, k.Mode, k.PublicAPIKey, k.PrivateSecretKey)
	if k.AllowedNetworks != nil {
		fmt.Fprintf(w, "  from                %s\n", strings.Join(k.AllowedNetworks, ","))
	}
	fmt.Fprintln(w, "\nThe secret is not kept and will not be shown again.")
	switch {
	case k.Replaces == nil:
	case k.Replaces.RevokedAt != nil:
		fmt.Fprintf(w, "Key %s is revoked.\n", k.Replaces.ID)
	case k.Replaces.ExpiresAt != nil:
		fmt.Fprintf(w, "Key %s goes on until %s.\n", k.Replaces.ID, *k.Replaces.ExpiresAt)
	}
}

type keysCreateCmd struct {
	operatorFlags
	ofMerchant
	Mode  string   `required:"" env:"-" enum:"test,live" help:"test or live."`
	Allow []string `env:"-" help:"Networks or addresses that may use the key, separated by commas (default: all)." placeholder:"CIDR"`
}

// Run makes a key and prints it.
func (c keysCreateCmd) Run(ctx context.Context, s streams) error {
	data, err := c.order(ctx, c.path(), map[string]any{"mode": c.Mode, "allowed_networks": c.Allow})
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(k madeKey) { k.print(s.out) })
}

type keysListCmd struct {
	operatorFlags
	ofMerchant
}

// Run prints a merchant's keys.
func (c keysListCmd) Run(ctx context.Context, s streams) error {
	return list(ctx, c.operatorFlags, s.out, c.path(), func(k keyView) (id, line string) { return k.ID, k.line() })
}

type keysRotateCmd struct {
	operatorFlags
	ofMerchant
	KeyID   string        `arg:"" help:"The key's id."`
	Overlap time.Duration `env:"-" default:"24h" help:"How long both keys are taken; 0s ends the old one at once, 720h is the most."`
}

// Run makes a key's successor and prints it.
func (c keysRotateCmd) Run(ctx context.Context, s streams) error {
	if c.Overlap < 0 || c.Overlap%time.Second != 0 {
		return usage("--overlap must be whole seconds, and not negative")
	}
	data, err := c.order(ctx, c.path()+"/"+url.PathEscape(c.KeyID)+"/rotate",
		map[string]int64{"overlap_seconds": int64(c.Overlap / time.Second)})
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(k madeKey) { k.print(s.out) })
}

type keysRevokeCmd struct {
	operatorFlags
	ofMerchant
	KeyID string `arg:"" help:"The key's id."`
}

// Run ends a key.
func (c keysRevokeCmd) Run(ctx context.Context, s streams) error {
	data, err := c.order(ctx, c.path()+"/"+url.PathEscape(c.KeyID)+"/revoke", nil)
	if err != nil {
		return err
	}
	return show(c.operatorFlags, s.out, data, func(k keyView) {
		fmt.Fprintf(s.out, "key %s is revoked: within 5 s it is taken nowhere\n", k.ID)
	})
}
