package merchants

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/oncepay/oncepay/internal/apierr"
)

// An origin is where a page comes from: scheme, host and port. A browser sends it with
// what a page asks of others, in one spelling of all that there are (RFC 6454), and a page
// cannot have it send another. So origins are kept in that spelling, and are the same if
// their bytes are.

const (
	// maxOrigins is how many origins a merchant may have: its shops in each country, and
	// where they are tried out. Each call of a browser is compared with all of them, and all
	// of them are in a header of the pay page.
	maxOrigins = 50
	// maxOriginLength is in characters, all of which are ASCII: as other names.
	maxOriginLength = 255

	digits    = "0123456789"
	hexDigits = digits + "abcdef"
	// labelCharacters are what a part of a host's name is made of, as browsers write it:
	// other letters are in Punycode. None of them means anything in a header, where origins
	// are written next to each other.
	labelCharacters = "abcdefghijklmnopqrstuvwxyz" + digits + "-_"

	originRule = "must be an origin as browsers send it, such as https://shop.example or https://shop.example:8443: at most 255 characters, " +
		"https (http for localhost, 127.0.0.1 and [::1]), the host in lower case, the port unless it is the scheme's own, and nothing behind it"
)

// ParseOrigin reads an origin that a merchant may register: scheme://host[:port], written
// exactly as browsers write it. The scheme is https; it may be http where the host is this
// machine, localhost, 127.0.0.1 or [::1]. What a browser would write in another way is no
// origin, nor is one with a path, a user or a wildcard, nor is `null`.
func ParseOrigin(s string) (origin string, ok bool) {
	scheme, host, ok := strings.Cut(s, "://")
	if !ok || len(s) > maxOriginLength {
		return "", false
	}
	own := "443"
	switch scheme {
	case "https":
	case "http":
		own = "80"
	default:
		return "", false
	}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		port := host[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port != strconv.FormatUint(n, 10) || port == own {
			return "", false
		}
		host = host[:i]
	}
	if !validHost(host) || scheme == "http" && !thisMachine(host) {
		return "", false
	}
	return s, true
}

// thisMachine reports whether a host is this machine by a name that nobody else can take.
func thisMachine(host string) bool {
	return host == "localhost" || host == "127.0.0.1" || host == "[::1]"
}

// validHost reports whether a host is written as browsers write it.
func validHost(host string) bool {
	if strings.HasPrefix(host, "[") {
		inner := strings.TrimSuffix(host[1:], "]")
		a, err := netip.ParseAddr(inner)
		// An IPv4 address in IPv6 is written in two ways, and no shop is at one.
		return err == nil && a.Is6() && !a.Is4In6() && a.Zone() == "" && host == "["+a.String()+"]"
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || strings.Trim(l, labelCharacters) != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	hex, isHex := strings.CutPrefix(last, "0x")
	if strings.Trim(last, digits) == "" || isHex && strings.Trim(hex, hexDigits) == "" {
		a, err := netip.ParseAddr(host) // whatever ends in a number is an address to a browser
		return err == nil && a.Is4()
	}
	return true
}

// validateOrigins checks a list that is to be a merchant's.
func validateOrigins(origins []string) error {
	if len(origins) > maxOrigins {
		return errOrigins()
	}
	for i, s := range origins {
		if _, ok := ParseOrigin(s); !ok {
			return apierr.New(apierr.InvalidParameters, fmt.Sprintf("$.origins[%d] %s", i, originRule))
		}
		if slices.Contains(origins[:i], s) {
			return apierr.New(apierr.InvalidParameters, fmt.Sprintf("$.origins[%d] must not be in the list twice", i))
		}
	}
	return nil
}

func errOrigins() error {
	return apierr.New(apierr.InvalidParameters, fmt.Sprintf("$.origins must be a list of at most %d origins", maxOrigins))
}

// originsOf reads a list as the database has it. What is no origin allows nobody, and
// gets into no header.
func originsOf(text string) []string {
	origins := []string{}
	for part := range strings.SplitSeq(text, ",") {
		if o, ok := ParseOrigin(part); ok {
			origins = append(origins, o)
		}
	}
	return origins
}
