package merchants

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/postgres"
)

// note writes what was done, as the last thing of its database transaction.
func note(ctx context.Context, tx postgres.Tx, entries ...audit.Entry) error {
	for _, e := range entries {
		if err := audit.Append(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}

func ofMerchant(action string, account uuid.UUID, details map[string]string) audit.Entry {
	return audit.Entry{Action: action, AccountID: account, Target: "merchant/" + account.String(), Details: details}
}

func merchantCreated(m Merchant) audit.Entry {
	d := merchantFacts(m)
	if len(m.Origins) > 0 {
		d["origins"] = strings.Join(m.Origins, ",")
	}
	return ofMerchant("merchant.created", m.AccountID, d)
}

// merchantUpdated tells what is different, and of that what was there before.
func merchantUpdated(was, is Merchant) audit.Entry {
	d := differences(merchantFacts(was), merchantFacts(is))
	for name, origins := range map[string][]string{
		"origins_added": without(is.Origins, was.Origins), "origins_removed": without(was.Origins, is.Origins),
	} {
		if len(origins) > 0 {
			d[name] = strings.Join(origins, ",")
		}
	}
	return ofMerchant("merchant.updated", is.AccountID, d)
}

func without(list, these []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(these, s) })
}

func merchantDisabled(was, is Merchant) audit.Entry {
	status := map[bool]string{true: "enabled", false: "disabled"}
	action := map[bool]string{true: "merchant.enabled", false: "merchant.disabled"}[is.DisabledAt == nil]
	return ofMerchant(action, is.AccountID, map[string]string{
		"name": is.Name, "status_before": status[was.DisabledAt == nil], "status": status[is.DisabledAt == nil],
	})
}

func merchantFacts(m Merchant) map[string]string {
	return map[string]string{"name": m.Name, "idempotency_policy": m.IdempotencyPolicy}
}

func ofKey(action string, account, id uuid.UUID, details map[string]string) audit.Entry {
	return audit.Entry{Action: action, AccountID: account, Target: "key/" + id.String(), Details: details}
}

func keyCreated(account uuid.UUID, p KeyPair, networks []netip.Prefix) audit.Entry {
	return ofKey("key.created", account, p.ID, map[string]string{
		"mode": p.Mode, "public_api_key": p.PublicAPIKey, "allowed_networks": networksText(networks),
	})
}

// keyRotated is of the key that ends.
func keyRotated(old Key, successor KeyPair) audit.Entry {
	details := keyFacts(old)
	details["public_api_key"], details["successor"] = old.PublicAPIKey, "key/"+successor.ID.String()
	return ofKey("key.rotated", old.AccountID, old.ID, details)
}

// keyChanged tells what is different, and of that what was there before. Whoever revokes a
// key that is revoked has changed nothing, and that is what it says.
func keyChanged(action string, was, is Key) audit.Entry {
	details := differences(keyFacts(was), keyFacts(is))
	details["public_api_key"] = is.PublicAPIKey
	return ofKey(action, is.AccountID, is.ID, details)
}

func keyFacts(k Key) map[string]string {
	facts := map[string]string{"mode": k.Mode, "status": string(k.Status), "allowed_networks": networksText(k.Networks)}
	for name, at := range map[string]*time.Time{"expires_at": k.ExpiresAt, "revoked_at": k.RevokedAt} {
		if at != nil {
			facts[name] = at.UTC().Format(time.RFC3339Nano)
		}
	}
	return facts
}

// differences is each fact that is not what it was, with what it was if it was there.
func differences(was, is map[string]string) map[string]string {
	d := map[string]string{}
	for name := range is {
		if is[name] != was[name] {
			d[name] = is[name]
			if was[name] != "" {
				d[name+"_before"] = was[name]
			}
		}
	}
	return d
}

func networksText(networks []netip.Prefix) string {
	if text := textOf(networks); text != nil {
		return *text
	}
	return "all"
}
