package operators

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
)

func TestFirstOperatorComesByALinkThatWorksOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, needed, err := w.FirstInvitation(t.Context())
	if err != nil || !needed || len(l.Secret) != 43 || l.Path() != "/invitations/"+l.Secret {
		t.Fatalf("needed: %t, %d characters, %v", needed, len(l.Secret), err)
	}
	if life := time.Until(l.ExpiresAt); life < 23*time.Hour || life > 25*time.Hour {
		t.Errorf("it works for %s", life)
	}
	i, err := w.Invitation(t.Context(), l.Secret)
	if err != nil || i.Kind != First || i.Name != "" || i.Role != Admin {
		t.Fatalf("it is for %+v, %v", i, err)
	}
	// What cannot be a name or a password leaves the link as it is.
	for _, no := range [][2]string{{"", right}, {"no blanks", right}, {"-", right}, {"ada", "too short"}, {"ada", "passwordpassword"}} {
		_, err := w.Accept(t.Context(), l.Secret, no[0], no[1], "")
		wantCode(t, err, apierr.InvalidParameters)
	}
	in, err := w.Accept(w.at("192.0.2.7"), l.Secret, " Ada@Example.org ", right, "")
	if err != nil || in.Principal.Name != "ada@example.org" || in.Principal.Role != Admin || in.Principal.Kind != audit.KindOperator {
		t.Fatalf("%+v, %v", in.Principal, err)
	}
	p, err := w.BySession(t.Context(), in.Session)
	if err != nil || p != in.Principal {
		t.Errorf("the session is %+v's, %v", p, err)
	}
	_, err = w.Accept(t.Context(), l.Secret, "eve", right, "")
	wantCode(t, err, apierr.NotFound)
	if _, needed, err := w.FirstInvitation(t.Context()); err != nil || needed {
		t.Errorf("another link is needed: %t, %v", needed, err)
	}
	var told []string
	for _, e := range w.written() {
		told = append(told, fmt.Sprint(e.Actor.Kind, " ", e.Actor.Name, " ", e.Actor.Address, " ", e.Action, " ", e.Target))
	}
	want := []string{"system system  operator.invited operators", "operator ada@example.org 192.0.2.7 operator.created operator/ada@example.org",
		"operator ada@example.org 192.0.2.7 operator.signed_in operator/ada@example.org"}
	if !slices.Equal(told, want) {
		t.Errorf("the log has %q", told)
	}
}

func TestNextStartReplacesTheFirstLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	older, _, err := w.FirstInvitation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	newer, needed, err := w.FirstInvitation(t.Context())
	if err != nil || !needed {
		t.Fatalf("needed: %t, %v", needed, err)
	}
	_, err = w.Accept(t.Context(), older.Secret, "ada", right, "")
	wantCode(t, err, apierr.NotFound)
	if _, err := w.Accept(t.Context(), newer.Secret, "ada", right, ""); err != nil {
		t.Error(err)
	}
}

// Two links are there if two processes start at once. Whichever is used first wins, and
// there is one first operator, however close they come.
func TestOfManyFirstLinksUsedAtOnceOneWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, other := w.instance()
	const links = 3
	var secrets []string
	for range links {
		s := newSecret()
		secrets = append(secrets, s)
		if _, err := w.store.insertInvitation(w.db.Conn(t.Context()), s, "", Admin, [16]byte{}, FirstInvitationLife); err != nil {
			t.Fatal(err)
		}
	}
	errs := atOnce(2*links, func(i int) error {
		s := w.Service
		if i%2 == 1 {
			s = other
		}
		_, err := s.Accept(t.Context(), secrets[i%links], fmt.Sprint("person-", i), right, "")
		return err
	})
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantCode(t, err, apierr.NotFound)
	}
	if n := w.number(`SELECT count(*) FROM operators`); won != 1 || n != 1 || w.told("operator.created") != 1 {
		t.Errorf("%d won, and there are %d operators", won, n)
	}
	for _, s := range secrets { // also those that nobody has used
		_, err := w.Accept(t.Context(), s, "late", right, "")
		wantCode(t, err, apierr.NotFound)
	}
}

// Whoever is disabled is an operator still: nobody becomes the first one a second time.
func TestInstallationWithDisabledOperatorsOnlyHasNoFirstLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	w.sql(`UPDATE operators SET disabled_at = clock_timestamp()`)
	if _, needed, err := w.FirstInvitation(t.Context()); err != nil || needed {
		t.Errorf("needed: %t, %v", needed, err)
	}
}

func TestInvitedPersonChoosesAPasswordOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	older, err := w.Invite(t.Context(), "Bob", Viewer)
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Invite(t.Context(), "bob", Operator)
	if err != nil || l.Kind != New || l.Name != "bob" || l.Role != Operator {
		t.Fatalf("%+v, %v", l.Invitation, err)
	}
	_, err = w.Invitation(t.Context(), older.Secret)
	wantCode(t, err, apierr.NotFound)
	open, err := w.Invitations(t.Context())
	if err != nil || len(open) != 1 || open[0].Name != "bob" {
		t.Errorf("open are %+v, %v", open, err)
	}
	ins := atOnce(4, func(int) error {
		_, err := w.Accept(t.Context(), l.Secret, "eve", right, "") // whose link it is, is not theirs to say
		return err
	})
	won := 0
	for _, err := range ins {
		if err == nil {
			won++
		}
	}
	if won != 1 {
		t.Fatalf("%d were let in: %v", won, errors.Join(ins...))
	}
	if p, err := w.Get(t.Context(), "bob"); err != nil || p.Role != Operator {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = w.Invite(t.Context(), "bob", Admin)
	wantCode(t, err, apierr.InvalidState)
	_, err = w.Invite(t.Context(), "carol", "owner")
	wantCode(t, err, apierr.InvalidParameters)
	_, err = w.Invite(t.Context(), "no/slash", Viewer)
	wantCode(t, err, apierr.InvalidParameters)
}

func TestLinkEndsByTimeAndByBeingWithdrawn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	l, err := w.Invite(t.Context(), "bob", Admin)
	if err != nil {
		t.Fatal(err)
	}
	w.age("operator_invitations", "expires_at", InvitationLife-time.Minute)
	if _, err := w.Invitation(t.Context(), l.Secret); err != nil {
		t.Errorf("a minute before its end: %v", err)
	}
	w.age("operator_invitations", "expires_at", time.Minute)
	_, err = w.Accept(t.Context(), l.Secret, "", right, "")
	wantCode(t, err, apierr.NotFound)

	l, err = w.Invite(t.Context(), "bob", Admin)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Withdraw(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Accept(t.Context(), l.Secret, "", right, "")
	wantCode(t, err, apierr.NotFound)
	wantCode(t, w.Withdraw(t.Context(), "bob"), apierr.NotFound)
	wantCode(t, w.Withdraw(t.Context(), " "), apierr.NotFound)
}

func TestForgottenPasswordIsReplacedAndEndsAllSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	admin := w.first("ada")
	bob := w.joined("bob", Operator)
	older, err := w.ResetPassword(t.Context(), "BOB")
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.ResetPassword(t.Context(), "bob")
	if err != nil || l.Kind != Forgot || l.Role != Operator {
		t.Fatalf("%+v, %v", l.Invitation, err)
	}
	_, err = w.Accept(t.Context(), older.Secret, "", wrong, "")
	wantCode(t, err, apierr.NotFound)
	if _, err := w.BySession(t.Context(), bob.Session); err != nil {
		t.Errorf("before the link is used: %v", err)
	}
	in, err := w.Accept(t.Context(), l.Secret, "", wrong, bob.Device)
	if err != nil || in.Principal.ID != bob.Principal.ID || in.Device != bob.Device {
		t.Fatalf("%+v, %v", in.Principal, err)
	}
	_, err = w.BySession(t.Context(), bob.Session)
	wantCode(t, err, apierr.InvalidCredentials)
	if _, err := w.BySession(t.Context(), admin.Session); err != nil {
		t.Errorf("somebody else's: %v", err)
	}
	_, err = w.SignIn(t.Context(), "bob", right, "")
	wantCode(t, err, apierr.InvalidCredentials)
	if _, err := w.SignIn(t.Context(), "bob", wrong, ""); err != nil {
		t.Error(err)
	}
	// A link for somebody who is disabled meanwhile is of no use, and there is none for them.
	l, err = w.ResetPassword(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Update(t.Context(), "bob", Update{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	_, err = w.Accept(t.Context(), l.Secret, "", right, "")
	wantCode(t, err, apierr.NotFound)
	_, err = w.ResetPassword(t.Context(), "bob")
	wantCode(t, err, apierr.InvalidState)
	// Nor does it come back with them: it did, for whoever could read their mail.
	if _, err := w.Update(t.Context(), "bob", Update{Disabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	_, err = w.Accept(t.Context(), l.Secret, "", right, "")
	wantCode(t, err, apierr.NotFound)
	if _, err := w.SignIn(t.Context(), "bob", wrong, ""); err != nil {
		t.Errorf("with the password they had: %v", err)
	}
	_, err = w.ResetPassword(t.Context(), "nobody")
	wantCode(t, err, apierr.NotFound)
}
