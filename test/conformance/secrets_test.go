package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// twoInstances are one installation whose instances are replaced one at a time, as a
// rolling deployment does.
type twoInstances struct {
	t    *testing.T
	apis [2]*harness.API
}

// replace ends one instance and starts its successor.
func (two *twoInstances) replace(i int, by harness.Installation) {
	two.t.Helper()
	if old := two.apis[i]; old != nil {
		old.Signal(syscall.SIGTERM)
		if code := old.Wait(); code != 0 {
			two.t.Errorf("an instance ends with %d", code)
		}
	}
	two.apis[i] = by.Serve(two.t, "--provider-timeout", "2s")
}

// mismatch is what a replay says if the body was not the first one's.
const mismatch = "Idempotency-Body-Mismatch"

// TestTheSecretIsChangedWithoutADoubtAboutAnyBody plays the three rollouts of the
// handbook on two instances. After each replacement every payment so far is asked for
// again on both: nobody may hear of another body, and a body that is another is named by
// the field that differs, which is never the card.
func TestTheSecretIsChangedWithoutADoubtAboutAnyBody(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	old := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	next := harness.Unguessable("secret")
	prepared, swapped, done := old, old, old
	prepared.OtherSecret = next
	swapped.Secret, swapped.OtherSecret = next, old.Secret
	done.Secret = next

	two := &twoInstances{t: t}
	two.replace(0, old)
	keys := merchant(t, two.apis[0])
	two.replace(1, old)
	client := func(i int) *harness.Client { return harness.NewClient(two.apis[i].URL, keys) }

	type paid struct {
		payment harness.Payment
		answer  harness.Answer
	}
	var all []paid
	visit := func(step string) {
		t.Helper()
		for i := range two.apis {
			p := harness.NewPayment(fmt.Sprintf("paid %s, on %d", step, i))
			all = append(all, paid{p, pay(t, client(i), p)})
		}
		for _, p := range all {
			for i := range two.apis {
				mustReplay(t, client(i), p.payment, p.answer)
				if again := client(i).Pay(within(t, harness.Patience), p.payment); again.Header.Get(mismatch) != "" {
					t.Errorf("%s, on %d: %q is taken for another body", step, i, p.payment.Description)
				}
			}
		}
	}
	visit("before")
	for i, s := range []struct {
		name     string
		instance int
		by       harness.Installation
	}{
		{"with the next secret on one instance", 0, prepared}, {"with it on both", 1, prepared},
		{"with it in use on one", 0, swapped}, {"with it in use on both", 1, swapped},
	} {
		two.replace(s.instance, s.by)
		if i == 2 { // begun under the old secret just now, and settled across the change
			unclear := harness.NewPayment("sandbox:charge-then-timeout")
			mustBe(t, client(1).Pay(within(t, harness.Patience), unclear), http.StatusGatewayTimeout)
			answer, err := client(0).PayUntilAnswered(within(t, harness.Patience), unclear)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, paid{unclear, answer})
		}
		visit(s.name)
	}
	// A body that is another one, under a nonce of each secret.
	for _, p := range []paid{all[0], all[len(all)-1]} {
		p.payment.Value = "45.68"
		for i := range two.apis {
			mustReplayAnother(t, client(i), p.payment, p.answer)
		}
	}
	// After a day the old one goes. What the new one made goes on being recognised.
	since := all[len(all)-2:]
	for i := range two.apis {
		two.replace(i, done)
		for _, p := range since {
			mustReplay(t, client(i), p.payment, p.answer)
			if again := client(i).Pay(within(t, harness.Patience), p.payment); again.Header.Get(mismatch) != "" {
				t.Errorf("without the old secret: %q is taken for another body", p.payment.Description)
			}
		}
	}
	// Whoever drops it before: a body of the old one's cannot be compared any more, and
	// is answered all the same.
	mustReplay(t, client(0), all[0].payment, all[0].answer)
	if again := client(0).Pay(within(t, harness.Patience), all[0].payment); again.Header.Get(mismatch) != "true" {
		t.Error("a body that cannot be compared is taken for the same")
	}
	for _, p := range all {
		sandbox.Ledger().MustHave(t, p.payment, 1)
	}
}

