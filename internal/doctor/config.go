package doctor

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// entropyLeast is what a secret of 32 random bytes or letters has several times
	// over, in bits, by the frequency of its characters.
	entropyLeast = 90
	// certificateSoon is how long before its end a certificate is to be renewed: the
	// usual tools do it a month before, so half of that has gone wrong.
	certificateSoon = 14 * 24 * time.Hour
	// clientsWait is how long the contract's clients wait for an answer.
	clientsWait = 60 * time.Second
	// answerTime is what a payment takes beside its exchange with the provider.
	answerTime = 5 * time.Second
	// recoveryLate is when a payment that a crash left open waits for minutes.
	recoveryLate = time.Minute
	// retentionLeast is the contract's: merchants retry for a day.
	retentionLeast = 24 * time.Hour
)

const nextReference = "Correct the flag or its variable; docs/reference/configuration.md has every rule."

func values(f *facts) verdict {
	if err := errors.Join(f.set.Refused...); err != nil {
		return bad("`payments serve` would refuse to start: "+strings.ReplaceAll(err.Error(), "\n", "; "), nextReference)
	}
	return fine("`payments serve` takes the flags and variables")
}

func installationSecret(f *facts) verdict {
	s, other, token := f.set.Secret, f.set.OtherSecret, f.set.AdminToken
	next := fmt.Sprintf("Draw one with `openssl rand -hex 32`, and give the same to every instance as %s.", s.Variable)
	if says := s.weak(); says != "" {
		return bad(says, next)
	}
	if other.Value != "" || other.Err != nil {
		if says := other.weak(); says != "" {
			return bad(says, fmt.Sprintf("Give the secret that was used before, or the next one, as %s; or nothing.", other.Variable))
		}
		if other.Value == s.Value {
			return bad(fmt.Sprintf("%s is the same as %s", other.Variable, s.Variable), fmt.Sprintf("Unset %s, unless the secret is being changed.", other.Variable))
		}
	}
	if token.Value != "" && (token.Value == s.Value || token.Value == other.Value) {
		return bad("the installation's secret is also the admin token, which people are told",
			fmt.Sprintf("Draw another %s with `openssl rand -hex 32`.", token.Variable))
	}
	return fine("the installation's secret is there, and looks drawn")
}

func adminToken(f *facts) verdict {
	if says := f.set.AdminToken.weak(); says != "" {
		return bad(says, fmt.Sprintf("Draw one with `openssl rand -hex 32`, and give it as %s.", f.set.AdminToken.Variable))
	}
	return fine("the admin token is there, and looks drawn")
}

// weak says why a secret is none, or "". It is no proof of the contrary.
func (s Secret) weak() string {
	switch {
	case s.Err != nil:
		return s.Err.Error()
	case s.Value == "":
		return s.Variable + " is not set"
	case len(s.Value) < s.AtLeast:
		return fmt.Sprintf("%s has fewer than %d bytes", s.Variable, s.AtLeast)
	case placeholder(s.Value):
		return s.Variable + " is a placeholder from some example"
	case repeats(s.Value) || entropy(s.Value) < entropyLeast:
		return s.Variable + " can be guessed: it repeats itself, or has too few different characters"
	}
	return ""
}

// placeholder reports whether a value has words that examples have. None is in a
// random text, but once in a hundred million.
func placeholder(value string) bool {
	value = strings.ToLower(value)
	for _, word := range []string{"changeme", "change-me", "change_me", "change me", "replace", "placeholder", "example", "insert-", "your-", "your_", "xxxxxx", "…", "dummy-"} {
		if strings.Contains(value, word) {
			return true
		}
	}
	// Bytes that were drawn may begin and end like that, and are no words.
	unprintable := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	return strings.HasPrefix(value, "<") && strings.HasSuffix(value, ">") && !strings.ContainsFunc(value, unprintable)
}

// repeats reports whether a value is one part, written at least twice, or counts up
// or down for most of its length.
func repeats(value string) bool {
	for period := 1; period <= len(value)/2; period++ {
		if value[period:] == value[:len(value)-period] {
			return true
		}
	}
	steps := 0
	for i := 1; i < len(value); i++ {
		if d := int(value[i]) - int(value[i-1]); d == 1 || d == -1 || d == 0 {
			steps++
		}
	}
	return steps > len(value)/2
}

// entropy is the text's by the frequency of its bytes, in bits: at least what a
// guesser who knows no more has to try.
func entropy(value string) float64 {
	count := map[byte]float64{}
	for i := range len(value) {
		count[value[i]]++
	}
	bits := 0.0
	for _, n := range count {
		bits += n * math.Log2(float64(len(value))/n)
	}
	return bits
}

func secretFiles(f *facts) verdict {
	var shared []string
	for _, s := range []Secret{f.set.Database, f.set.Secret, f.set.OtherSecret, f.set.AdminToken} {
		if s.Shared {
			shared = append(shared, s.Variable+"_FILE")
		}
	}
	if len(shared) > 0 {
		return warn(fmt.Sprintf("others than their owner can read the files that %s name", strings.Join(shared, " and ")),
			"`chmod 600` them, owned by who runs payments. Where a cluster mounts them so, see that nobody else is in the container.")
	}
	return fine("nobody but their owner reads files with secrets")
}

func adminListener(f *facts) verdict {
	l := f.set.Operator
	if l.exposed() {
		return bad("the operator's listener is reachable from other machines without TLS: the admin token travels in the clear",
			"Let --admin-listen be 127.0.0.1:8081, or give --admin-tls-cert and --admin-tls-key.")
	}
	if l.TLS {
		return fine("the operator's listener has TLS")
	}
	return fine("the operator's listener is on loopback")
}

