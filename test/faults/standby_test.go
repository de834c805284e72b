package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oncepay/oncepay/test/faults/mutants"
	"github.com/oncepay/oncepay/test/harness"
)

// Case H25 with a standby that is promoted.
func TestH25FailoverForgetsNothingThatSomebodyWentBy(t *testing.T) {
	t.Parallel()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "faults-") //nolint:usetesting // a test's own folder may have too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	binary, err := mutants.Build(t.Context(), root, dir, mutants.Product())
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStage(t.Context(), &ground{dir: dir}, set{
		seed: 1, binary: binary, instances: 2, mortal: true, standby: synchronous, withhold: "can_void", progress: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	for n, sc := range standbyScenes {
		if _, hunted := sceneNamed(sc.name); hunted {
			continue // it is played where its mutant is
		}
		if err := s.perform(t.Context(), n, sc); err != nil {
			t.Fatal(err)
		}
		t.Logf("played %q as s-1-%02d", sc.name, n)
	}
	s.heal()
	s.awaitSettled(t.Context())
	out, err := s.judgement(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range out.violations {
		t.Errorf("%s: %s", v.Oracle, v.Detail)
	}
}

// What is held arrives late, what is cut never does, and the line is used again.
func TestLineHoldsAndLoses(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "faults-") //nolint:usetesting // a test's own folder may have too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	primary, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = primary.Close() })
	l, err := startLine(t.Context(), socket, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	connect := func() (ours, theirs net.Conn) {
		t.Helper()
		theirs, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if ours, err = primary.Accept(); err != nil {
			t.Fatal(err)
		}
		return ours, theirs
	}
	say := func(to net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(to, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(from net.Conn, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(from, got); err != nil || !bytes.Equal(got, []byte(want)) {
			t.Fatalf("heard %q (%v), not %q", got, err, want)
		}
	}
	ours, theirs := connect()
	say(ours, "one")
	hear(theirs, "one")
	l.hold()
	say(ours, "two")
	say(theirs, "ack") // the other way is open
	hear(ours, "ack")
	if err := theirs.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, _ := theirs.Read(make([]byte, 1)); n != 0 {
		t.Fatal("what is held has arrived")
	}
	if err := theirs.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	l.release()
	hear(theirs, "two")
	l.hold()
	say(ours, "three")
	l.cut()
	if n, err := theirs.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatal("what was cut has arrived")
	}
	l.mend()
	ours, theirs = connect()
	say(ours, "four")
	hear(theirs, "four")
}
