package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestInTurnLeavesNoneOutAndBeginsElsewhereInTheNextRound(t *testing.T) {
	t.Parallel()
	for _, seed := range []int64{-5, 0, 1, 2, 1 << 40} {
		next := inTurn(seed, []string{"a", "b", "c"})
		got := []string{next(), next(), next()}
		first := got[0]
		slices.Sort(got)
		if !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("seed %d: three turns are %q", seed, got)
		}
		if inTurn(seed+1, []string{"a", "b", "c"})() == first {
			t.Errorf("seeds %d and %d begin alike", seed, seed+1)
		}
	}
}

// Where no disk can be mounted, the campaign says so, and does not ask for a full one.
func TestBallastLeavesNoRoomOnTheDiskAndGivesItBack(t *testing.T) {
	t.Parallel()
	m := &mortal{dir: t.TempDir()}
	if why := noDisk(m.dir); why != "" {
		if mountDisk(m.dir) == nil {
			t.Fatalf("a disk was mounted, although %s", why)
		}
		c := campaign{noDisk: why}
		if c.excused()[diskFull] != why {
			t.Errorf("a full disk is asked for, although %s", why)
		}
		return
	}
	if err := m.takeDisk(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.leaveDisk(); err != nil {
			t.Error(err)
		}
	})
	write := func() error {
		return os.WriteFile(filepath.Join(m.dir, "data"), []byte("a page"), 0o600)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var during error
	full, err := m.ballast(ctx, time.Minute, func(context.Context) {
		during = write()
		cancel() // has seen enough
	})
	if err != nil || !full {
		t.Errorf("filled: %t, %v", full, err)
	}
	if !errors.Is(during, syscall.ENOSPC) {
		t.Errorf("while the disk is full, writing says: %v", during)
	}
	if err := write(); err != nil {
		t.Errorf("after the ballast is gone: %v", err)
	}
}
