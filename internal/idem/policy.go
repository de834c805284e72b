package idem

import "time"

// DefaultRetention is how long a nonce's answer is kept: from the first request,
// and again from the answer.
const DefaultRetention = 24 * time.Hour

// DefaultPolicy is the policy of a merchant who chose none.
const DefaultPolicy = "yuno"

// Policy is how a merchant's nonces behave. There is one engine; these are its
// knobs.
type Policy struct {
	Name string
	// IgnoreRetryBody answers a retry whose body differs with the first answer.
	IgnoreRetryBody bool
	// KeepErrors stores an error as the nonce's answer, once execution began. The
	// transaction behind it is resolved all the same.
	KeepErrors bool
	// Retention is how long an answer is kept.
	Retention time.Duration
}

// PolicyNamed is the policy of that name, and whether there is one.
func PolicyNamed(name string, retention time.Duration) (Policy, bool) {
	if name != DefaultPolicy {
		return Policy{}, false
	}
	return Policy{Name: DefaultPolicy, IgnoreRetryBody: true, Retention: retention}, true
}
