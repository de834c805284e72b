package operators

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
)

func TestRoleIncludesThoseBelowIt(t *testing.T) {
	t.Parallel()
	order := []Role{Viewer, Operator, Admin}
	for i, r := range order {
		for j, other := range order {
			if r.Includes(other) != (i >= j) {
				t.Errorf("%s includes %s: %t", r, other, i < j)
			}
		}
		for _, none := range []Role{"", "root", "ADMIN"} {
			if r.Includes(none) || none.Includes(r) || none.Includes(none) {
				t.Errorf("%q is as good as a role", none)
			}
		}
	}
}

func TestChangeOfARoleHoldsAtOnceAndEndsTheSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada")
	for what, u := range map[string]Update{"another role": {Role: new(Operator)}, "being disabled": {Disabled: new(true)}} {
		name := strings.ReplaceAll(what, " ", "-")
		bob := w.joined(name, Viewer)
		if _, err := w.Update(t.Context(), name, Update{Role: new(Viewer), Disabled: new(false)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.BySession(t.Context(), bob.Session); err != nil {
			t.Errorf("what changes nothing has ended a session: %v", err)
		}
		if _, err := w.Update(t.Context(), name, u); err != nil {
			t.Fatal(err)
		}
		_, err := w.BySession(t.Context(), bob.Session)
		wantCode(t, err, apierr.InvalidCredentials)
	}
	if _, err := w.SignIn(t.Context(), "being-disabled", right, ""); err == nil {
		t.Error("somebody who is disabled signs in")
	}
	if p, err := w.Update(t.Context(), "being-disabled", Update{Disabled: new(false)}); err != nil || p.DisabledAt != nil {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := w.SignIn(t.Context(), "being-disabled", right, ""); err != nil {
		t.Errorf("enabled again: %v", err)
	}
	// Even where a session were left, what counts is what somebody is now.
	w.sql(`UPDATE operators SET role = 'viewer' WHERE name = 'ada'`)
	if p, err := w.BySession(t.Context(), ada.Session); err != nil || p.Role != Viewer {
		t.Errorf("%+v, %v", p, err)
	}
	w.sql(`UPDATE operators SET disabled_at = clock_timestamp() WHERE name = 'ada'`)
	_, err := w.BySession(t.Context(), ada.Session)
	wantCode(t, err, apierr.InvalidCredentials)
	for action, want := range map[string]int{"operator.role_changed": 1, "operator.disabled": 1, "operator.enabled": 1} {
		if n := w.told(action); n != want {
			t.Errorf("the log has %d of %s, want %d", n, action, want)
		}
	}
}

// Several admins who take each other's role away at once leave one.
func TestOfAdminsWhoTakeEachOthersRoleAwayOneIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, other := w.instance()
	const admins = 6
	names := []string{"admin-0"}
	w.first("admin-0")
	for i := 1; i < admins; i++ {
		names = append(names, fmt.Sprint("admin-", i))
		w.joined(names[i], Admin)
	}
	refused := 0
	for _, err := range atOnce(admins, func(i int) error {
		s, u := w.Service, Update{Role: new(Viewer)}
		if i%2 == 1 {
			s, u = other, Update{Disabled: new(true)}
		}
		_, err := s.Update(t.Context(), names[i], u)
		return err
	}) {
		if err != nil {
			wantCode(t, err, apierr.InvalidState)
			refused++
		}
	}
	if n := w.number(`SELECT count(*) FROM operators WHERE role = 'admin' AND disabled_at IS NULL`); n != 1 || refused != 1 {
		t.Errorf("%d admins are left, %d were refused", n, refused)
	}
}

func TestTokenMayDoWhatItsScopeSaysUntilItEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada")
	ctx := audit.By(t.Context(), ada.Principal.Actor("192.0.2.1", "r"))
	for _, scope := range []Role{Viewer, Operator, Admin} {
		made, secret, err := w.CreateToken(ctx, "for "+string(scope), scope, MinTokenLife)
		if err != nil || made.CreatedBy != "ada" || made.Status != TokenActive || made.LastUsedAt != nil || len(secret) != len(TokenPrefix)+43 {
			t.Fatalf("%+v, %v", made, err)
		}
		p, err := w.ByToken(t.Context(), secret)
		if err != nil || p != (Principal{Kind: audit.KindToken, ID: made.ID, Name: made.Name, Role: scope}) {
			t.Errorf("%+v, %v", p, err)
		}
		for _, no := range []string{"", TokenPrefix, secret + "x", strings.TrimPrefix(secret, TokenPrefix), strings.ToUpper(secret), ada.Session, TokenPrefix + "\x00"} {
			_, err := w.ByToken(t.Context(), no)
			wantCode(t, err, apierr.InvalidCredentials)
		}
		if _, err := w.BySession(t.Context(), secret); err == nil {
			t.Error("a token is a session")
		}
		// It goes on without whoever made it, until its end.
		w.sql(`UPDATE operators SET disabled_at = clock_timestamp()`)
		w.sql(`UPDATE operator_tokens SET expires_at = expires_at - $1::bigint * interval '1 microsecond'`, (MinTokenLife - time.Hour).Microseconds())
		if _, err := w.ByToken(t.Context(), secret); err != nil {
			t.Errorf("an hour before its end: %v", err)
		}
		w.sql(`UPDATE operator_tokens SET expires_at = expires_at - $1::bigint * interval '1 microsecond'`, time.Hour.Microseconds())
		_, err = w.ByToken(t.Context(), secret)
		wantCode(t, err, apierr.InvalidCredentials)
		ts, err := w.Tokens(t.Context(), [16]byte{}, 1)
		if err != nil || len(ts) != 1 || ts[0].ID != made.ID || ts[0].Status != TokenExpired || ts[0].LastUsedAt == nil {
			t.Errorf("%+v, %v", ts, err)
		}
	}
	for _, life := range []time.Duration{0, -day, MinTokenLife - 1, MaxTokenLife + 1} {
		_, _, err := w.CreateToken(ctx, "x", Viewer, life)
		wantCode(t, err, apierr.InvalidParameters)
	}
}

