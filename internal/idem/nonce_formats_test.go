package idem

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
)

// Rules, as a client hears them behind the name of the header.
const (
	ruleOnce      = " must be sent once"
	ruleEmpty     = " must not be empty"
	ruleRequired  = " is required"
	ruleVisible   = " must have only visible ASCII characters without a comma"
	rulePrintable = " must have only printable ASCII characters"
	ruleQuoted    = ` must be a string of RFC 9651, such as "8e03978e-40d5-43dd-bc93-6894a57f9324", with its quotes`
	ruleAtMost64  = " must have at most 64 characters"
	ruleAtMost255 = " must have at most 255 characters"
	ruleInstead   = " is the header that is read; no other may be sent in its place"
	ruleSeconds   = ExpirationHeader + " must be a whole number of seconds, at least 1, and be sent once"
)

// reading is one case of a header, under Idempotency-Key: what it means, or the rule
// that it breaks.
type reading struct {
	sent  []string
	nonce string
	rule  string
}

func means(sent, nonce string) reading           { return reading{sent: []string{sent}, nonce: nonce} }
func itself(sent string) reading                 { return means(sent, sent) }
func breaks(rule string, sent ...string) reading { return reading{sent: sent, rule: rule} }
func repeated(n int) string                      { return strings.Repeat("k", n) }
func quoted(nonce string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(nonce) + `"`
}
func printableASCII() (all string)          { return " !" + `"` + visible()[2:] + "," }
func underAlias(sent ...string) http.Header { return http.Header{AliasHeader: sent} }

// held reads each case as the policy does where money is made to move in live mode.
func held(t *testing.T, p Policy, cases map[string]reading) {
	t.Helper()
	for name, c := range cases {
		k, err := p.Key(underAlias(c.sent...), creating, true)
		if c.rule == "" {
			want := Key{Nonce: c.nonce, Sent: strings.Trim(c.sent[0], " \t"), Retention: p.Retention}
			if err != nil || k != want || !k.Protected() || !WasSent(k.Nonce) {
				t.Errorf("%s, %s: %q means %+v (%v), want %+v", p.Name, name, c.sent, k, err, want)
			}
			continue
		}
		code, title, from := apierr.InvalidParameters, TitleMalformed, AliasHeader
		if c.rule == ruleRequired {
			code, title, from = apierr.MissingParameters, TitleMissing, p.Headers[0]
		}
		e, ok := apierr.From(err)
		if !ok || k != (Key{}) {
			t.Errorf("%s, %s: %.80q means %+v (%v), want it refused", p.Name, name, c.sent, k, err)
			continue
		}
		if e.Code != code || e.Status != http.StatusBadRequest || e.KeyProblem != title || !slices.Equal(e.Messages, []string{from + c.rule}) {
			t.Errorf("%s, %s: %.80q is refused with %d %v (%s), want %s%s", p.Name, name, c.sent, e.Status, e, e.KeyProblem, from, c.rule)
		}
	}
}

func TestYunosNonceIsVisibleASCIIOfAtMost64(t *testing.T) {
	t.Parallel()
	held(t, preset(t, Options{}, "yuno"), map[string]reading{
		"1 character":         itself("k"),
		"64 characters":       itself(repeated(64)),
		"65 characters":       breaks(ruleAtMost64, repeated(65)),
		"quotes":              itself(`"k"`),
		"all that is visible": itself(visible()[:64]),
		"the rest of it":      itself(visible()[64:]),
		"blanks around":       means("\t k \t", "k"),
		"a blank within":      breaks(ruleVisible, "k k"),
		"a comma":             breaks(ruleVisible, "k,k"),
		"no ASCII":            breaks(ruleVisible, "é"),
		"blanks alone":        breaks(ruleRequired, " "),
		"twice":               breaks(ruleOnce, "k", "k"),
		"no header":           breaks(ruleRequired),
	})
}

