package iso

import "testing"

func TestCountryKnowsAssignedAlpha2CodesOnly(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"US", "CO", "BR", "MX", "CL", "GB", "SS", "CW", "PS", "TW", "AX", "ZW"} {
		if !Country(code) {
			t.Errorf("%s is refused", code)
		}
	}
	for _, code := range []string{"", "U", "USA", "us", "Us", " US", "US ", "UK", "EU", "XK", "XX", "ZZ", "AN", "CS", "SU", "AD AE", "\n"} {
		if Country(code) {
			t.Errorf("%q is accepted", code)
		}
	}
	// The standard has 249 since 2011: the count finds a code lost or doubled by a
	// slip of the hand.
	if len(isCountry) != 249 {
		t.Errorf("%d countries, want 249", len(isCountry))
	}
	for code := range isCountry {
		if len(code) != 2 {
			t.Errorf("%q has not two letters", code)
		}
	}
}
