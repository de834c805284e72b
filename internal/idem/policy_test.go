package idem

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
)

// creating and acting are the two kinds of route that there are.
var (
	creating = Route{Method: http.MethodPost, Path: "/v1/payments", Creates: true, MovesMoney: true, Produces: "application/json"}
	acting   = Route{Method: http.MethodPost, Path: "/v1/payments/:id/refund", MovesMoney: true, Produces: "application/json"}
)

// preset is the policy of that name.
func preset(t testing.TB, o Options, name string) Policy {
	t.Helper()
	for _, p := range Presets(o) {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no preset %s", name)
	return Policy{}
}

// knobs is the protocol's table of policies: what each knob is under yuno, novu, fyno
// and ietf.
var knobs = map[string][4]any{
	"Headers": {
		[]string{"X-Idempotency-Key", "Idempotency-Key"}, []string{"Idempotency-Key"}, []string{"Idempotency-Key"}, []string{"Idempotency-Key"},
	},
	"Format":          {Visible, Printable, Printable, Quoted},
	"MaxLength":       {64, 255, 0, 255},
	"Required":        {true, false, false, true},
	"CreatesOnly":     {false, false, true, false},
	"LiveOnly":        {false, false, true, false},
	"IgnoreRetryBody": {true, false, true, false},
	"MismatchFirst":   {false, false, false, true},
	"RetryAfter":      {true, true, false, false},
	"KeepErrors":      {false, true, true, true},
	"ReplayHeader":    {"Idempotent-Replayed", "Idempotency-Replay", "", "Idempotent-Replayed"},
	"MismatchHeader":  {"Idempotency-Body-Mismatch", "", "", ""},
	"Echo":            {false, true, false, false},
	"Retention":       {24 * time.Hour, 24*time.Hour + time.Minute, 24 * time.Hour, 24 * time.Hour},
	"ClientRetention": {false, false, true, false},
	"Errors":          {apierr.Envelope, apierr.Nest, apierr.Envelope, apierr.Problem},
}

func TestPresetsAreTheProtocolsTableKnobByKnob(t *testing.T) {
	t.Parallel()
	names := []string{"yuno", "novu", "fyno", "ietf"}
	policies, err := NewPolicies(Presets(Options{})...)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(policies.Names(), names) || names[0] != DefaultPolicy {
		t.Fatalf("the presets are %q", policies.Names())
	}
	fields := reflect.TypeFor[Policy]()
	for i := range fields.NumField() {
		knob := fields.Field(i).Name
		if knob == "Name" {
			continue
		}
		row, known := knobs[knob]
		if !known {
			t.Errorf("the table says nothing of %s", knob)
			continue
		}
		for j, want := range row {
			if got := reflect.ValueOf(policies.Of(names[j])).Field(i).Interface(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s of %s is %v, not %v", knob, names[j], got, want)
			}
		}
	}
	if len(knobs) != fields.NumField()-1 {
		t.Errorf("the table has %d knobs, a policy %d", len(knobs), fields.NumField()-1)
	}
}

func TestAnInstallationSetsTheRetentionAndWhetherQuotesMayBeLeftOut(t *testing.T) {
	t.Parallel()
	o := Options{Retention: 2 * time.Hour, BareKeys: true}
	for name, retention := range map[string]time.Duration{
		"yuno": 2 * time.Hour, "novu": 2*time.Hour + time.Minute, "fyno": 2 * time.Hour, "ietf": 2 * time.Hour,
	} {
		want := preset(t, Options{}, name)
		want.Retention = retention
		if name == "ietf" {
			want.Format = QuotedOrBare
		}
		if got := preset(t, o, name); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, not %+v", name, got, want)
		}
	}
}

