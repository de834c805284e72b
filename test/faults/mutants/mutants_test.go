package mutants

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// moduleRoot is the folder of go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// This is the test that a refactoring meets: it takes no time and says what moved.
func TestEveryEditStillFindsWhatItReplaces(t *testing.T) {
	t.Parallel()
	for _, m := range append(All(), Product()) {
		if _, err := Overlay(moduleRoot(t), t.TempDir(), m); err != nil {
			t.Error(err)
		}
	}
}

func TestMutantsAreTwentyNineWithNamesAndReasons(t *testing.T) {
	t.Parallel()
	kebab := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := map[string]bool{}
	for _, m := range All() {
		if !kebab.MatchString(m.Name) || seen[m.Name] {
			t.Errorf("the name %q is not in kebab-case, or there twice", m.Name)
		}
		seen[m.Name] = true
		if !strings.HasSuffix(m.Defect, ".") && !strings.HasSuffix(m.Defect, ".)") {
			t.Errorf("%s: its defect is no sentence: %q", m.Name, m.Defect)
		}
		if len(m.Edits) == 0 {
			t.Errorf("%s changes nothing", m.Name)
		}
	}
	if len(seen) != 29 {
		t.Errorf("there are %d mutants, the campaign promises 29", len(seen))
	}
}

func TestEditThatFindsNothingOrTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte("package a // a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, e := range map[string]Edit{
		"not there":         {"a.go", "package b", ""},
		"there three times": {"a.go", "a", ""},
		"no such file":      {"b.go", "package", ""},
		"added, but there":  {"a.go", "", "package a\n"},
	} {
		_, err := Overlay(dir, t.TempDir(), Mutant{Name: "some-name", Edits: []Edit{e}})
		if err == nil || !strings.Contains(err.Error(), "some-name") || !strings.Contains(err.Error(), e.File) {
			t.Errorf("%s: the error is %v, want one that names the mutant and the file", what, err)
		}
	}
}

func TestEveryMutantBuilds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	two := make(chan struct{}, 2) // the go command uses all cores by itself
	for _, m := range append(All(), Product()) {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			binary, err := Build(t.Context(), "../../..", dir, m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(binary); err != nil {
				t.Error(err)
			}
		})
	}
}

// Go's transport has its own rules about what it sends again. That the mutant meets
// them is tried on its adapter; that the product does not, in internal/providers.
func TestTransportOfItsMutantResends(t *testing.T) {
	t.Parallel()
	test, err := os.ReadFile(filepath.Join("testdata", "transport_resends.go"))
	if err != nil {
		t.Fatal(err)
	}
	m := transportResends()
	m.Edits = append(m.Edits, Edit{File: "internal/providers/resends/resends_test.go", New: string(test)})
	file, err := Overlay(moduleRoot(t), t.TempDir(), m)
	if err != nil {
		t.Fatal(err)
	}
	// A folder that is only in the overlay can be compiled, but no test can run in it.
	binary := filepath.Join(t.TempDir(), "resends.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", file, "-o", binary, "./internal/providers/resends")
	cmd.Dir = moduleRoot(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), binary).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