// N18, and its neighbours.
func TestN18NovusNonceIsPrintableASCIIOfAtMost255(t *testing.T) {
	t.Parallel()
	held(t, preset(t, Options{}, "novu"), map[string]reading{
		"1 character":               itself("k"),
		"255 characters":            itself(repeated(255)),
		"256 characters":            breaks(ruleAtMost255, repeated(256)),
		"256 bytes in fewer":        breaks(ruleAtMost255, strings.Repeat("é", 128)),
		"all that is printable":     means("x"+printableASCII(), "x"+printableASCII()),
		"quotes are its own":        itself(`"k"`),
		"half a quote":              itself(`"k`),
		"blanks and commas":         itself("k k, k"),
		"blanks around":             means(" \tk k\t ", "k k"),
		"a tab within":              breaks(rulePrintable, "k\tk"),
		"a control character":       breaks(rulePrintable, "k\x1b"),
		"delete":                    breaks(rulePrintable, "k\x7f"),
		"NUL":                       breaks(rulePrintable, "\x00"),
		"no ASCII":                  breaks(rulePrintable, "é"),
		"what stands for long ones": breaks(rulePrintable, unlike+"k"),
		"empty":                     breaks(ruleEmpty, ""),
		"blanks alone":              breaks(ruleEmpty, " \t "),
		"twice":                     breaks(ruleOnce, "k", "k"),
		"twice, once empty":         breaks(ruleOnce, "k", ""),
	})
}

// F05 as far as a nonce is concerned: the request's header is the only limit.
func TestF05FynosNonceHasNoLimitOfItsOwn(t *testing.T) {
	t.Parallel()
	cases := map[string]reading{
		"1 character":    itself("k"),
		"no ASCII":       breaks(rulePrintable, strings.Repeat("é", 300)),
		"a late control": breaks(rulePrintable, repeated(16_000)+"\x01"),
		"empty":          breaks(ruleEmpty, ""),
		"twice":          breaks(ruleOnce, repeated(300), repeated(300)),
	}
	for _, n := range []int{64, 65, 255, 256, 300, 4_000, 16_000} {
		cases[fmt.Sprintf("%d characters", n)] = means(repeated(n), KeyOf(repeated(n)))
	}
	fyno := preset(t, Options{}, "fyno")
	held(t, fyno, cases)
	for _, n := range []int{1, 300} {
		if k, err := fyno.Key(underAlias(repeated(n)), creating, false); err != nil || k.Protected() || WasSent(k.Nonce) {
			t.Errorf("in test mode, %d characters are read as %+v (%v)", n, k, err)
		}
	}
}

