package console

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
)

func TestRefusalNamesFieldsAsTheFormDoes(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"$.name must have 1 to 255 characters":                                "the name must have 1 to 255 characters",
		"$.idempotency_policy must be yuno or novu":                           "the policy must be yuno or novu",
		"$.origins[0] must be an origin":                                      "entry 1 of the origins must be an origin",
		"$.origins[11] must not be in the list twice":                         "entry 12 of the origins must not be in the list twice",
		"$.allowed_networks must be a list of 1 to 50 networks, or null":      "the networks must be a list of 1 to 50 networks",
		"$.allowed_networks[2] must be a network such as 203.0.113.0/24":      "entry 3 of the networks must be a network such as 203.0.113.0/24",
		"$.overlap_seconds must be a whole number from 0 to 2592000":          "the overlap must be a whole number from 0 to 2592000",
		"$.mode must be test or live":                                         "the mode must be test or live",
		"$.role must be viewer, operator or admin":                            "the role must be viewer, operator or admin",
		"$.scope must be viewer, operator or admin":                           "the scope must be viewer, operator or admin",
		"$.lifetime_days must be a whole number from 1 to 366":                "the days must be a whole number from 1 to 366",
		"$.something_new is required":                                         "something_new is required",
		"the key is revoked: make another key":                                "the key is revoked: make another key",
		"$.name and $.role are required":                                      "the name and the role are required",
		"the merchant has 100 keys in live mode that are not revoked, enough": "the merchant has 100 keys in live mode that are not revoked, enough",
	} {
		if got := inWords(message); got != want {
			t.Errorf("%q became %q, not %q", message, got, want)
		}
	}
}

func TestOnlyWhatCanBeMendedIsShownBesideTheForm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want refusal
	}{
		{apierr.New(apierr.InvalidParameters, "$.name is bad", "$.mode is bad"), refusal{http.StatusBadRequest, "the name is bad; the mode is bad"}},
		{fmt.Errorf("wrapped: %w", apierr.New(apierr.InvalidState, "the key is revoked")), refusal{http.StatusConflict, "the key is revoked"}},
		{apierr.New(apierr.NotFound, "x"), refusal{}},
		{apierr.New(apierr.InvalidCredentials, "x"), refusal{}},
		{apierr.New(apierr.AuthorizationRequired, "x"), refusal{}},
		{apierr.New(apierr.ServiceUnavailable, "x"), refusal{}},
		{errors.New("x"), refusal{}},
		{nil, refusal{}},
	} {
		if got, ok := refused(c.err); got != c.want || ok != (c.want.Status != 0) {
			t.Errorf("%v: got %+v, %t", c.err, got, ok)
		}
	}
}

func TestLinesOfATextFieldAreItsEntries(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                       {},
		" \r\n\t\r\n":            {},
		"a":                      {"a"},
		"a\r\nb\r\n":             {"a", "b"},
		"  a \n\n\nb\r\n \r\n c": {"a", "b", "c"},
		"a b\nc,d":               {"a b", "c,d"},
	} {
		if got := linesOf(text); !slices.Equal(got, want) || got == nil {
			t.Errorf("%q: got %q", text, got)
		}
	}
}

func TestCountdownHasItsTwoLargestUnits(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour:                          "less than a second",
		0:                                   "less than a second",
		time.Second:                         "1 s",
		59*time.Second + 999e6:              "59 s",
		time.Minute:                         "1 min",
		time.Hour - 1:                       "59 min",
		time.Hour:                           "1 h 0 min",
		100 * time.Minute:                   "1 h 40 min",
		23*time.Hour + 12*time.Minute + 5e9: "23 h 12 min",
		24 * time.Hour:                      "1 day 0 h",
		47*time.Hour + 59*time.Minute:       "1 day 23 h",
		48 * time.Hour:                      "2 days 0 h",
		30 * 24 * time.Hour:                 "30 days 0 h",
	} {
		if got := countdown(d); got != want {
			t.Errorf("%s: got %q, not %q", d, got, want)
		}
	}
}
