package idem

import (
	"net/http"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// visible is every character that a nonce may have.
func visible() string {
	var b strings.Builder
	for c := byte('!'); c <= '~'; c++ {
		if c != ',' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// lines are a request's header lines of both names, as net/http hands them over.
func lines(header, alias []string) http.Header {
	h := http.Header{}
	if header != nil {
		h[http.CanonicalHeaderKey(Header)] = header
	}
	if alias != nil {
		h[http.CanonicalHeaderKey(AliasHeader)] = alias
	}
	return h
}

// defaultNonce reads a nonce as the default policy does where money moves.
func defaultNonce(h http.Header) (string, error) {
	k, err := Presets(Options{})[0].Key(h, Route{Method: http.MethodPost, Path: "/", MovesMoney: true, Produces: "application/json"}, false)
	return k.Nonce, err
}

func TestNoncesAreTakenAsTheyStand(t *testing.T) {
	t.Parallel()
	all := visible()
	for name, c := range map[string]struct {
		header, alias []string
		want          string
	}{
		"one character":                 {[]string{"a"}, nil, "a"},
		"64 characters":                 {[]string{strings.Repeat("x", 64)}, nil, strings.Repeat("x", 64)},
		"a UUID":                        {[]string{"0198c2f3-7777-7777-8888-999999999999"}, nil, "0198c2f3-7777-7777-8888-999999999999"},
		"upper case stays":              {[]string{"AbC"}, nil, "AbC"},
		"the first half of ASCII":       {[]string{all[:60]}, nil, all[:60]},
		"the second half of ASCII":      {[]string{all[33:]}, nil, all[33:]},
		"H38 what SQL would stumble on": {[]string{`';--%\"$1?@x`}, nil, `';--%\"$1?@x`},
		"H39 blanks around it":          {[]string{" \t key \t "}, nil, "key"},
		"the draft's name":              {nil, []string{"key"}, "key"},
		"quotes are the nonce's own":    {nil, []string{`"key"`}, `"key"`},
		"H73 both names, one value":     {[]string{"key"}, []string{" key"}, "key"},
		"one name is empty":             {[]string{""}, []string{"key"}, "key"},
		"the other is empty":            {[]string{"key"}, []string{"  "}, "key"},
		"lines of blanks count as none": {[]string{"\t"}, []string{"key"}, "key"},
	} {
		got, err := defaultNonce(lines(c.header, c.alias))
		if err != nil || got != c.want {
			t.Errorf("%s: got %q (%v), want %q", name, got, err, c.want)
		}
		if !ValidNonce(c.want) {
			t.Errorf("%s: such a nonce could not be looked up", name)
		}
	}
}

func TestWhatIsNoNonceIsRefusedByRule(t *testing.T) {
	t.Parallel()
	const (
		missing   = "X-Idempotency-Key is required"
		twice     = "X-Idempotency-Key must be sent once"
		tooLong   = "X-Idempotency-Key must have at most 64 characters"
		visible   = "X-Idempotency-Key must have only visible ASCII characters without a comma"
		different = "X-Idempotency-Key and Idempotency-Key must be equal when both are sent"
	)
	for name, c := range map[string]struct {
		header, alias []string
		code          apierr.Code
		message       string
	}{
		"none":                             {nil, nil, apierr.MissingParameters, missing},
		"empty":                            {[]string{""}, nil, apierr.MissingParameters, missing},
		"blanks":                           {[]string{" \t "}, nil, apierr.MissingParameters, missing},
		"both empty":                       {[]string{""}, []string{" "}, apierr.MissingParameters, missing},
		"65 characters":                    {[]string{strings.Repeat("x", 65)}, nil, apierr.InvalidParameters, tooLong},
		"much too long":                    {[]string{strings.Repeat("x", 10_000)}, nil, apierr.InvalidParameters, tooLong},
		"65 bytes in fewer characters":     {[]string{strings.Repeat("é", 33)}, nil, apierr.InvalidParameters, tooLong},
		"H31 the same line twice":          {[]string{"geheim", "geheim"}, nil, apierr.InvalidParameters, twice},
		"H32 two lines":                    {[]string{"geheim", "other"}, nil, apierr.InvalidParameters, twice},
		"a line and an empty one":          {[]string{"geheim", ""}, nil, apierr.InvalidParameters, twice},
		"H33 two in one":                   {[]string{"geheim, geheim"}, nil, apierr.InvalidParameters, visible},
		"a comma":                          {[]string{"geheim,"}, nil, apierr.InvalidParameters, visible},
		"H34 a space inside":               {[]string{"geheim 2"}, nil, apierr.InvalidParameters, visible},
		"H34 a tab inside":                 {[]string{"geheim\t2"}, nil, apierr.InvalidParameters, visible},
		"H34 a folded line":                {[]string{"geheim\r\n 2"}, nil, apierr.InvalidParameters, visible},
		"H35 a composed é":                 {[]string{"geheim\u00e9"}, nil, apierr.InvalidParameters, visible},
		"H35 a decomposed é":               {[]string{"geheime\u0301"}, nil, apierr.InvalidParameters, visible},
		"H35 an emoji":                     {[]string{"geheim😀"}, nil, apierr.InvalidParameters, visible},
		"a space that is none":             {[]string{"\u00a0geheim"}, nil, apierr.InvalidParameters, visible},
		"H36 no character at all":          {[]string{"geheim\xff"}, nil, apierr.InvalidParameters, visible},
		"H37 a NUL":                        {[]string{"geheim\x00"}, nil, apierr.InvalidParameters, visible},
		"H37 a control character":          {[]string{"geheim\x1b[2J"}, nil, apierr.InvalidParameters, visible},
		"H37 delete":                       {[]string{"geheim\x7f"}, nil, apierr.InvalidParameters, visible},
		"H73 two values":                   {[]string{"geheim"}, []string{"other"}, apierr.InvalidParameters, different},
		"H73 two spellings of one value":   {[]string{"geheim"}, []string{"Geheim"}, apierr.InvalidParameters, different},
		"a good one and a bad alias":       {[]string{"geheim"}, []string{"geheim geheim"}, apierr.InvalidParameters, "Idempotency-Key must have only visible ASCII characters without a comma"},
		"a good one and an alias too long": {[]string{"geheim"}, []string{strings.Repeat("x", 65)}, apierr.InvalidParameters, "Idempotency-Key must have at most 64 characters"},
		"a good one and two aliases":       {[]string{"geheim"}, []string{"geheim", "geheim"}, apierr.InvalidParameters, "Idempotency-Key must be sent once"},
	} {
		got, err := defaultNonce(lines(c.header, c.alias))
		e, ok := apierr.From(err)
		if !ok || got != "" {
			t.Errorf("%s: got %q (%v), want %s", name, got, err, c.code)
			continue
		}
		if e.Code != c.code || e.Status != http.StatusBadRequest || len(e.Messages) != 1 || e.Messages[0] != c.message {
			t.Errorf("%s: got %d %v, want %s: %s", name, e.Status, e, c.code, c.message)
		}
		if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the message repeats the value", name)
		}
	}
}

// Other names are other headers; what a proxy makes of underscores is its business.
func TestH40OnlyTwoNamesAreRead(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X_Idempotency_Key", "Idempotency_Key", "X-Idempotency-Keys", "Idempotent-Key", "X-Request-Id"} {
		h := http.Header{}
		h[name] = []string{"key"}
		if _, err := defaultNonce(h); err == nil || !strings.Contains(err.Error(), "required") {
			t.Errorf("%s: %v, want it to count as missing", name, err)
		}
	}
}

func TestNonceThatNoHeaderCouldCarryIsNotLookedUp(t *testing.T) {
	t.Parallel()
	for _, nonce := range []string{"", "é", "\x00", "key\n", "a\tb", "\xff", "\x7f"} {
		if ValidNonce(nonce) {
			t.Errorf("%q counts as a nonce", nonce)
		}
	}
}

// FuzzNonceFrom asks of any two header values: what comes out is a nonce that means
// the same wherever it is sent again, or an answer that does not repeat a value.
func FuzzNonceFrom(f *testing.F) {
	for _, seed := range []string{"", "key", " key\t", "a,b", "é", "\xff\x00", strings.Repeat("x", 65), `"quoted"`} {
		f.Add(seed, seed, uint8(0))
		f.Add(seed, "key", uint8(3))
	}
	f.Fuzz(func(t *testing.T, first, second string, which uint8) {
		h := http.Header{}
		for i, value := range []string{first, second} {
			if which>>i&1 == 0 {
				h.Add(Header, value)
			} else {
				h.Add(AliasHeader, value)
			}
		}
		if which&4 != 0 {
			h.Del(AliasHeader)
		}
		nonce, err := defaultNonce(h)
		if err != nil {
			e, ok := apierr.From(err)
			if nonce != "" || !ok || e.Status != http.StatusBadRequest || len(e.Messages) != 1 {
				t.Fatalf("refused with %q, %v", nonce, err)
			}
			message := e.Messages[0]
			for _, fixed := range []string{Header, AliasHeader} {
				message = strings.ReplaceAll(message, fixed, "")
			}
			for _, value := range []string{first, second} {
				if len(value) > 12 && strings.Contains(message, value) {
					t.Fatalf("the message repeats the value %q: %s", value, message)
				}
			}
			return
		}
		if len(nonce) < 1 || len(nonce) > MaxNonceLength || !ValidNonce(nonce) {
			t.Fatalf("%q passed for a nonce", nonce)
		}
		if strings.IndexFunc(nonce, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }) >= 0 {
			t.Fatalf("%q has a character that no nonce may have", nonce)
		}
		for _, name := range []string{Header, AliasHeader} {
			again, err := defaultNonce(http.Header{http.CanonicalHeaderKey(name): {nonce}})
			if err != nil || again != nonce {
				t.Fatalf("%q, sent as %s, means %q (%v)", nonce, name, again, err)
			}
		}
	})
}