// I02 to I06: a nonce of the draft's is a string as RFC 9651 writes it, and nothing else
// that this RFC knows.
func TestI03IETFsNonceIsAStringOfRFC9651(t *testing.T) {
	t.Parallel()
	held(t, preset(t, Options{}, "ietf"), map[string]reading{
		"a UUID":                    means(`"8e03978e-40d5-43dd-bc93-6894a57f9324"`, "8e03978e-40d5-43dd-bc93-6894a57f9324"),
		"1 character":               means(`"k"`, "k"),
		"255 characters":            means(quoted(repeated(255)), repeated(255)),
		"256 characters":            breaks(ruleAtMost255, quoted(repeated(256))),
		"255 quotes, 512 as sent":   means(quoted(strings.Repeat(`"`, 255)), strings.Repeat(`"`, 255)),
		"256 quotes":                breaks(ruleAtMost255, quoted(strings.Repeat(`"`, 256))),
		"all that is printable":     means(quoted(printableASCII()), printableASCII()),
		"a blank alone, in quotes":  means(`" "`, " "),
		"blanks within are its own": means(`" k "`, " k "),
		"blanks around":             means("\t \"k\" \t", "k"),
		"I03 an escaped quote":      means(`"a\"b"`, `a"b`),
		"I03 an escaped backslash":  means(`"a\\b"`, `a\b`),
		"I03 both":                  means(`"\\\""`, `\"`),
		"I03 no such escape":        breaks(ruleQuoted, `"a\nb"`),
		"I03 an escape of nothing":  breaks(ruleQuoted, `"a\`),
		"I03 the end escaped":       breaks(ruleQuoted, `"a\"`),
		"I04 empty":                 breaks(ruleEmpty, `""`),
		"I04 empty, with more":      breaks(ruleEmpty, `"";a=1`),
		"I02 bare":                  breaks(ruleQuoted, "abc"),
		"I05 an integer":            breaks(ruleQuoted, "42"),
		"I05 a decimal":             breaks(ruleQuoted, "4.2"),
		"I05 a boolean":             breaks(ruleQuoted, "?1"),
		"I05 a byte sequence":       breaks(ruleQuoted, ":a2V5:"),
		"I05 a date":                breaks(ruleQuoted, "@1659578233"),
		"I05 a display string":      breaks(ruleQuoted, `%"k%c3%bc"`),
		"I05 a list":                breaks(ruleQuoted, `"a", "b"`),
		"I05 a list of one":         breaks(ruleQuoted, `"a",`),
		"I05 an inner list":         breaks(ruleQuoted, `("a" "b")`),
		"I05 a dictionary":          breaks(ruleQuoted, `a="b"`),
		"I05 two strings":           breaks(ruleQuoted, `"a" "b"`),
		"I06 a parameter":           means(`"a";x=1`, "a"),
		"I06 several":               means(`"a"; x="b,c"; y; z=?0`, "a"),
		"I06 a broken one":          breaks(ruleQuoted, `"a";x="b`),
		"I06 one without a name":    breaks(ruleQuoted, `"a";`),
		"I06 a name in capitals":    breaks(ruleQuoted, `"a";X=1`),
		"not closed":                breaks(ruleQuoted, `"a`),
		"not opened":                breaks(ruleQuoted, `a"`),
		"in single quotes":          breaks(ruleQuoted, `'a'`),
		"something behind":          breaks(ruleQuoted, `"a"b`),
		"no ASCII":                  breaks(ruleQuoted, `"é"`),
		"a tab within":              breaks(ruleQuoted, "\"a\tb\""),
		"NUL":                       breaks(ruleQuoted, "\"a\x00\""),
		"delete":                    breaks(ruleQuoted, "\"a\x7f\""),
		"nothing":                   breaks(ruleRequired, ""),
		"blanks alone":              breaks(ruleRequired, "\t "),
		"no header":                 breaks(ruleRequired),
		"twice":                     breaks(ruleOnce, `"a"`, `"a"`),
	})
}

// I02: with the lenient flag the quotes may be left out, and mean the same.
func TestI02BareNonceMeansWhatItMeansInQuotes(t *testing.T) {
	t.Parallel()
	held(t, preset(t, Options{BareKeys: true}, "ietf"), map[string]reading{
		"bare":                      itself("abc"),
		"quoted":                    means(`"abc"`, "abc"),
		"quoted, with a parameter":  means(`"abc";x=1`, "abc"),
		"255 bare":                  itself(repeated(255)),
		"256 bare":                  breaks(ruleAtMost255, repeated(256)),
		"255 quoted":                means(quoted(repeated(255)), repeated(255)),
		"256 quoted":                breaks(ruleAtMost255, quoted(repeated(256))),
		"an integer is bare":        itself("42"),
		"bare, with a semicolon":    itself("abc;x=1"),
		"bare, with a quote within": itself(`a"b`),
		"bare, with a backslash":    itself(`a\b`),
		"quoted, with a blank":      means(`"a b"`, "a b"),
		"quoted, with a comma":      means(`"a,b"`, "a,b"),
		"bare, with a blank":        breaks(ruleVisible, "a b"),
		"bare, with a comma":        breaks(ruleVisible, "a,b"),
		"a list of strings":         breaks(ruleQuoted, `"a", "b"`),
		"begun as a string":         breaks(ruleQuoted, `"abc`),
		"a bad escape":              breaks(ruleQuoted, `"a\nb"`),
		"empty quotes":              breaks(ruleEmpty, `""`),
		"nothing":                   breaks(ruleRequired, ""),
		"twice, in two ways":        breaks(ruleOnce, "abc", `"abc"`),
	})
}

func TestBothHeadersAreReadUnderYunoAloneAndMustAgree(t *testing.T) {
	t.Parallel()
	both := func(main, alias string) http.Header { return http.Header{Header: {main}, AliasHeader: {alias}} }
	for _, p := range Presets(Options{}) {
		k, err := p.Key(both("mine", `"other"`), creating, true)
		switch p.Name {
		case "yuno":
			if e, ok := apierr.From(err); !ok || e.Code != apierr.InvalidParameters || e.KeyProblem != TitleMalformed ||
				e.Messages[0] != "X-Idempotency-Key and Idempotency-Key must be equal when both are sent" {
				t.Errorf("yuno: two that differ: %+v (%v)", k, err)
			}
			if k, err := p.Key(both(" same", "same\t"), creating, true); err != nil || k.Nonce != "same" || k.Sent != "same" {
				t.Errorf("yuno: two that agree: %+v (%v)", k, err)
			}
		case "ietf":
			if err != nil || k.Nonce != "other" || k.Sent != `"other"` {
				t.Errorf("ietf: %+v (%v)", k, err)
			}
		default:
			if err != nil || k.Nonce != `"other"` || k.Sent != `"other"` {
				t.Errorf("%s: %+v (%v)", p.Name, k, err)
			}
		}
	}
}

// A client that has not heard of its merchant's new policy sends its nonce where it was
// read before. Without protection its retry would pay again, so it is told, whatever it
// sent there; who sends nothing at all is not, where none is required.
func TestNonceInAHeaderThatIsNotReadIsRefusedRatherThanOverlooked(t *testing.T) {
	t.Parallel()
	for _, sent := range []http.Header{{Header: {"key"}}, {Header: {""}}, {Header: {"\x00", "é"}}, {Header: {"key"}, ExpirationHeader: {"60"}}} {
		for _, name := range []string{"novu", "fyno"} {
			k, err := preset(t, Options{}, name).Key(sent, creating, true)
			if e, ok := apierr.From(err); !ok || k != (Key{}) || e.Code != apierr.InvalidParameters || e.KeyProblem != TitleMalformed || !slices.Equal(e.Messages, []string{AliasHeader + ruleInstead}) {
				t.Errorf("%s: %q is read as %+v (%v)", name, sent, k, err)
			}
		}
		k, err := preset(t, Options{}, "ietf").Key(sent, creating, true)
		if e, ok := apierr.From(err); !ok || k != (Key{}) || e.Code != apierr.MissingParameters || e.KeyProblem != TitleMissing {
			t.Errorf("ietf: %q is read as %+v (%v)", sent, k, err)
		}
		// Beside a nonce in its place it means nothing.
		sent.Set(AliasHeader, "mine")
		if k, err := preset(t, Options{}, "novu").Key(sent, creating, true); err != nil || k.Nonce != "mine" {
			t.Errorf("novu: %q is read as %+v (%v)", sent, k, err)
		}
	}
	// Where fyno's nonces do not count, no header is looked at.
	for what, read := range map[string]func(h http.Header) (Key, error){
		"in test mode": func(h http.Header) (Key, error) { return preset(t, Options{}, "fyno").Key(h, creating, false) },
		"of an action": func(h http.Header) (Key, error) { return preset(t, Options{}, "fyno").Key(h, acting, true) },
	} {
		if k, err := read(http.Header{Header: {"key"}}); err != nil || k.Protected() || WasSent(k.Nonce) {
			t.Errorf("fyno, %s: %+v (%v)", what, k, err)
		}
	}
}

func TestLongNonceIsKeptByItsBeginningAndItsDigest(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 64, 254, 255} {
		if nonce := repeated(n); KeyOf(nonce) != nonce {
			t.Errorf("%d characters are kept as %q", n, KeyOf(nonce))
		}
	}
	const size = 64 + len("…") + 64 // an index takes a third of a page: 2,704 bytes
	seen := map[string]string{}
	for _, n := range []int{256, 257, 300, 4_000, 16_000} {
		for _, nonce := range []string{repeated(n), repeated(n-1) + "l", "l" + repeated(n-1), repeated(n/2) + "l" + repeated(n-n/2-1)} {
			kept := KeyOf(nonce)
			switch before, taken := seen[kept]; {
			case taken:
				t.Errorf("one is kept for two, of %d and %d characters", len(before), n)
			case len(kept) != size || !strings.HasPrefix(kept, nonce[:64]+"…") || strings.Trim(kept[64+len("…"):], "0123456789abcdef") != "":
				t.Errorf("%d characters are kept as %q", n, kept)
			case KeyOf(nonce) != kept || KeyOf(kept) != kept:
				t.Errorf("%d characters are kept now as this, now as that", n)
			case ValidNonce(kept):
				t.Errorf("somebody could send what is kept for %d characters", n)
			case !WasSent(kept):
				t.Errorf("%d characters count as never sent", n)
			}
			seen[kept] = nonce
		}
	}
	// SHA-256 of 300 times k, by coreutils. Rows outlive releases: this must never change.
	if want := repeated(64) + "…" + digestOf300; KeyOf(repeated(300)) != want {
		t.Errorf("300 characters are kept as %q, not %q", KeyOf(repeated(300)), want)
	}
}

