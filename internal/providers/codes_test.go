package providers

import (
	"regexp"
	"testing"
)

func TestEveryResponseCodeHasAClassAndASentence(t *testing.T) {
	name := regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	for code := range codes {
		class, known := ClassOf(code)
		switch class {
		case ClassSucceeded, ClassDeclined, ClassRejected, ClassError:
		default:
			t.Errorf("%s has the class %q", code, class)
		}
		if m := Message(code); !known || !name.MatchString(code) || m == "" || m == unknownCode {
			t.Errorf("%s: known %v, message %q", code, known, m)
		}
	}
}

func TestACodeOfSeveralClassesTakesTheFirst(t *testing.T) {
	for code, want := range map[string]string{
		"SUCCEEDED":            ClassSucceeded,
		"INSUFFICIENT_FUNDS":   ClassDeclined,
		"INVALID_PARAMETERS":   ClassDeclined, // also REJECTED
		"CURRENCY_NOT_ALLOWED": ClassDeclined, // also REJECTED
		"INVALID_REQUEST":      ClassRejected,
		"PROVIDER_TIMEOUT":     ClassError,
		"ERROR":                ClassError,
	} {
		if got, known := ClassOf(code); got != want || !known {
			t.Errorf("%s is %q, want %q", code, got, want)
		}
	}
	for _, code := range []string{"", "succeeded", " SUCCEEDED", "IN_REVIEW", "EXPIRED_BY_PROVIDER"} {
		if class, known := ClassOf(code); known || class != "" || Message(code) != unknownCode {
			t.Errorf("%q is known as %q", code, class)
		}
	}
	if got := Message("SUCCEEDED"); got != "Transaction successful" {
		t.Errorf("SUCCEEDED says %q", got) // what published clients show
	}
}