func TestRevokedTokenIsRefusedAtOnceByAllInstances(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, other := w.instance()
	made, secret, err := w.CreateToken(t.Context(), "x", Viewer, DefaultTokenLife)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.ByToken(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	var first Token
	for i := range 2 {
		revoked, err := w.RevokeToken(t.Context(), made.ID)
		if err != nil || revoked.Status != TokenRevoked {
			t.Fatalf("%+v, %v", revoked, err)
		}
		if i == 0 {
			first = revoked
		} else if !revoked.RevokedAt.Equal(*first.RevokedAt) {
			t.Error("it was revoked twice")
		}
	}
	_, err = other.ByToken(t.Context(), secret)
	wantCode(t, err, apierr.InvalidCredentials)
	_, err = w.RevokeToken(t.Context(), someID())
	wantCode(t, err, apierr.NotFound)
	if n := w.told("token.revoked"); n != 1 || w.told("token.created") != 1 {
		t.Errorf("the log has %d of them", n)
	}
}

func TestTokensAndLinksHaveALimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	w.sql(`INSERT INTO operator_tokens (id, name, scope, token_hash, created_by, expires_at)
		SELECT gen_random_uuid(), 'x', 'viewer', sha256(n::text::bytea), 'x', clock_timestamp() + interval '1 day' FROM generate_series(1, $1::integer) n`, maxTokens-1)
	w.sql(`INSERT INTO operator_invitations (token_hash, name, role, expires_at)
		SELECT sha256(n::text::bytea), 'x' || n, 'viewer', clock_timestamp() + interval '1 day' FROM generate_series(1, $1::integer) n`, maxInvitations-1)
	won := 0
	for _, err := range atOnce(4, func(i int) error {
		if i%2 == 0 {
			_, err := w.Invite(t.Context(), fmt.Sprint("person-", i), Viewer)
			return err
		}
		_, _, err := w.CreateToken(t.Context(), "x", Viewer, day)
		return err
	}) {
		if err == nil {
			won++
			continue
		}
		wantCode(t, err, apierr.InvalidState)
	}
	if won != 2 {
		t.Errorf("%d were made, want one of each", won)
	}
}

