package sandbox

import (
	"strings"
	"testing"
	"time"
)

func TestMagicCards(t *testing.T) {
	for number, want := range map[string]string{
		"4507990000000002":    "SUCCEEDED",
		"5252440000000010":    "INSUFFICIENT_FUNDS",
		"370000000000028":     "DECLINED_BY_BANK", // Amex has 15 digits
		"3647166000000036":    "DO_NOT_HONOR",
		"1139000000000044":    "INVALID_SECURITY_CODE",
		"4507990000000051":    "INVALID_CARD_DATA",
		"4507990000000069":    "REPORTED_STOLEN",
		"4507990000000077":    "ERROR",
		"4111111111111111":    "", // whatever the description says
		"4000000000000002":    "DECLINED_BY_BANK",
		"4000000000003220":    "CHALLENGE_REQUIRED",
		"4916994064252017":    "CHALLENGE_REQUIRED",
		"4507990000000003":    "", // the prefix alone is nothing
		"4111111111110010":    "", // and neither are the last four
		"3700000000000028":    "",
		"45079900000000021":   "",
		"0002":                "",
		"2":                   "",
		"":                    "",
		"4507990000000002 ":   "",
		"4507 9900 0000 0002": "",
	} {
		if got := cardCode(number); got != want {
			t.Errorf("card ending in %q stands for %q, want %q", number[max(0, len(number)-4):], got, want)
		}
	}
}

func TestPrecedence(t *testing.T) {
	for _, c := range []struct{ card, description, want string }{
		{"INSUFFICIENT_FUNDS", "DO_NOT_HONOR", "INSUFFICIENT_FUNDS"},
		{"SUCCEEDED", "DO_NOT_HONOR", "SUCCEEDED"},
		{"", "DO_NOT_HONOR", "DO_NOT_HONOR"},
		{"", "PROVIDER_TIMEOUT", "PROVIDER_TIMEOUT"},
		{"", "INVALID_REQUEST", "INVALID_REQUEST"},
		{"", "FRAUD_VERIFIED", "FRAUD_VERIFIED"},
		{"", "do_not_honor", "SUCCEEDED"},
		{"", "PENDING_REVIEW", "SUCCEEDED"}, // of a class that is no answer
		{"", "Coffee", "SUCCEEDED"},
		{"", "sandbox:timeout", "SUCCEEDED"}, // of a later send
		{"DO_NOT_HONOR", "sandbox:timeout", "DO_NOT_HONOR"},
	} {
		if got := truth(c.card, c.description); got != c.want {
			t.Errorf("card %q, description %q: %s, want %s", c.card, c.description, got, c.want)
		}
	}
}

func TestParseFault(t *testing.T) {
	for description, want := range map[string]fault{
		"sandbox:charge-then-timeout": {word: "charge-then-timeout", books: true, then: never},
		"sandbox:timeout":             {word: "timeout", then: never},
		"sandbox:charge-then-500":     {word: "charge-then-500", books: true, then: with500},
		"sandbox:500":                 {word: "500", then: with500},
		"sandbox:charge-then-reset":   {word: "charge-then-reset", books: true, then: halfway},
		"sandbox:unavailable":         {word: "unavailable", then: unprocessed},
		"sandbox:reject":              {word: "reject", then: refusing},
		"sandbox:slow=3s":             {word: "slow", books: true, slow: 3 * time.Second},
		"sandbox:slow=60s":            {word: "slow", books: true, slow: time.Minute},
		"sandbox:slow=1ms":            {word: "slow", books: true, slow: time.Millisecond},

		"sandbox:pending-then-approve=2s":        {word: "pending-then-approve", verdict: thenApprove, wait: 2 * time.Second, copies: 1},
		"sandbox:pending-then-decline=60s":       {word: "pending-then-decline", verdict: thenDecline, wait: time.Minute, copies: 1},
		"sandbox:pending-then-approve-twice=1ms": {word: "pending-then-approve-twice", verdict: thenApprove, wait: time.Millisecond, copies: 2},
		"sandbox:challenge":                      {word: "challenge", verdict: thenChallenge, copies: 1},
	} {
		if got, asked, problem := parseFault(description); got != want || !asked || problem != "" {
			t.Errorf("%s: %+v %v %q", description, got, asked, problem)
		}
	}
	for _, description := range []string{
		"", "Coffee", "Sandbox:timeout", " sandbox:timeout", "sandbox", "a sandbox:timeout",
	} {
		if _, asked, problem := parseFault(description); asked || problem != "" {
			t.Errorf("%q asks for a fault", description)
		}
	}
	for _, description := range []string{
		"sandbox:", "sandbox:timeuot", "sandbox:timeout ", "sandbox: timeout", "sandbox:TIMEOUT", "sandbox:timeout=3s",
		"sandbox:slow", "sandbox:slow=", "sandbox:slow=3", "sandbox:slow=-3s", "sandbox:slow=0s", "sandbox:slow=61s",
		"sandbox:slow=3s ", "sandbox:slow=4507990000000002",
		"sandbox:pending-then-approve", "sandbox:pending-then-approve=", "sandbox:pending-then-decline=61s", "sandbox:pending-then-approve-twice=-1s",
		"sandbox:pending=2s", "sandbox:challenge=2s",
	} {
		f, asked, problem := parseFault(description)
		if !asked || problem == "" || f != (fault{}) {
			t.Errorf("%q is taken for %+v", description, f)
		}
		if strings.Contains(problem, "4507") {
			t.Errorf("%q quotes the description", problem)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	for _, s := range []string{"sandbox:slow=3s", "sandbox:reject", "sandbox:slow=1e9h", "sandbox:\x00", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, asked, problem := parseFault(s)
		switch {
		case asked != strings.HasPrefix(s, faultPrefix):
			t.Errorf("asked %v", asked)
		case !asked || problem != "":
			if got != (fault{}) {
				t.Errorf("%+v besides a problem", got)
			}
		case got.slow < 0 || got.slow > maxSlow || got.wait < 0 || got.wait > maxSlow || got.word == "":
			t.Errorf("%+v", got)
		}
	})
}
