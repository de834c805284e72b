// Package mutants holds the deliberate defects that the fault campaign must
// catch: a campaign that finds nothing is worth something only if it finds these.
//
// The product's tree has none of them. A mutant is a list of textual edits, each
// the mistake that a good engineer might really make. Go's -overlay applies them
// to a build of their own, and nothing else ever sees them:
//
//	binary, err := mutants.Build(ctx, root, dir, m)
//	// migrate its database, run m.Setup there, start binary with m.Withhold
//
// An edit names the text that it replaces, so a refactoring that moves that text
// breaks the mutant, and the test of this package says which. The mutant then
// moves with the code; it is not dropped.
package mutants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/oncepay/oncepay/test/wallclock"
)

// Edit replaces one passage of the product's source.
type Edit struct {
	File string // relative to the module's root
	Old  string // occurs exactly once; empty: the edit adds the file
	New  string
}

// Mutant is the product with one defect.
type Mutant struct {
	Name   string // in kebab-case
	Defect string // what is wrong, and what it would cost
	Edits  []Edit
	// Setup is SQL for the mutant's database, after its migrations: it drops the
	// constraint that the defect does without, or that would be a second net below it.
	Setup string
	// Withhold is the ONCEPAY_FAULTS_WITHHOLD of its processes: traits of the provider
	// that would hide the defect.
	Withhold string
}

// Product is the product without a defect. Its serve speaks to the sandbox in live mode
// as well, and takes card numbers there, as nobody's should: there is a policy under which
// nonces count in live mode alone.
func Product() Mutant {
	return Mutant{Name: "product", Edits: []Edit{{
		"cmd/payments/serve.go", "map[string]providers.Provider{merchants.Test: provider}",
		"map[string]providers.Provider{merchants.Test: provider, merchants.Live: provider}, rawLiveCards: true",
	}}}
}

// Overlay writes m's edited files, and the overlay.json that puts them in the place
// of the product's, into dir. It fails if the code that m edits has changed.
func Overlay(root, dir string, m Mutant) (file string, err error) {
	return overlay(root, dir, m, map[string]string{})
}

// overlay puts others in the place of some files more.
func overlay(root, dir string, m Mutant, replaced map[string]string) (file string, err error) {
	if root, err = filepath.Abs(root); err != nil { // the go command runs elsewhere
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	edited, err := m.edited(root)
	if err != nil {
		return "", fmt.Errorf("mutant %s: %w", m.Name, err)
	}
	for name, text := range edited {
		path := filepath.Join(dir, "edited", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", err
		}
		replaced[filepath.Join(root, name)] = path
	}
	b, err := json.MarshalIndent(map[string]any{"Replace": replaced}, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, b, 0o600)
}

// edited are the files that m changes, as it has them.
func (m Mutant) edited(root string) (map[string]string, error) {
	edited := map[string]string{}
	for _, e := range m.Edits {
		before, known := edited[e.File]
		if !known {
			b, err := os.ReadFile(filepath.Join(root, e.File))
			if err != nil && (e.Old != "" || !errors.Is(err, fs.ErrNotExist)) {
				return nil, fmt.Errorf("read what it edits: %w", err)
			}
			before = string(b)
		}
		after, err := e.apply(before)
		if err != nil {
			return nil, err
		}
		edited[e.File] = after
	}
	return edited, nil
}

func (e Edit) apply(before string) (string, error) {
	if e.Old == "" {
		if before != "" {
			return "", fmt.Errorf("%s, which it adds, is there already: give the mutant's file another name", e.File)
		}
		return e.New, nil
	}
	if n := strings.Count(before, e.Old); n != 1 {
		return "", fmt.Errorf("%s holds %d times, not once, the text that it replaces: the code has changed, and the mutant must follow it:\n%s", e.File, n, e.Old)
	}
	return strings.Replace(before, e.Old, e.New, 1), nil
}

// Build builds m with its fault points and a wall clock that can be set off
// (wallclock.Variable), as dir/payments-<name>. Many may be built in one dir. Go's own packages are compiled anew for that clock, once for all.
func Build(ctx context.Context, root, dir string, m Mutant) (binary string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	clock := filepath.Join(dir, m.Name, "wallclock")
	if err := os.MkdirAll(clock, 0o700); err != nil {
		return "", err
	}
	replaced, err := wallclock.Overlay(ctx, root, clock)
	if err != nil {
		return "", err
	}
	edits, err := overlay(root, filepath.Join(dir, m.Name), m, replaced)
	if err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "payments-"+m.Name)
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "faultpoints", "-trimpath", "-buildvcs=false", "-overlay", edits, "-o", binary, "./cmd/payments")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build mutant %s: %w\n%s", m.Name, err, out)
	}
	return binary, nil
}
