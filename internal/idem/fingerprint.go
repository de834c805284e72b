package idem

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"

	"github.com/oncepay/oncepay/internal/jsontree"
)

// version is one way to make the fingerprint of a request. Its number stands in front
// of every fingerprint that is made so, which is compared in that way for as long as it
// is kept.
type version struct {
	number byte
	// form is how a body is written to be hashed, with card standing in for its card's
	// number.
	form func(card func(number string) string) jsontree.Form
}

// versions are those in use. Fingerprints are made by the first, and recognised by all.
//
// Whoever changes what is hashed adds a version, at the end; a later release moves it to
// the front, when every process knows it; and the old one is removed when no row has it
// any more. Nobody who sent the same body is told of another one meanwhile.
var versions = []version{{1, firstForm}}

// firstForm leaves out the security code, which must not be kept even as a digest.
func firstForm(card func(number string) string) jsontree.Form {
	return jsontree.NewForm(
		jsontree.Omit("$.payment_method.detail.card.card_data.security_code"),
		jsontree.Replace("$.payment_method.detail.card.card_data.number", card),
		// A card that is handed in before it is paid with: on routes that no release before had,
		// so it needs no version of its own.
		jsontree.Omit("$.payment_method.card.security_code"),
		jsontree.Replace("$.payment_method.card.number", card),
		jsontree.Omit("$.card_data.security_code"),
		jsontree.Replace("$.card_data.number", card),
		jsontree.Decimal("$.amount.value"),
	)
}

// MinSecretLength is in bytes. HMAC-SHA-256 gains nothing from a longer secret
// and loses from a shorter one.
const MinSecretLength = 32

// ErrSecret is returned for an installation's secret that is too short.
var ErrSecret = errors.New("the installation's secret must have at least 32 bytes")

// Fingerprinter compares requests, and cards, without keeping them. Its digests
// are keyed with the installation's secret: a bare digest of a card number, or of
// a body whose other fields are known, could be guessed back.
//
// While the secret is being changed there are two. What is kept is made with the
// current one; what another instance made with the other one, before or already,
// can be recognised with it.
type Fingerprinter struct {
	current *keys
	other   *keys // nil, unless the secret is being changed
}

// keys are derived from one secret: one for each version of requests' fingerprints, and
// one for cards.
type keys struct {
	requests []requestKey // as versions
	card     []byte
}

type requestKey struct {
	version byte
	key     []byte
	form    jsontree.Form
}

// NewFingerprinter derives its keys from the installation's secret, and from the
// other one that is active, which may be empty: there is none.
func NewFingerprinter(secret, other []byte) (*Fingerprinter, error) {
	return newFingerprinter(versions, secret, other)
}

func newFingerprinter(known []version, secret, other []byte) (*Fingerprinter, error) {
	current, err := newKeys(known, secret)
	if err != nil {
		return nil, err
	}
	f := &Fingerprinter{current: current}
	if len(other) > 0 {
		f.other, err = newKeys(known, other)
	}
	return f, err
}

func newKeys(known []version, secret []byte) (*keys, error) {
	if len(secret) < MinSecretLength {
		return nil, ErrSecret
	}
	card, err := hkdf.Key(sha256.New, secret, nil, "oncepay card fingerprint 1", sha256.Size)
	if err != nil {
		return nil, err
	}
	k := &keys{card: card}
	for _, v := range known {
		key, err := hkdf.Key(sha256.New, secret, nil, "oncepay request fingerprint "+strconv.Itoa(int(v.number)), sha256.Size)
		if err != nil {
			return nil, err
		}
		k.requests = append(k.requests, requestKey{v.number, key, v.form(k.ofCard)})
	}
	return k, nil
}

// printSize is the length of a fingerprint: a version's number and an HMAC-SHA-256.
const printSize = 1 + sha256.Size

// Print is what a request is recognised by: its fingerprint in every version that is in
// use, under each secret that is active. It holds nothing of the request itself. The zero
// Print is no request's, and equal to none.
type Print struct {
	made   []byte // fingerprints of printSize: those under the current secret, then those under the other
	others int    // where the latter begin; len(made), if there are none
}

// Of is the print of one request: of its method, its route, its target and its body's
// canonical form. The zero body is that of a request without one.
func (f *Fingerprinter) Of(method, route, target string, body jsontree.Value) Print {
	all := []*keys{f.current, f.other}
	if f.other == nil {
		all = all[:1]
	}
	p := Print{made: make([]byte, 0, len(all)*len(f.current.requests)*printSize), others: len(f.current.requests) * printSize}
	for _, k := range all {
		for _, r := range k.requests {
			p.made = r.appendPrint(p.made, method, route, target, body)
		}
	}
	return p
}

// Kept is what is stored of the request: its fingerprint in the current version, under
// the current secret. It has 33 bytes, and of the zero Print none. The caller must not
// change it.
func (p Print) Kept() []byte { return first(p.made) }

// KeptByOther is what another instance stores of the request, for which the other secret
// is the current one; nil if there is no other. The caller must not change it.
func (p Print) KeptByOther() []byte { return first(p.made[p.others:]) }

// first is the first fingerprint of a list of them; nil if it is empty.
func first(made []byte) []byte {
	if len(made) == 0 {
		return nil
	}
	return made[:printSize:printSize]
}

// Is reports whether a kept fingerprint is this request's: made in any version that is in
// use, under either secret. A kept one of another version is nobody's, and so is an empty
// one.
func (p Print) Is(kept []byte) bool {
	for made := range slices.Chunk(p.made, printSize) {
		if bytes.Equal(made, kept) { // the version is their first byte
			return true
		}
	}
	return false
}

// Card is the keyed fingerprint of a card number: 32 hexadecimal digits, the same
// for the same number in one installation, until its secret changes.
func (f *Fingerprinter) Card(number string) string { return f.current.ofCard(number) }

// CardByOther is what Card would be under the other secret; "" if there is none.
func (f *Fingerprinter) CardByOther(number string) string {
	if f.other == nil {
		return ""
	}
	return f.other.ofCard(number)
}

func (k *requestKey) appendPrint(dst []byte, method, route, target string, body jsontree.Value) []byte {
	form := k.form.Canonical(body)
	// Each part has its length in front, so that no two lists of parts run together alike.
	head := make([]byte, 0, 4*8+len(method)+len(route)+len(target))
	for _, part := range []string{method, route, target} {
		head = binary.BigEndian.AppendUint64(head, uint64(len(part)))
		head = append(head, part...)
	}
	head = binary.BigEndian.AppendUint64(head, uint64(len(form)))
	mac := hmac.New(sha256.New, k.key)
	mac.Write(head)
	mac.Write(form)
	return mac.Sum(append(dst, k.version))
}

func (k *keys) ofCard(number string) string {
	mac := hmac.New(sha256.New, k.card)
	mac.Write([]byte(number))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
