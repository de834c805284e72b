package docs

import (
	"os"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/test/faults/mutants"
	"github.com/oncepay/oncepay/test/faults/oracle"
)

// TestReliabilityNamesEveryOracleAndMutant: the page says how the campaign judges,
// and by which defects that was tried.
func TestReliabilityNamesEveryOracleAndMutant(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("reference/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, name := range oracle.Names() {
		if !strings.Contains(page, "\n| `"+name+"` | ") {
			t.Errorf("the oracle %s has no line", name)
		}
	}
	rows := 0
	for _, m := range mutants.All() {
		if !strings.Contains(page, "\n| `"+m.Name+"` | "+m.Defect+" | ") {
			t.Errorf("the mutant %s has no line with its defect: %s", m.Name, m.Defect)
		}
		rows++
	}
	if rows < 14 {
		t.Errorf("%d mutants, and there were to be 14 at least", rows)
	}
}