const digestOf300 = "17b16d8ef494060fefa36a6a41567b8c32d213a17e02b7eeae86158cc4495461"

func TestRequestWithoutANonceRunsUnderOneThatNobodyCanSend(t *testing.T) {
	t.Parallel()
	novu, seen := preset(t, Options{}, "novu"), map[string]bool{}
	for range 10_000 {
		k, err := novu.Key(http.Header{}, creating, true)
		if err != nil || k.Protected() || k.Sent != "" || k.Retention != novu.Retention {
			t.Fatalf("%+v (%v)", k, err)
		}
		if seen[k.Nonce] || WasSent(k.Nonce) || ValidNonce(k.Nonce) || KeyOf(k.Nonce) != k.Nonce || len(k.Nonce) > maxKept {
			t.Fatalf("%q: seen %t, sent %t, could be sent %t", k.Nonce, seen[k.Nonce], WasSent(k.Nonce), ValidNonce(k.Nonce))
		}
		seen[k.Nonce] = true
	}
	for _, p := range append(Presets(Options{}), preset(t, Options{BareKeys: true}, "ietf"), house) {
		for nonce := range seen {
			for _, sent := range []string{nonce, quoted(nonce)} {
				if k, err := p.Key(http.Header{AliasHeader: {sent}, "House-Nonce": {sent}}, creating, true); err == nil {
					t.Fatalf("%s takes %q for %+v", p.Name, sent, k)
				}
			}
			break // each has the same shape
		}
	}
}

