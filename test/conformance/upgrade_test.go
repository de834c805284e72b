package conformance

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oncepay/oncepay/migrations"
	"github.com/oncepay/oncepay/test/harness"
)

// previousRelease is the commit that stands for the release before this one: its
// schema is the one before ours. It moves on with each release.
const previousRelease = "809763987b283521966d14b4ccb7933d6fb3c5b7"

// buildPrevious builds the release before from the repository's history, and says so
// where there is none: in a source archive nobody can try this.
func buildPrevious(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 5*time.Minute)
	if err := exec.CommandContext(ctx, "git", "-C", root, "cat-file", "-e", previousRelease+"^{commit}").Run(); err != nil {
		fmt.Fprintln(os.Stderr, "NOT TRIED: old and new binaries side by side, because this checkout's history does not reach back to the release before")
		t.Skip("this checkout's history does not reach back to the release before")
	}
	archive, err := exec.CommandContext(ctx, "git", "-C", root, "archive", previousRelease).Output()
	if err != nil {
		t.Fatal(err)
	}
	run := func(stdin []byte, name string, args ...string) {
		t.Helper()
		c := exec.CommandContext(ctx, name, args...)
		c.Dir, c.Stdin = folder, bytes.NewReader(stdin)
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run(archive, "tar", "-x")
	if embed, err := os.ReadFile(filepath.Join(folder, "migrations", "embed.go")); err != nil || !strings.Contains(string(embed), fmt.Sprintf("\nconst Latest = %d\n", migrations.Latest-1)) {
		t.Fatalf("previousRelease does not have the schema before ours, which is %d (%v): move it on", migrations.Latest, err)
	}
	run(nil, "go", "build", "-trimpath", "-buildvcs=false", "-o", "previous", "./cmd/payments")
	return filepath.Join(folder, "previous")
}

// An installation goes from the release before to this one, back, and on again, one
// instance at a time, while merchants pay: first the schema, then the binaries. Old and
// new ones serve side by side, and a nonce that one has answered the other replays.
//
// Not in parallel with other tests, as all that are about requests at every moment.
func TestOldAndNewBinariesServeOneSchemaUnderLoad(t *testing.T) {
	const (
		payers = 6
		each   = 60 // payments in each state of the roll-out, at least
	)
	previous := buildPrevious(t)
	harness.TwoReleases(t)
	ctx := within(t, 4*harness.Patience)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	database := emptyDatabase(t)
	env := []string{"DATABASE_URL=" + database}
	harness.Call(t, harness.Command{Binary: previous, Args: []string{"migrate", "up"}, Env: env}).Must(t, 0, "up to date")

	f := newFleet(ctx, t, harness.NewInstallation(database, sandbox.URL))
	slots := [2]*backend{f.admit(previous), f.admit(previous)}
	// replace is what whoever rolls a release out does: the fresh instance is ready before
	// the other is told to end.
	replace := func(slot int, binary string) {
		t.Helper()
		fresh, leaving := f.admit(binary), slots[slot]
		leaving.api.Signal(syscall.SIGTERM)
		f.awaitEnd(leaving)
		slots[slot] = fresh
	}

	endLoad := f.pay(ctx, payers)
	begun := time.Now()
	first, last := harness.NewPayment("answered by the release before"), harness.NewPayment("answered by this one")
	answered := pay(t, slots[0].Client, first)
	goOn := func(state string) {
		t.Helper()
		goal := f.load.count() + each
		harness.Eventually(t, harness.Patience, "payments with "+state, func() bool { return f.load.count() >= goal || ctx.Err() != nil })
	}
	same := func(what string, p harness.Payment, want harness.Answer, by *backend) {
		t.Helper()
		if a := by.Pay(ctx, p); a.Status != want.Status || !bytes.Equal(a.Body, want.Body) || a.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: %s, not what was answered first", what, a)
		}
	}

	goOn("the release before")
	harness.Call(t, harness.Command{Args: []string{"migrate", "up"}, Env: env}).Must(t, 0, "up to date")
	goOn("the release before on the new schema")
	replace(0, underTest)
	goOn("both releases")
	same("this release", first, answered, slots[0])
	byThis := pay(t, slots[0].Client, last)
	same("the release before", last, byThis, slots[1])
	replace(1, underTest)
	goOn("this release")
	harness.Call(t, harness.Command{Binary: previous, Args: []string{"migrate", "up"}, Env: env}).Must(t, 0, "one ahead") // changes nothing
	replace(0, previous)
	goOn("both releases, on the way back")
	replace(1, previous)
	goOn("the release before, started on the new schema")
	same("the release before, afterwards", last, byThis, slots[1])
	replace(0, underTest)
	replace(1, underTest)
	goOn("this release again")
	endLoad()

	f.load.paid = append(f.load.paid, first, last)
	f.load.mustHaveLostNothing(t, sandbox.Ledger())
	t.Logf("%d payments in %s, %d of them answered by an instance that was stopping", f.load.count(), time.Since(begun).Round(time.Millisecond), f.load.crossed.Load())
}
