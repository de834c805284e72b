package main

import (
	"slices"
	"testing"

	"github.com/alecthomas/kong"
)

// TestDoctorTakesWhatServeTakes: the same flags, variables and defaults, and two more.
// The one that writes has no variable, which might be left behind in an environment.
func TestDoctorTakesWhatServeTakes(t *testing.T) {
	t.Parallel()
	type what struct{ variables, value string }
	flags := map[string]map[string]what{}
	var c cli
	k, err := kong.New(&c, kong.Name("payments"), kong.DefaultEnvars("PAYMENTS"), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range k.Model.Leaves(false) {
		flags[leaf.Name] = map[string]what{}
		for _, f := range slices.Concat(leaf.AllFlags(false)...) {
			w := what{value: f.Default}
			if len(f.Envs) > 0 {
				w.variables = f.Envs[0]
			}
			flags[leaf.Name][f.Name] = w
		}
	}
	for name, w := range flags["serve"] {
		if got, ok := flags["doctor"][name]; !ok || got != w {
			t.Errorf("--%s is %v for serve, and %v for doctor (%t)", name, w, got, ok)
		}
	}
	if n := len(flags["doctor"]) - len(flags["serve"]); n != 2 {
		t.Errorf("doctor has %d flags more", n)
	}
	if w, ok := flags["doctor"]["accept-database"]; !ok || w.variables != "" {
		t.Errorf("--accept-database: %v, %t", w, ok)
	}
}