func apiListener(f *facts) verdict {
	l := f.set.API
	if l.exposed() && len(f.set.TrustedProxies) == 0 {
		return warn("the API is reachable from other machines without TLS, and no proxy in front of it is named: card numbers may travel in the clear",
			"Give --tls-cert and --tls-key; or let a proxy end TLS, and name its network with --trusted-proxies.")
	}
	return fine("the API is on loopback, has TLS, or is behind a proxy")
}

func addresses(f *facts) verdict {
	api, operator := f.set.API, f.set.Operator
	if api.Address == operator.Address && !strings.HasSuffix(api.Address, ":0") {
		return bad("--listen and --admin-listen are the same address", "Give the operator's listener another port with --admin-listen.")
	}
	running := 0
	for _, l := range []Listener{api, operator} {
		err := f.taken[l.Address]
		switch {
		case err == nil:
		case f.ours[l.Address]:
			running++
		case errors.Is(err, syscall.EADDRINUSE):
			return warn(fmt.Sprintf("somebody else listens at %s's address", l.Flag),
				fmt.Sprintf("Find out who with `ss -ltnp`, and stop it, or choose another %s.", l.Flag))
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			return bad(fmt.Sprintf("%s names an address that this machine does not have", l.Flag), nextReference)
		case errors.Is(err, syscall.EACCES):
			return bad(fmt.Sprintf("%s names a port below 1024, which this user may not take", l.Flag), "Choose a port above 1023, and let a proxy have the other.")
		default:
			return bad(fmt.Sprintf("nobody can listen at %s's address: %s", l.Flag, cause(err)), nextReference)
		}
	}
	if running > 0 {
		return fine("an instance of payments is running on them")
	}
	return fine("both listeners' addresses are free")
}

// cause is what is wrong, without the address that was asked for.
func cause(err error) string {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err
	}
	return err.Error()
}

func certificates(f *facts) verdict {
	var until []time.Time
	for _, l := range []Listener{f.set.API, f.set.Operator} {
		if !l.TLS {
			continue
		}
		if l.Err != nil {
			return bad(fmt.Sprintf("the certificate and key of %s cannot be used: %v", l.Flag, l.Err),
				"Both are files in PEM that the process can read; the key belongs to the first certificate, and the others follow it.")
		}
		const renewed = "; a running instance takes the new files by itself."
		switch leaf := l.Certificate.Leaf; {
		case f.now.After(leaf.NotAfter):
			return bad(fmt.Sprintf("the certificate of %s ended on %s", l.Flag, day(leaf.NotAfter)), "Renew it"+renewed)
		case f.now.Before(leaf.NotBefore):
			return bad(fmt.Sprintf("the certificate of %s begins on %s", l.Flag, day(leaf.NotBefore)), "Look at this machine's clock, or wait.")
		case f.now.Add(certificateSoon).After(leaf.NotAfter):
			return warn(fmt.Sprintf("the certificate of %s ends on %s", l.Flag, day(leaf.NotAfter)), "Renew it, and find out why nothing has"+renewed)
		default:
			until = append(until, leaf.NotAfter)
		}
	}
	if len(until) == 0 {
		return fine("none is configured")
	}
	return fine("good until " + day(slices.MinFunc(until, time.Time.Compare)))
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// plain is a duration as people write it: 24h, not 24h0m0s.
func plain(d time.Duration) string {
	s := d.Round(time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// counted is a number with its noun and verb, such as "1 key ends".
func counted(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// privateNetworks are those that no stranger has an address in.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), // behind a carrier's or a cloud's NAT, RFC 6598
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::1/128"),
}

func private(p netip.Prefix) bool {
	return slices.ContainsFunc(privateNetworks, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
}

func trustedProxies(f *facts) verdict {
	for _, p := range f.set.TrustedProxies {
		if !private(p) {
			return warn(fmt.Sprintf("--trusted-proxies has a public network (%s): whoever is in it can claim any address", p),
				"Name exactly the addresses that your proxies have towards payments.")
		}
	}
	if len(f.set.TrustedProxies) == 0 {
		return fine("nobody's X-Forwarded-For is believed")
	}
	return fine("only private networks are believed")
}

func times(f *facts) verdict {
	s := f.set
	switch {
	case s.ProviderTimeout+answerTime > clientsWait:
		return warn(fmt.Sprintf("an exchange with the provider may take %s, and the contract's clients wait %s: they will go before they are answered", plain(s.ProviderTimeout), plain(clientsWait)),
			"Lower --provider-timeout to what the provider needs, such as 25s.")
	case s.Settle < s.ProviderTimeout:
		return warn(fmt.Sprintf("--settle is %s, less than the provider's time-out: a request that is still on its way then counts as lost, and its nonce may charge again", plain(s.Settle)),
			"Leave --settle out, unless the provider has declared less.")
	case s.Recovery > recoveryLate:
		return warn(fmt.Sprintf("unresolved payments are looked for every %s only", plain(s.Recovery)), "Leave --recovery-interval out: a look costs one query.")
	}
	return fine(fmt.Sprintf("provider time-out %s, settling time %s, recovery every %s", plain(s.ProviderTimeout), plain(s.Settle), plain(s.Recovery)))
}

func retention(f *facts) verdict {
	if f.set.Retention < retentionLeast {
		return warn(fmt.Sprintf("answers are kept for %s: a merchant that retries later, within the contract's %s, is charged again", plain(f.set.Retention), plain(retentionLeast)),
			"Leave --retention out, or raise it to 24h.")
	}
	return fine("answers are kept for " + plain(f.set.Retention))
}
