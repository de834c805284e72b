package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/oncepay/oncepay/test/wallclock"
)

// WithWallClock is a build of the binary whose processes are told by
// wallclock.Variable by how much their wall clock is ahead. It is made once a run, and
// goes with it. Go's own packages are compiled anew for it, the first time on a machine.
func WithWallClock(t testing.TB) string {
	t.Helper()
	binary, err := withWallClock()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

var withWallClock = sync.OnceValues(func() (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(suite.binary), "wallclock")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	replaced, err := wallclock.Overlay(ctx, root, dir)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	overlay, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "payments")
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return "", err
	}
	if err := build(binary, "-overlay", overlay); err != nil {
		return "", fmt.Errorf("with another time.Now: %w", err)
	}
	return binary, nil
})
