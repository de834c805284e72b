package idem

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"

	"github.com/oncepay/oncepay/internal/jsontree"
)

// fingerprintVersion stands in front of every stored fingerprint. Whoever changes
// what is hashed gives it a new number, so that old rows stay comparable.
const fingerprintVersion = 1

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

// keys are derived from one secret, one for requests and one for cards.
type keys struct {
	request []byte
	card    []byte
	form    jsontree.Form
}

// NewFingerprinter derives its keys from the installation's secret, and from the
// other one that is active, which may be empty: there is none.
func NewFingerprinter(secret, other []byte) (*Fingerprinter, error) {
	current, err := newKeys(secret)
	if err != nil {
		return nil, err
	}
	f := &Fingerprinter{current: current}
	if len(other) > 0 {
		f.other, err = newKeys(other)
	}
	return f, err
}

func newKeys(secret []byte) (*keys, error) {
	if len(secret) < MinSecretLength {
		return nil, ErrSecret
	}
	request, err := hkdf.Key(sha256.New, secret, nil, "oncepay request fingerprint 1", sha256.Size)
	if err != nil {
		return nil, err
	}
	card, err := hkdf.Key(sha256.New, secret, nil, "oncepay card fingerprint 1", sha256.Size)
	if err != nil {
		return nil, err
	}
	k := &keys{request: request, card: card}
	k.form = jsontree.NewForm(
		jsontree.Omit("$.payment_method.detail.card.card_data.security_code"),
		jsontree.Replace("$.payment_method.detail.card.card_data.number", k.ofCard),
		jsontree.Decimal("$.amount.value"),
	)
	return k, nil
}

// Request is the fingerprint of one request: a version byte and an HMAC-SHA-256
// over method, route, target and the body's canonical form.
func (f *Fingerprinter) Request(method, route, target string, body jsontree.Value) []byte {
	return f.current.ofRequest(method, route, target, body)
}

// RequestByOther is what Request would be under the other secret; nil if there is
// none.
func (f *Fingerprinter) RequestByOther(method, route, target string, body jsontree.Value) []byte {
	if f.other == nil {
		return nil
	}
	return f.other.ofRequest(method, route, target, body)
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

func (k *keys) ofRequest(method, route, target string, body jsontree.Value) []byte {
	mac := hmac.New(sha256.New, k.request)
	for _, part := range [][]byte{[]byte(method), []byte(route), []byte(target), k.form.Canonical(body)} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part))) // so that no two lists of parts run together alike
		mac.Write(length[:])
		mac.Write(part)
	}
	return mac.Sum([]byte{fingerprintVersion})
}

func (k *keys) ofCard(number string) string {
	mac := hmac.New(sha256.New, k.card)
	mac.Write([]byte(number))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