func TestPurgeRemovesWhatIsPastItsTimeInBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada") // with a used link
	w.guess("nobody")
	if n, err := w.Purge(t.Context()); n != 0 || err != nil {
		t.Errorf("%d rows went, %v", n, err)
	}
	const many = purgeBatch + 7
	w.sql(`INSERT INTO operator_failures (subject, failures, failed_at) SELECT sha256(n::text::bytea), 1, clock_timestamp() - interval '25 hours' FROM generate_series(1, $1::integer) n`, many)
	w.sql(`INSERT INTO operator_sessions (token_hash, operator_id, expires_at) SELECT sha256(n::text::bytea), o.id, clock_timestamp() FROM generate_series(1, $1::integer) n, operators o`, many)
	w.sql(`INSERT INTO operator_invitations (token_hash, name, role, expires_at, used_at)
		SELECT sha256(n::text::bytea), 'x', 'viewer', clock_timestamp() - interval '31 days', CASE WHEN n % 2 = 0 THEN clock_timestamp() - interval '32 days' END
		FROM generate_series(1, $1::integer) n`, many)
	for _, want := range []int{3 * purgeBatch, 3 * 7, 0} {
		if n, err := w.Purge(t.Context()); n != want || err != nil {
			t.Errorf("%d rows went, want %d, %v", n, want, err)
		}
	}
	if _, err := w.BySession(t.Context(), ada.Session); err != nil || w.number(`SELECT count(*) FROM operator_failures`) != 1 || w.number(`SELECT count(*) FROM operator_invitations`) != 1 {
		t.Errorf("something went that was needed: %v", err)
	}
}

// Nothing by which somebody could get in is in the database, nor in what prints it.
func TestNoSecretIsInTheDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada")
	secrets := []string{right, wrong, ada.Session, ada.Device, strings.SplitN(ada.Device, ".", 2)[0]}
	l, err := w.Invite(t.Context(), "bob", Viewer)
	if err != nil {
		t.Fatal(err)
	}
	_, token, err := w.CreateToken(t.Context(), "x", Viewer, day)
	if err != nil {
		t.Fatal(err)
	}
	const misplaced = "a password in the field for names"
	w.guess("ada")
	if _, err := w.SignIn(t.Context(), misplaced, "x", ""); err == nil {
		t.Error("let in")
	}
	secrets = append(secrets, l.Secret, token, strings.TrimPrefix(token, TokenPrefix), misplaced)
	var all strings.Builder
	conn, err := pgx.Connect(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	tables := 0
	for _, table := range []string{"operators", "operator_invitations", "operator_sessions", "operator_tokens", "operator_failures", "audit_entries", "audit_head"} {
		rows, err := conn.Query(t.Context(), `SELECT t::text, encode(convert_to(t::text, 'UTF8'), 'escape') FROM `+table+` t`)
		if err != nil {
			t.Fatal(err)
		}
		var plain, escaped string
		tag, err := pgx.ForEachRow(rows, []any{&plain, &escaped}, func() error { all.WriteString(plain + escaped); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if tag.RowsAffected() > 0 {
			tables++
		}
	}
	if tables != 7 {
		t.Errorf("%d tables were looked at that had something in them", tables)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %v %+v %#v", ada, ada, ada, ada, l, l, l)
	for i, s := range secrets {
		if strings.Contains(all.String(), s) || strings.Contains(printed, s) {
			t.Errorf("secret %d is there", i)
		}
	}
	if !slices.Contains(secrets, right) || !strings.Contains(all.String(), "$argon2id$") {
		t.Error("nothing was looked for")
	}
}
