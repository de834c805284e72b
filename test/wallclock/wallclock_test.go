package wallclock

import (
	"testing"
)

// Another Go may write its Now differently: this says so at once, and builds nothing.
func TestOverlayFindsTheNowOfThisGo(t *testing.T) {
	t.Parallel()
	replaced, err := Overlay(t.Context(), "../..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(replaced) != 2 {
		t.Errorf("it replaces %v", replaced)
	}
}