// F06 to F08 as far as a request is concerned.
func TestF07ExpirationIsAWholeNumberOfSecondsAndAtMostSevenDays(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	fyno := preset(t, Options{}, "fyno")
	for said, want := range map[string]time.Duration{
		"1": time.Second, "60": time.Minute, "007": 7 * time.Second, " 60\t": time.Minute, "86400": day, "604799": 7*day - time.Second,
		"604800": 7 * day, "604801": 7 * day, "31536000": 7 * day, "9223372036854775807": 7 * day, "9223372036854775808": 7 * day,
		strings.Repeat("9", 4_000): 7 * day, strings.Repeat("0", 4_000) + "5": 5 * time.Second,
		"0": 0, "000": 0, "-1": 0, "+1": 0, "1.5": 0, "1e3": 0, "0x10": 0, "1_000": 0, "60s": 0, "": 0, " \t": 0, "6 0": 0, "60, 60": 0, "60,60": 0, "٣": 0, "NaN": 0, "\x00": 0,
	} {
		h := http.Header{AliasHeader: {"k"}, ExpirationHeader: {said}}
		k, err := fyno.Key(h, creating, true)
		if want > 0 {
			if err != nil || k != (Key{"k", "k", want}) {
				t.Errorf("%.30q: %+v (%v), want %s", said, k, err, want)
			}
		} else if e, ok := apierr.From(err); !ok || e.Code != apierr.InvalidParameters || !slices.Equal(e.Messages, []string{ruleSeconds}) {
			t.Errorf("%.30q: %+v (%v), want it refused", said, k, err)
		}
		// Nobody else reads it, and neither does fyno where the nonce does not count.
		for _, p := range Presets(Options{}) {
			h := http.Header{AliasHeader: {`"k"`}, ExpirationHeader: {said}}
			if k, err := p.Key(h, creating, true); p.Name != "fyno" && (err != nil || k.Retention != p.Retention) {
				t.Errorf("%s: %.30q: %+v (%v)", p.Name, said, k, err)
			}
		}
		for what, read := range map[string]func() (Key, error){
			"of an action":    func() (Key, error) { return fyno.Key(h, acting, true) },
			"in test mode":    func() (Key, error) { return fyno.Key(h, creating, false) },
			"without a nonce": func() (Key, error) { return fyno.Key(http.Header{ExpirationHeader: {said}}, creating, true) },
		} {
			if k, err := read(); err != nil || k.Protected() || k.Retention != fyno.Retention {
				t.Errorf("%.30q %s: %+v (%v)", said, what, k, err)
			}
		}
	}
	for _, twice := range [][]string{{"60", "60"}, {"60", ""}, {"", "60"}} {
		if k, err := fyno.Key(http.Header{AliasHeader: {"k"}, ExpirationHeader: twice}, creating, true); err == nil {
			t.Errorf("%q: %+v", twice, k)
		}
	}
	if k, err := fyno.Key(underAlias("k"), creating, true); err != nil || k.Retention != day {
		t.Errorf("without the header: %+v (%v)", k, err)
	}
}

// sayings are all that a request can be told of its nonce under a policy. They are
// fixed, so none of them repeats what was sent.
func sayings(p Policy) []string {
	all := []string{ruleSeconds, p.Headers[0] + ruleRequired, p.Headers[0] + ruleEmpty, p.Headers[0] + ruleInstead}
	for i, name := range p.Headers {
		for _, rule := range []string{ruleOnce, ruleEmpty, ruleVisible, rulePrintable, ruleQuoted, fmt.Sprintf(" must have at most %d characters", p.MaxLength)} {
			all = append(all, name+rule)
		}
		if i > 0 {
			all = append(all, p.Headers[0]+" and "+name+" must be equal when both are sent")
		}
	}
	return all
}

