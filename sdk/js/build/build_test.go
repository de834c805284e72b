package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

const root = "../../.."

// TestWhatIsCommittedIsWhatIsBuilt: nobody reads a minified script, so it has to follow from
// what is read.
func TestWhatIsCommittedIsWhatIsBuilt(t *testing.T) {
	t.Parallel()
	for _, b := range bundles {
		committed, err := os.ReadFile(filepath.Join(root, b.output))
		if err != nil {
			t.Fatal(err)
		}
		made, err := build(root, b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(made, committed) {
			t.Errorf("%s is not what its source makes: go run ./sdk/js/build", b.output)
		}
	}
}

func TestABrokenSourceIsSaid(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "a.ts"), []byte("const = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := build(folder, bundle{"a.ts", "a.js"}); err == nil {
		t.Error("it was built")
	}
}
