package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oncepay/oncepay/migrations"
	"github.com/oncepay/oncepay/test/harness"
)

// previousRelease is the commit that stands for the release before this one: its
// schema is the one before ours. It moves on with each release.
const previousRelease = "bc75918df018c831fda45db6ee5566714d316ad4"

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

// slots are two instances behind the balancer, of either release.
type slots struct {
	t            *testing.T
	installation harness.Installation
	drain        time.Duration
	balancer     *balancer
	keys         harness.Keys
	in           [2]*backend
}

// replace puts a fresh instance of a release into a slot, as whoever rolls it out
// does: the fresh one is ready before the other is told to end.
func (s *slots) replace(slot int, binary string) {
	s.t.Helper()
	c := s.installation.ServeCommand("--drain-delay", s.drain.String())
	c.Binary = binary
	api := s.installation.ServeAs(s.t, c)
	if s.keys == (harness.Keys{}) {
		s.keys = merchant(s.t, api)
	}
	fresh := s.balancer.add(api, s.keys)
	harness.Eventually(s.t, harness.Patience, "the balancer knows the new instance", func() bool { return s.balancer.isReady(fresh) })
	if leaving := s.in[slot]; leaving != nil {
		leaving.api.Signal(syscall.SIGTERM)
		if code := leaving.api.Wait(); code != 0 {
			s.t.Errorf("an instance ended with %d", code)
		}
		s.balancer.drop(leaving)
	}
	s.in[slot] = fresh
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
		drain  = 600 * time.Millisecond
	)
	previous := buildPrevious(t)
	ctx := within(t, 4*harness.Patience)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	database := emptyDatabase(t)
	env := []string{"DATABASE_URL=" + database}
	harness.Call(t, harness.Command{Binary: previous, Args: []string{"migrate", "up"}, Env: env}).Must(t, 0, "up to date")

	b := &balancer{}
	watching, stopWatching := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer stopWatching()
	watcher.Go(func() { b.watch(watching) })
	s := &slots{t: t, installation: harness.NewInstallation(database, sandbox.URL), drain: drain, balancer: b}
	s.replace(0, previous)
	s.replace(1, previous)

	l := &load{balancer: b}
	enough := make(chan struct{})
	var paying sync.WaitGroup
	for range payers {
		paying.Go(func() { l.merchant(ctx, enough) })
	}
	begun := time.Now()
	first, last := harness.NewPayment("answered by the release before"), harness.NewPayment("answered by this one")
	answered := pay(t, s.in[0].Client, first)
	goOn := func(state string) {
		t.Helper()
		goal := l.count() + each
		harness.Eventually(t, harness.Patience, "payments with "+state, func() bool { return l.count() >= goal || ctx.Err() != nil })
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
	const this = ""
	s.replace(0, this)
	goOn("both releases")
	same("this release", first, answered, s.in[0])
	byThis := pay(t, s.in[0].Client, last)
	same("the release before", last, byThis, s.in[1])
	s.replace(1, this)
	goOn("this release")
	harness.Call(t, harness.Command{Binary: previous, Args: []string{"migrate", "up"}, Env: env}).Must(t, 0, "one ahead") // changes nothing
	s.replace(0, previous)
	goOn("both releases, on the way back")
	s.replace(1, previous)
	goOn("the release before, started on the new schema")
	same("the release before, afterwards", last, byThis, s.in[1])
	s.replace(0, this)
	s.replace(1, this)
	goOn("this release again")
	close(enough)
	paying.Wait()

	l.mu.Lock()
	l.paid = append(l.paid, first, last)
	l.mu.Unlock()
	l.mustHaveLostNothing(t, sandbox.Ledger())
	t.Logf("%d payments in %s, %d of them answered by an instance that was stopping", l.count(), time.Since(begun).Round(time.Millisecond), l.crossed.Load())
}