// mustReplayAnother checks that a body with another amount is answered as the first one
// was, and that the nonce's timeline names the amount and nothing else.
func mustReplayAnother(t *testing.T, c *harness.Client, p harness.Payment, first harness.Answer) {
	t.Helper()
	ctx := within(t, harness.Patience)
	if a := c.Pay(ctx, p); a.Err != nil || !a.Same(first) || a.Header.Get(mismatch) != "true" {
		t.Errorf("%s with another amount: %s", p.Description, a)
	}
	var told []string
	harness.Eventually(t, harness.Patience, "the timeline tells of the other body", func() bool { // it is written a moment later
		var found struct {
			Lives []struct {
				Timeline []struct {
					Differs []string `json:"differs"`
				} `json:"timeline"`
			} `json:"lives"`
		}
		a := c.Get(ctx, "/v1/idempotency-keys/"+p.Nonce)
		if a.Status != http.StatusOK || json.Unmarshal(a.Body, &found) != nil {
			return false
		}
		told = nil
		for _, m := range found.Lives[0].Timeline {
			told = append(told, m.Differs...)
		}
		return len(told) > 0
	})
	if told = slices.Compact(told); !slices.Equal(told, []string{"amount"}) {
		t.Errorf("%s with another amount differs in %q", p.Description, told)
	}
}

func TestSecretsMayBeInFilesOrInSystemdsCredentials(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	whole := harness.NewInstallation(pgtest.Direct(pgtest.URL(t)), sandbox.URL) // what says --pgbouncer is replaced, too
	whole.OtherSecret = harness.Unguessable("secret")
	values := map[string]string{
		"DATABASE_URL": whole.DatabaseURL, "PAYMENTS_SECRET": whole.Secret, "PAYMENTS_SECRET_OTHER": whole.OtherSecret, "PAYMENTS_ADMIN_TOKEN": whole.AdminToken,
	}
	folder, credentials := harness.Folder(t), harness.Folder(t)
	var files []string
	for name, value := range values {
		for path, mode := range map[string]os.FileMode{filepath.Join(folder, name): 0o600, filepath.Join(credentials, strings.ToLower(name)): 0o440} {
			if err := os.WriteFile(path, []byte(value+"\n"), mode); err != nil {
				t.Fatal(err)
			}
		}
		files = append(files, name+"_FILE="+filepath.Join(folder, name))
	}
	for name, env := range map[string][]string{"files": files, "credentials": {"CREDENTIALS_DIRECTORY=" + credentials}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := whole.ServeCommand()
			command.Env = env
			api := whole.ServeAs(t, command)
			payment := harness.NewPayment("paid by an instance that was given " + name)
			pay(t, harness.NewClient(api.URL, merchant(t, api)), payment)
			harness.Call(t, harness.Command{Args: []string{"lookup", payment.Nonce, "--admin-url", api.Operator.URL}, Env: env}).Must(t, 0, "Charged once")
			harness.Call(t, harness.Command{Args: []string{"migrate", "status"}, Env: env}).Must(t, 0, "up to date")
			if strings.Contains(api.Stderr(), "others can read") {
				t.Error("it warns of files that only their owner reads")
			}
		})
	}
	t.Run("a file that everybody can read", func(t *testing.T) {
		t.Parallel()
		open := filepath.Join(harness.Folder(t), "secret")
		if err := os.WriteFile(open, []byte(whole.Secret), 0o644); err != nil {
			t.Fatal(err)
		}
		command := whole.ServeCommand()
		command.Env = append(command.Env, "PAYMENTS_SECRET=", "PAYMENTS_SECRET_FILE="+open,
			"PAYMENTS_TLS_CERT=", "PAYMENTS_TLS_KEY=", "PAYMENTS_ADMIN_TLS_CERT=", "PAYMENTS_ADMIN_TLS_KEY=") // as a file with settings has them
		if log := whole.ServeAs(t, command).Stderr(); !strings.Contains(log, `"msg":"others can read the file of a secret","variable":"PAYMENTS_SECRET_FILE"`) {
			t.Error("it does not warn")
		}
	})
}