func TestPolicyThatContradictsItselfIsRefused(t *testing.T) {
	t.Parallel()
	sound := func() Policy {
		return Policy{Name: "house", Headers: []string{"Idempotency-Key"}, Format: Visible, Retention: MinRetention, Errors: apierr.Nest}
	}
	if _, err := NewPolicies(sound()); err != nil {
		t.Fatalf("with as little as can be: %v", err)
	}
	for name, c := range map[string]struct {
		change func(p *Policy)
		says   string
	}{
		"without a name":                    {func(p *Policy) { p.Name = "" }, "a policy must have a name"},
		"without a header":                  {func(p *Policy) { p.Headers = nil }, "policy house must name a header"},
		"no format":                         {func(p *Policy) { p.Format = "" }, "policy house must have a format that there is"},
		"a format that there is not":        {func(p *Policy) { p.Format = "runes" }, "policy house must have a format that there is"},
		"a negative length":                 {func(p *Policy) { p.MaxLength = -1 }, "policy house must not have a negative length"},
		"refuses first what it ignores":     {func(p *Policy) { p.IgnoreRetryBody, p.MismatchFirst = true, true }, "policy house ignores a retry's body and cannot refuse it first"},
		"marks what it refuses":             {func(p *Policy) { p.MismatchHeader = "X-Other-Body" }, "policy house refuses another body and has no answer to mark"},
		"refuses first, and marks":          {func(p *Policy) { p.MismatchFirst, p.MismatchHeader = true, "X-Other-Body" }, "policy house refuses another body and has no answer to mark"},
		"no retention":                      {func(p *Policy) { p.Retention = 0 }, "policy house must keep answers for at least 1m0s"},
		"a retention too short for retries": {func(p *Policy) { p.Retention = MinRetention - 1 }, "policy house must keep answers for at least 1m0s"},
		"no style of errors":                {func(p *Policy) { p.Errors = "" }, "policy house must have a style of errors that there is"},
		"a style that there is not":         {func(p *Policy) { p.Errors = "xml" }, "policy house must have a style of errors that there is"},
	} {
		p := sound()
		c.change(&p)
		ps, err := NewPolicies(append(Presets(Options{}), p)...)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.says)
		}
		if len(ps.names) != 0 || ps.Known("yuno") {
			t.Errorf("%s: there are policies in spite of it", name)
		}
	}
	for name, c := range map[string]struct {
		all  []Policy
		says string
	}{
		"none at all":    {nil, "there must be a policy"},
		"one name twice": {[]Policy{sound(), preset(t, Options{}, "novu"), sound()}, "there are two policies house"},
	} {
		if _, err := NewPolicies(c.all...); err == nil || err.Error() != c.says {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	// What is unusual, and no contradiction.
	for name, change := range map[string]func(p *Policy){
		"quoted without a limit":           func(p *Policy) { p.Format = Quoted },
		"required of creates alone":        func(p *Policy) { p.Required, p.CreatesOnly, p.LiveOnly = true, true, true },
		"a mark on ignored bodies":         func(p *Policy) { p.IgnoreRetryBody, p.MismatchHeader = true, "X-Other-Body" },
		"longer than a client may ask for": func(p *Policy) { p.Retention, p.ClientRetention = 2*MaxRetention, true },
	} {
		p := sound()
		change(&p)
		if _, err := NewPolicies(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPoliciesAreFoundByNameAndTheFirstIsTheDefault(t *testing.T) {
	t.Parallel()
	all := Presets(Options{})
	slices.Reverse(all)
	ps, err := NewPolicies(all...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if got := ps.Of(p.Name); !ps.Known(p.Name) || !reflect.DeepEqual(got, p) {
			t.Errorf("%s is known: %t, and is %+v", p.Name, ps.Known(p.Name), got)
		}
	}
	// A row of the database may name a policy that a later release does not have.
	for _, name := range []string{"", "YUNO", "yuno ", "house"} {
		if ps.Known(name) || ps.Of(name).Name != "ietf" {
			t.Errorf("%q is known: %t, and is %s", name, ps.Known(name), ps.Of(name).Name)
		}
	}
	ps.Names()[0] = "changed"
	if want := []string{"ietf", "fyno", "novu", "yuno"}; !slices.Equal(ps.Names(), want) {
		t.Errorf("the names are %q after somebody changed a copy of them", ps.Names())
	}
}

// house is a fifth policy, of knobs that no preset turns together. Nothing but this test
// knows it.
var house = Policy{
	Name: "house", Headers: []string{"House-Nonce", "House-Old-Nonce"}, Format: QuotedOrBare, MaxLength: 12, CreatesOnly: true,
	MismatchFirst: true, RetryAfter: true, ReplayHeader: "House-Again", Echo: true, Retention: time.Hour, ClientRetention: true, Errors: apierr.Problem,
}

func TestFifthPolicyIsReadByItsKnobsAlone(t *testing.T) {
	t.Parallel()
	policies, err := NewPolicies(append(Presets(Options{}), house)...)
	if err != nil {
		t.Fatal(err)
	}
	p := policies.Of("house")
	for name, c := range map[string]struct {
		header http.Header
		route  Route
		want   Key // without a nonce: none that counts
		says   string
	}{
		"as a string":               {header: http.Header{"House-Nonce": {`"a b"`}}, route: creating, want: Key{"a b", `"a b"`, time.Hour}},
		"bare":                      {header: http.Header{"House-Nonce": {"ab"}}, route: creating, want: Key{"ab", "ab", time.Hour}},
		"in the second header":      {header: http.Header{"House-Old-Nonce": {"ab"}}, route: creating, want: Key{"ab", "ab", time.Hour}},
		"in both, in two ways":      {header: http.Header{"House-Nonce": {`"ab"`}, "House-Old-Nonce": {"ab"}}, route: creating, want: Key{"ab", "ab", time.Hour}},
		"for as long as it wants":   {header: http.Header{"House-Nonce": {"ab"}, ExpirationHeader: {"90"}}, route: creating, want: Key{"ab", "ab", 90 * time.Second}},
		"none":                      {route: creating, want: Key{Retention: time.Hour}},
		"in other policies' header": {header: http.Header{AliasHeader: {"ab"}, Header: {"ab"}}, route: creating, says: "House-Nonce is the header that is read; no other may be sent in its place"},
		"of an action":              {header: http.Header{"House-Nonce": {"a,b", "too long for it"}}, route: acting, want: Key{Retention: time.Hour}},
		"two that differ":           {header: http.Header{"House-Nonce": {"a"}, "House-Old-Nonce": {"b"}}, route: creating, says: "House-Nonce and House-Old-Nonce must be equal when both are sent"},
		"too long in the second":    {header: http.Header{"House-Nonce": {"a"}, "House-Old-Nonce": {"abcdefghijklm"}}, route: creating, says: "House-Old-Nonce must have at most 12 characters"},
		"a comma":                   {header: http.Header{"House-Nonce": {"a,b"}}, route: creating, says: "House-Nonce must have only visible ASCII characters without a comma"},
		"empty":                     {header: http.Header{"House-Old-Nonce": {""}}, route: creating, says: "House-Nonce must not be empty"},
	} {
		got, err := p.Key(c.header, c.route, false)
		if c.says != "" {
			e, ok := apierr.From(err)
			if !ok || e.Code != apierr.InvalidParameters || !slices.Equal(e.Messages, []string{c.says}) || got != (Key{}) {
				t.Errorf("%s: %+v (%v), want %q", name, got, err, c.says)
			}
			continue
		}
		if c.want.Nonce == "" && !WasSent(got.Nonce) {
			got.Nonce = ""
		}
		if err != nil || got != c.want || got.Protected() != (c.want.Sent != "") {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, c.want)
		}
	}
	p.Required = true
	if _, err := p.Key(http.Header{}, creating, false); err == nil || err.Error() != "MISSING_PARAMETERS: House-Nonce is required" {
		t.Errorf("where one is required: %v", err)
	}
}

// N19, F10, F11 as far as a policy knows: which requests' nonces count.
func TestOnlyPOSTAndPATCHTakeANonceAndFynosOnlyWhereSomethingIsMadeInLiveMode(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"POST", "PATCH", "PUT", "DELETE", "GET", "HEAD", "OPTIONS", "CONNECT", "TRACE", "post", ""} {
		for _, creates := range []bool{true, false} {
			for _, live := range []bool{true, false} {
				takes := method == "POST" || method == "PATCH"
				r := Route{Method: method, Path: "/v1/things", Creates: creates, Produces: "application/json"}
				if err := r.Check(); (err == nil) != takes {
					t.Errorf("%q: %v", method, err)
				}
				for _, p := range Presets(Options{}) {
					want := takes && (p.Name != "fyno" || creates && live)
					if got := p.Covers(r, live); got != want {
						t.Errorf("%s: a nonce of %q (creates: %t, live: %t) counts: %t", p.Name, method, creates, live, got)
					}
					if want {
						continue
					}
					// Nobody looks at what does not count, however it is written.
					k, err := p.Key(http.Header{Header: {"\x00"}, AliasHeader: {"é", ""}, ExpirationHeader: {"never"}}, r, live)
					if err != nil || k.Protected() || WasSent(k.Nonce) || k.Retention != p.Retention {
						t.Errorf("%s: %q (creates: %t, live: %t) reads %+v (%v)", p.Name, method, creates, live, k, err)
					}
				}
			}
		}
	}
}

func TestH68OnlyAnswersInJSONCanBeKept(t *testing.T) {
	t.Parallel()
	for _, produces := range []string{"", "text/event-stream", "application/octet-stream", "application/pdf", "application/x-ndjson", "application/json; charset=utf-8", "APPLICATION/JSON"} {
		r := creating
		r.Produces = produces
		err := r.Check()
		if err == nil || !strings.Contains(err.Error(), "POST /v1/payments: only answers in JSON") {
			t.Errorf("a route that produces %q: %v", produces, err)
		}
		for _, p := range Presets(Options{}) {
			if p.Covers(r, true) {
				t.Errorf("%s counts a nonce of a route that produces %q", p.Name, produces)
			}
		}
	}
	wrong := Route{Method: http.MethodPut, Path: "/v1/things", Produces: "application/json"}
	if err := wrong.Check(); err == nil || err.Error() != "PUT /v1/things: only POST and PATCH take a nonce" {
		t.Errorf("a route with PUT: %v", err)
	}
}

// Where a nonce is required it is where money moves; elsewhere it may be left out.
func TestNonceIsRequiredOnlyWhereMoneyMoves(t *testing.T) {
	t.Parallel()
	for _, p := range Presets(Options{}) {
		for _, moves := range []bool{true, false} {
			r := Route{Method: http.MethodPost, Path: "/v1/things", Creates: true, MovesMoney: moves, Produces: "application/json"}
			k, err := p.Key(http.Header{}, r, true)
			if required := moves && (p.Name == "yuno" || p.Name == "ietf"); required {
				e, ok := apierr.From(err)
				if !ok || e.Code != apierr.MissingParameters || e.KeyProblem != TitleMissing || !slices.Equal(e.Messages, []string{p.Headers[0] + " is required"}) {
					t.Errorf("%s: without a nonce where money moves: %v", p.Name, err)
				}
			} else if err != nil || k.Protected() || WasSent(k.Nonce) {
				t.Errorf("%s: without a nonce (money moves: %t): %+v (%v)", p.Name, moves, k, err)
			}
		}
	}
}

func TestShortestRetentionIsThatOfThePolicyWhichForgetsFirst(t *testing.T) {
	t.Parallel()
	kept := func(name string, d time.Duration) Policy {
		p := house
		p.Name, p.Retention = name, d
		return p
	}
	for name, c := range map[string]struct {
		all  []Policy
		want time.Duration
	}{
		"the presets":       {Presets(Options{}), 24 * time.Hour},
		"an installation's": {Presets(Options{Retention: 90 * time.Minute}), 90 * time.Minute},
		"the first":         {[]Policy{kept("a", time.Hour), kept("b", 2*time.Hour)}, time.Hour},
		"the last":          {[]Policy{kept("a", 3*time.Hour), kept("b", 2*time.Hour), kept("c", MinRetention)}, MinRetention},
		"the only one":      {[]Policy{kept("a", 3*time.Hour)}, 3 * time.Hour},
	} {
		ps, err := NewPolicies(c.all...)
		if err != nil || ps.ShortestRetention() != c.want {
			t.Errorf("%s: %s (%v), want %s", name, ps.ShortestRetention(), err, c.want)
		}
	}
}
