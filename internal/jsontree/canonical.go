package jsontree

import (
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Form is a canonical form: a way to write bodies such that two of them come out
// the same, byte for byte, exactly if they ask for the same thing. White space,
// the order of members, the notation of numbers and the escapes in strings don't
// count. The order of elements, the difference between "1" and 1, and between
// null and nothing, do.
//
// It is JSON as JSON() writes it, but with members sorted by the bytes of their
// names and numbers as digits and an exponent (1.50 is 15e-1). It is readable,
// and unambiguous for the reason JSON is. It is not RFC 8785, which would have
// us read numbers into floats: 9007199254740993 and …992 are two amounts.
//
// The zero Form has no rules. What a Form writes is compared with what earlier
// versions of the program wrote: whoever changes it gives the fingerprint made of
// it a new version.
type Form struct {
	root *step
}

// FormRule is what a Form does differently at one path; paths are written as for
// NewPaths.
type FormRule struct {
	path string
	rule rule
}

// rule is what happens at a step. The zero rule is nothing special.
type rule struct {
	action  action
	standIn func(text string) string // of replace
}

type action uint8

const (
	asIs action = iota
	omit
	replace
	asDecimal
)

// Omit leaves out what stands at path, as if it had not been sent.
func Omit(path string) FormRule {
	return FormRule{path, rule{action: omit}}
}

// Replace writes, instead of a string or number at path, what standIn makes of
// its text. A stand-in never equals anything that could have been sent, and a
// string's never a number's. Other kinds of values stay as they are.
func Replace(path string, standIn func(text string) string) FormRule {
	return FormRule{path, rule{action: replace, standIn: standIn}}
}

// Decimal takes a string at path for the number it spells, in JSON's grammar and
// length, so that "45.60" equals 45.6 there. Other strings stay strings.
func Decimal(path string) FormRule {
	return FormRule{path, rule{action: asDecimal}}
}

// NewForm makes a form with these rules. It panics on a path that is not one or
// has two rules: they are constants of the program.
func NewForm(rules ...FormRule) Form {
	root := new(step)
	for _, r := range rules {
		s := root.at(r.path)
		if s.rule.action != asIs {
			panic("jsontree: two rules for " + r.path)
		}
		s.rule = r.rule
	}
	return Form{root}
}

// Canonical is v in this form. Of an Absent value it is empty, which no value's
// is. It costs about the size of v, whatever its numbers' exponents are.
//
// v is taken for the root of the rules' paths, as Parse returns it.
func (f Form) Canonical(v Value) []byte {
	if v.node == nil || f.root.omits() {
		return nil
	}
	return v.node.appendCanonical(nil, f.root)
}

// omits reports whether what stands at this step is left out. It may be asked of
// a nil step.
func (s *step) omits() bool {
	return s != nil && s.rule.action == omit
}

// Marks of what stands in for a string and for a number: no JSON value begins
// with either.
const (
	standsForString = '@'
	standsForNumber = '#'
)

func (n *node) appendCanonical(dst []byte, s *step) []byte {
	var r rule
	if s != nil {
		r = s.rule
	}
	switch n.kind {
	case Object:
		return n.appendCanonicalObject(dst, s)
	case Array:
		return n.appendCanonicalArray(dst, s)
	case String:
		if r.action == replace {
			return appendQuoted(append(dst, standsForString), r.standIn(n.text))
		}
		if r.action == asDecimal && isNumber(n.text) {
			return appendDecimal(dst, n.text)
		}
	case Number:
		if r.action == replace {
			return appendQuoted(append(dst, standsForNumber), r.standIn(n.text))
		}
		return appendDecimal(dst, n.text)
	case Absent, Null, Bool:
	}
	return n.appendJSON(dst)
}

func (n *node) appendCanonicalObject(dst []byte, s *step) []byte {
	members := make([]*node, 0, n.count)
	for child := n.first; child != nil; child = child.next {
		if !s.child(Object, child.name).omits() {
			members = append(members, child)
		}
	}
	slices.SortFunc(members, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	dst = append(dst, '{')
	for i, child := range members {
		dst = appendQuoted(appendComma(dst, i > 0), child.name)
		dst = child.appendCanonical(append(dst, ':'), s.child(Object, child.name))
	}
	return append(dst, '}')
}

func (n *node) appendCanonicalArray(dst []byte, s *step) []byte {
	below := s.child(Array, "")
	dst = append(dst, '[')
	if !below.omits() {
		for child := n.first; child != nil; child = child.next {
			dst = child.appendCanonical(appendComma(dst, child != n.first), below)
		}
	}
	return append(dst, ']')
}

// isNumber reports whether s is what Parse would take for a number. The first
// and last character tell JSON's white space apart, which IsValid allows around.
func isNumber(s string) bool {
	if s == "" || len(s) > maxNumber {
		return false
	}
	first, last := s[0], s[len(s)-1]
	return (first == '-' || isDigit(first)) && isDigit(last) && jsontext.Value(s).IsValid()
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// appendDecimal writes the number spelled by text, which is in JSON's grammar, in
// the one way it has here: an optional minus, digits that neither begin nor end
// with a zero, and an exponent unless it is 0. Zero is 0. Nothing is ever
// multiplied out: 1e999999999 costs what it is long.
func appendDecimal(dst []byte, text string) []byte {
	text, negative := strings.CutPrefix(text, "-")
	mantissa, exponent := text, ""
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa, exponent = text[:i], text[i+1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return append(dst, '0')
	}
	significant := strings.TrimRight(digits, "0")
	shift := len(digits) - len(significant) - len(fraction)

	if negative {
		dst = append(dst, '-')
	}
	dst = append(dst, significant...)
	if e := addToExponent(exponent, shift); e != "0" {
		dst = append(append(dst, 'e'), e...)
	}
	return dst
}

// maxPlainExponent is how many characters of an exponent surely fit an int64, with
// a shift of at most maxNumber added: 17 digits and a sign.
const maxPlainExponent = 18

// addToExponent is a written exponent, possibly none, plus shift. Beyond an int64
// it takes big arithmetic, on the at most 126 digits that maxNumber leaves.
func addToExponent(exponent string, shift int) string {
	if exponent == "" {
		return strconv.Itoa(shift)
	}
	if len(exponent) <= maxPlainExponent {
		e, _ := strconv.ParseInt(exponent, 10, 64) // JSON's grammar and the length leave no error
		return strconv.FormatInt(e+int64(shift), 10)
	}
	e, _ := new(big.Int).SetString(exponent, 10)
	return e.Add(e, big.NewInt(int64(shift))).String()
}
