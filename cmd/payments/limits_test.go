package main

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// parsed is what `serve` makes of these arguments.
func parsed(t *testing.T, args ...string) serveCmd {
	t.Helper()
	var c cli
	parser, err := kong.New(&c, kong.Name("payments"), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"serve"}, args...)); err != nil {
		t.Fatal(err)
	}
	return c.Serve
}

func TestLimitsAreThoseOfTheFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want limits
	}{
		{nil, limits{inFlight: 1024, lookups: 60}},
		{[]string{"--max-in-flight", "1", "--lookup-rate", "1"}, limits{inFlight: 1, lookups: 1}},
		{[]string{"--trusted-proxies", "10.1.2.3/16,fd00:1::/32", "--trusted-proxies", "192.0.2.1/32"}, limits{1024, 60, []netip.Prefix{
			netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("192.0.2.1/32"),
		}}},
	} {
		got, err := parsed(t, c.args...).limits()
		if err != nil || got.inFlight != c.want.inFlight || got.lookups != c.want.lookups || !slices.Equal(got.proxies, c.want.proxies) {
			t.Errorf("%v: got %+v (%v), want %+v", c.args, got, err, c.want)
		}
	}
}

func TestLimitsThatCannotWorkAreRefusedWithTheFlagAndTheRule(t *testing.T) {
	t.Parallel()
	for args, says := range map[string]string{
		"--max-in-flight 0":                                   "--max-in-flight must be at least 1",
		"--max-in-flight=-1":                                  "--max-in-flight must be at least 1",
		"--lookup-rate 0":                                     "--lookup-rate must be at least 1",
		"--trusted-proxies 10.1.2.3":                          "--trusted-proxies must be networks",
		"--trusted-proxies 10.0.0.0/8,proxy":                  "--trusted-proxies must be networks",
		"--trusted-proxies 10.0.0.0/33":                       "--trusted-proxies must be networks",
		"--trusted-proxies 0.0.0.0/0":                         "--trusted-proxies must not be everybody",
		"--trusted-proxies 10.0.0.0/8 --trusted-proxies ::/0": "--trusted-proxies must not be everybody",
	} {
		_, err := parsed(t, strings.Fields(args)...).limits()
		e, ok := errors.AsType[exitError](err)
		if !ok || e.code != exitUsage || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v", args, err)
		}
	}
}