// FuzzEachPolicyReadsAnyHeaders hands any three header lines to each policy, as net/http
// would and as it would not: there is a nonce that means the same when it is sent again,
// or none, or an answer in fixed words.
func FuzzEachPolicyReadsAnyHeaders(f *testing.F) {
	for _, seed := range []string{"", "key", `"key"`, `"a\"b\\";x=1`, `"a", "b"`, "é", "\xff\x00", repeated(256), quoted(repeated(255)), "0", "86400", ":a2V5:", "(a)", "@1", `%"a"`} {
		f.Add(seed, seed, "60", uint8(0o22))
		f.Add(seed, `"key"`, seed, uint8(0o12))
	}
	policies := append(Presets(Options{}), preset(f, Options{BareKeys: true}, "ietf"), house)
	f.Fuzz(func(t *testing.T, first, second, expiration string, where uint8) {
		for _, p := range policies {
			h, names := http.Header{ExpirationHeader: {expiration}}, append([]string{Header, AliasHeader}, p.Headers...)
			for i, value := range []string{first, second} {
				h.Add(names[int(where>>(3*i))%len(names)], value)
			}
			for _, r := range []Route{creating, acting} {
				k, err := p.Key(h, r, where>>6&1 == 0)
				if err != nil {
					e, ok := apierr.From(err)
					if !ok || k != (Key{}) || e.Status != http.StatusBadRequest || len(e.Messages) != 1 || !slices.Contains(sayings(p), e.Messages[0]) {
						t.Fatalf("%s refuses with %+v, %v", p.Name, k, err)
					}
					continue
				}
				if k.Retention < time.Second || k.Retention > max(p.Retention, MaxRetention) {
					t.Fatalf("%s keeps it for %s", p.Name, k.Retention)
				}
				if !k.Protected() {
					if WasSent(k.Nonce) || p.Required {
						t.Fatalf("%s lets it run under %+v", p.Name, k)
					}
					continue
				}
				again, err := p.Key(http.Header{http.CanonicalHeaderKey(p.Headers[0]): {k.Sent}}, creating, true)
				if err != nil || again.Nonce != k.Nonce || again.Sent != k.Sent || !WasSent(k.Nonce) || len(k.Nonce) > maxKept {
					t.Fatalf("%s: %q means %q first, then %q (%v)", p.Name, k.Sent, k.Nonce, again.Nonce, err)
				}
			}
		}
	})
}

// FuzzWhatIsQuotedComesBack writes any text as RFC 9651 writes strings: it comes back, if
// such a string can hold it.
func FuzzWhatIsQuotedComesBack(f *testing.F) {
	for _, seed := range []string{"", " ", `"`, `\`, `\"`, `\\"`, "a,b;c=d", repeated(255), repeated(256), strings.Repeat(`\`, 255), "é", "\t", "\x7f"} {
		f.Add(seed)
	}
	policies := []Policy{preset(f, Options{}, "ietf"), preset(f, Options{BareKeys: true}, "ietf")}
	f.Fuzz(func(t *testing.T, text string) {
		can := len(text) <= 255 && ValidNonce(text)
		for _, p := range policies {
			for _, behind := range []string{"", ";a", `; a="\"";b=1.5`} {
				k, err := p.Key(underAlias(quoted(text)+behind), creating, true)
				if can && (err != nil || k.Nonce != text) {
					t.Fatalf("%q came back as %q (%v)", text, k.Nonce, err)
				}
				if !can && err == nil {
					t.Fatalf("%q passed for %q", text, k.Nonce)
				}
			}
		}
	})
}

// The same for as many as a test has time for, so that it is not left to the fuzzer.
func TestAnyPrintableTextComesBackFromItsQuotes(t *testing.T) {
	t.Parallel()
	dice, ietf := rand.New(rand.NewPCG(8, 9651)), preset(t, Options{}, "ietf")
	for range 20_000 {
		text := make([]byte, 1+dice.IntN(255))
		for i := range text {
			text[i] = byte(0x20 + dice.IntN(0x7f-0x20))
			if dice.IntN(4) == 0 {
				text[i] = `\"`[dice.IntN(2)]
			}
		}
		if k, err := ietf.Key(underAlias(quoted(string(text))), creating, true); err != nil || k.Nonce != string(text) {
			t.Fatalf("%q came back as %q (%v)", text, k.Nonce, err)
		}
	}
}
