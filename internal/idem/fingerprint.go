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
type Fingerprinter struct {
	request []byte
	card    []byte
	form    jsontree.Form
}

// NewFingerprinter derives its keys from the installation's secret.
func NewFingerprinter(secret []byte) (*Fingerprinter, error) {
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
	f := &Fingerprinter{request: request, card: card}
	f.form = jsontree.NewForm(
		jsontree.Omit("$.payment_method.detail.card.card_data.security_code"),
		jsontree.Replace("$.payment_method.detail.card.card_data.number", f.Card),
		jsontree.Decimal("$.amount.value"),
	)
	return f, nil
}

// Request is the fingerprint of one request: a version byte and an HMAC-SHA-256
// over method, route, target and the body's canonical form.
func (f *Fingerprinter) Request(method, route, target string, body jsontree.Value) []byte {
	mac := hmac.New(sha256.New, f.request)
	for _, part := range [][]byte{[]byte(method), []byte(route), []byte(target), f.form.Canonical(body)} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part))) // so that no two lists of parts run together alike
		mac.Write(length[:])
		mac.Write(part)
	}
	return mac.Sum([]byte{fingerprintVersion})
}

// Card is the keyed fingerprint of a card number: 32 hexadecimal digits, the same
// for the same number in one installation.
func (f *Fingerprinter) Card(number string) string {
	mac := hmac.New(sha256.New, f.card)
	mac.Write([]byte(number))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
