package httpapi

import (
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

const (
	// FailedAuthPerMinute is what a listener allows one address. A client with a wrong
	// key that asks once a second is told 401, which says what is wrong; who guesses
	// is slowed down and stays out of the log's way.
	FailedAuthPerMinute = 60

	// networkBits is what counts as one address in IPv6: the network that a provider
	// gives to a single customer.
	networkBits = 64

	// retryCrowded is Retry-After, in seconds, for who came while too many were there:
	// most requests take less.
	retryCrowded = 1
)

// limitInFlight refuses, before anything is looked at, what would be one request too
// many. Each that is let in may hold a body, a place at the provider and a wait for
// the database: a process that takes all of them answers none.
func limitInFlight(most int) echo.MiddlewareFunc {
	var inFlight atomic.Int64
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if isProbe(c) {
				return next(c)
			}
			defer inFlight.Add(-1)
			if inFlight.Add(1) > int64(most) {
				return apierr.New(apierr.ServiceUnavailable, "too many requests are in flight; retry with the same key").Retry(retryCrowded)
			}
			return next(c)
		}
	}
}

// limitFailedAuth tells who fails too often to wait. It counts failures only, and
// right credentials are never refused for somebody else's wrong ones: where the
// proxies are not configured all clients have one address, and a stranger must not be
// able to stop everybody's payments. That it slows no guess at a key is no loss:
// keys are drawn, and too long to be guessed.
func limitFailedAuth(failures *Limiter) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			err := next(c)
			if e, ok := apierr.From(err); ok && e.Code == apierr.InvalidCredentials {
				if wait := failures.Take(AddressOf(c)); wait > 0 {
					return TooMany("too many requests with wrong credentials came from this address; correct them, and wait", wait)
				}
			}
			return err
		}
	}
}

// AddressOf is whom a limit is about: the address that a request comes from, or, in IPv6,
// the network of a single customer that it is in. It is for that alone, and is never logged.
func AddressOf(c echo.Context) string {
	a, err := netip.ParseAddr(c.RealIP())
	if err != nil {
		return "" // one bucket for whatever this may be
	}
	a = a.Unmap().WithZone("")
	if a.Is6() {
		network, _ := a.Prefix(networkBits) // it has 128
		return network.String()
	}
	return a.String()
}

// addressFrom reads a client's address: the last one on its way that none of the
// trusted proxies has. Echo trusts loopback and private networks unless it is told not
// to, and anybody on those could be whoever they like.
func addressFrom(trusted []netip.Prefix) echo.IPExtractor {
	if len(trusted) == 0 {
		return echo.ExtractIPDirect()
	}
	options := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range trusted {
		options = append(options, echo.TrustIPRange(&net.IPNet{
			IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
		}))
	}
	return echo.ExtractIPFromXFFHeader(options...)
}