func TestServeRefusesWhatItMustNotServeWith(t *testing.T) {
	t.Parallel()
	whole := harness.NewInstallation("postgres://nobody@127.0.0.1:1/nothing", "http://127.0.0.1:1")
	token := filepath.Join(harness.Folder(t), "token")
	if err := os.WriteFile(token, []byte(whole.AdminToken), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args, env []string
		says      string
	}{
		"a secret as a flag":               {args: []string{"--secret", whole.Secret}, says: "unknown flag --secret"},
		"a token as a flag":                {args: []string{"--admin-token", whole.AdminToken}, says: "unknown flag --admin-token"},
		"a token twice":                    {env: []string{"PAYMENTS_ADMIN_TOKEN_FILE=" + token}, says: "PAYMENTS_ADMIN_TOKEN is set more than once"},
		"a file that is not there":         {env: []string{"PAYMENTS_SECRET_FILE=" + token + "s"}, says: "PAYMENTS_SECRET_FILE names a file that cannot be read"},
		"a short other secret":             {env: []string{"PAYMENTS_SECRET_OTHER=" + whole.Secret[:31]}, says: "PAYMENTS_SECRET_OTHER must hold at least 32 bytes"},
		"the secret twice":                 {env: []string{"PAYMENTS_SECRET_OTHER=" + whole.Secret}, says: "PAYMENTS_SECRET_OTHER must not be PAYMENTS_SECRET"},
		"the secret as token":              {env: []string{"PAYMENTS_ADMIN_TOKEN=" + whole.Secret}, says: "PAYMENTS_ADMIN_TOKEN must not be the installation's secret"},
		"operators on every address":       {args: []string{"--admin-listen", "0.0.0.0:0"}, says: "--admin-listen must be on loopback"},
		"operators on every address, IPv6": {args: []string{"--admin-listen", "[::]:0"}, says: "--admin-listen must be on loopback"},
		"operators without a host":         {args: []string{"--admin-listen", ":0"}, says: "--admin-listen must be on loopback"},
		"operators behind a name":          {args: []string{"--admin-listen", "payments.internal:0"}, says: "--admin-listen must be on loopback"},
		"a certificate without a key":      {args: []string{"--tls-cert", token}, says: "--tls-cert and --tls-key go together"},
		"a certificate that is none":       {args: []string{"--tls-cert", token, "--tls-key", token}, says: "--tls-cert and --tls-key: "},
		"a certificate that is not there":  {args: []string{"--admin-tls-cert", token + "s", "--admin-tls-key", token}, says: "--admin-tls-cert and --admin-tls-key: the certificate's file cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := whole.ServeCommand(c.args...)
			command.Env = append(command.Env, c.env...)
			r := harness.Call(t, command)
			r.Must(t, 2, "payments: ", c.says)
			for _, secret := range []string{whole.Secret[:31], whole.AdminToken[:31]} {
				if strings.Contains(r.Stdout+r.Stderr, secret) {
					t.Error("it tells a secret")
				}
			}
		})
	}
	t.Run("dev for others", func(t *testing.T) {
		t.Parallel()
		folder := harness.Folder(t)
		harness.Call(t, harness.DevCommand(folder, "--admin-listen", "0.0.0.0:0")).Must(t, 2, "--admin-listen must be on loopback")
		if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
			t.Errorf("it leaves %v (%v)", left, err)
		}
	})
}
