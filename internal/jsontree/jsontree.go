// Package jsontree reads a request's body once, into a tree that keeps what Go's
// decoders throw away: which members were there at all, their order, the exact
// text of every number. Validation, the fingerprint and what we keep of a body
// all look at that one tree, so they cannot disagree about what was sent.
//
//	body ── Parse ──▶ Value ──┬─ Get, Text, Number …   validate
//	                          ├─ Form.Canonical        fingerprint
//	                          └─ Paths.Pick, JSON      keep, and give back
//
// A body may hold a card, so nothing in here repeats it by accident: an Error
// names a place and a rule, a Value prints as its place, and the encoding of a
// tree is only had by asking for it.
package jsontree

import (
	"errors"
	"iter"
	"log/slog"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Kind is what a Value is.
type Kind uint8

// The kinds of JSON, and Absent for what was not sent: the zero Value, and
// whatever Get did not find.
const (
	Absent Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

// String is the kind as a client would call it.
func (k Kind) String() string {
	return [...]string{"absent", "null", "boolean", "number", "string", "array", "object"}[k]
}

// Value is one place in a body, and what stands there, if anything. It is a
// reference, cheap to copy; the tree behind it never changes, so it may be read
// from many goroutines.
type Value struct {
	node *node // nil in the zero Value: nothing was sent at all
}

// node is a value in its place. A node that was looked for but not found has kind
// Absent, and a parent that does not know it.
type node struct {
	kind   Kind
	text   string // String: its contents; Number: exactly as written; Bool: true or false
	parent *node
	name   string // its name in a parent that is an object
	index  int    // its position in a parent that is an array; -1 if only a name was looked for
	count  int    // how many children it has
	first  *node  // its first child
	next   *node  // its parent's next child
}

// Kind is what stands at this place.
func (v Value) Kind() Kind {
	if v.node == nil {
		return Absent
	}
	return v.node.kind
}

// Given reports whether there is something other than null. Most clients mean the
// same by a member they leave out and one they set to null.
func (v Value) Given() bool {
	return v.Kind() > Null
}

// Get is the member of that name. Names are case-sensitive. Where there is none,
// because it was not sent or v is no object, the answer is an Absent value that
// knows its place, so look-ups chain: v.Get("amount").Get("value").
func (v Value) Get(name string) Value {
	if v.Kind() == Object {
		for child := v.node.first; child != nil; child = child.next {
			if child.name == name {
				return Value{child}
			}
		}
	}
	return Value{&node{kind: Absent, parent: v.node, name: name, index: -1}}
}

// Len is the number of members or elements: 0 for anything but objects and arrays.
func (v Value) Len() int {
	if v.node == nil {
		return 0
	}
	return v.node.count
}

// Members are an object's names and values, in the order they were sent. A name
// is the client's own text: whoever reports one uses the value's Path.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.Kind() != Object {
			return
		}
		for child := v.node.first; child != nil; child = child.next {
			if !yield(child.name, Value{child}) {
				return
			}
		}
	}
}

// Elements are an array's values, in order.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != Array {
			return
		}
		for child := v.node.first; child != nil; child = child.next {
			if !yield(Value{child}) {
				return
			}
		}
	}
}

// Text is a string's contents. It reports false for every other kind.
func (v Value) Text() (string, bool) {
	if v.Kind() != String {
		return "", false
	}
	return v.node.text, true
}

// Number is a number exactly as it was written, at most 128 characters. It
// reports false for every other kind, strings of digits included.
func (v Value) Number() (string, bool) {
	if v.Kind() != Number {
		return "", false
	}
	return v.node.text, true
}

// Bool is a boolean. It reports false, false for every other kind.
func (v Value) Bool() (value, ok bool) {
	if v.Kind() != Bool {
		return false, false
	}
	return v.node.text == literalTrue, true
}

const (
	literalTrue  = "true"
	literalFalse = "false"
	literalNull  = "null"
)

// Path is where the value stands, or would: $.items[3].name. It is safe to show
// and to log: a name that might be more than a name appears as *.
func (v Value) Path() string {
	return string(v.node.appendPath(nil))
}

func (n *node) appendPath(dst []byte) []byte {
	if n == nil || n.parent == nil && n.name == "" {
		return append(dst, '$')
	}
	dst = n.parent.appendPath(dst)
	if n.parent != nil && n.parent.kind == Array && n.index >= 0 {
		dst = append(dst, '[')
		dst = strconv.AppendInt(dst, int64(n.index), 10)
		return append(dst, ']')
	}
	if !isSafe(n.name) {
		return append(dst, ".*"...)
	}
	return append(append(dst, '.'), n.name...)
}

const (
	// maxSafeName is the longest name that Path repeats: about twice the contract's
	// longest (consumerAuthenticationInformation).
	maxSafeName = 64
	// maxSafeDigits is how many digits a name that Path repeats may have. The
	// contract's have up to four (iso8583_response_code), a card number at least
	// twelve, and a client's bug can turn a value into a name.
	maxSafeDigits = 4
)

// isSafe reports whether name can only be a name: one that may be shown.
func isSafe(name string) bool {
	digits := 0
	for i := range len(name) {
		switch c := name[i]; {
		case '0' <= c && c <= '9':
			digits++
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', c == '_':
		default:
			return false
		}
	}
	// No name begins with a digit; a security code would.
	return name != "" && (name[0] < '0' || name[0] > '9') && len(name) <= maxSafeName && digits <= maxSafeDigits
}

// JSON is the value as compact JSON: members in the order they were sent, numbers
// as they were written, strings with no more escapes than needed. An Absent value
// has none, nil.
func (v Value) JSON() []byte {
	if v.node == nil {
		return nil
	}
	return v.node.appendJSON(nil)
}

func (n *node) appendJSON(dst []byte) []byte {
	switch n.kind {
	case Absent:
		return dst
	case Null:
		return append(dst, literalNull...)
	case Bool, Number:
		return append(dst, n.text...)
	case String:
		return appendQuoted(dst, n.text)
	case Array:
		dst = append(dst, '[')
		for child := n.first; child != nil; child = child.next {
			dst = child.appendJSON(appendComma(dst, child != n.first))
		}
		return append(dst, ']')
	case Object:
		dst = append(dst, '{')
		for child := n.first; child != nil; child = child.next {
			dst = appendQuoted(appendComma(dst, child != n.first), child.name)
			dst = child.appendJSON(append(dst, ':'))
		}
		return append(dst, '}')
	}
	return dst
}

func appendComma(dst []byte, needed bool) []byte {
	if needed {
		dst = append(dst, ',')
	}
	return dst
}

// appendQuoted writes s as a JSON string. The one error it could meet, invalid
// UTF-8, Parse has refused.
func appendQuoted(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

// String is the value's place, never its contents: what fmt prints of a Value
// ends up in logs and errors.
func (v Value) String() string { return v.Path() }

// GoString keeps %#v as quiet as %v.
func (v Value) GoString() string { return v.Path() }

// LogValue keeps slog as quiet as fmt.
func (v Value) LogValue() slog.Value { return slog.StringValue(v.Path()) }

// MarshalJSON refuses, for a struct that happens to hold a Value must not carry a
// card into whatever encodes it. Ask for JSON by name.
func (v Value) MarshalJSON() ([]byte, error) {
	return nil, errors.New("jsontree: a value is not encoded on its own: call JSON")
}

// Paths is a set of places, made once and used for every body.
type Paths struct{ root *step }

// NewPaths makes a set of places such as $.amount.value or $.items[*].name, where
// [*] stands for every element of an array. It panics on a path that is not
// written like that: paths are constants of the program.
func NewPaths(paths ...string) Paths {
	root := new(step)
	for _, path := range paths {
		root.at(path).chosen = true
	}
	return Paths{root}
}

// Pick is a copy of v with nothing but the chosen places, each with all that is
// below it, and the objects and arrays on the way to them. Something else on the
// way, say a text where an object should be, is not chosen, whatever it holds. An
// array keeps an element only if it is on the way, so later ones may move up. The
// copy shares nothing with v's tree and keeps none of it alive.
//
// v is taken for the root of its paths, as Parse returns it.
func (p Paths) Pick(v Value) Value {
	if v.node == nil {
		return Value{}
	}
	return Value{v.node.pick(p.root, nil)}
}

// pick returns nil if neither n nor anything below it can be chosen.
func (n *node) pick(s *step, parent *node) *node {
	if s == nil || !s.chosen && !s.leadsInto(n.kind) {
		return nil
	}
	picked := &node{kind: n.kind, text: n.text, parent: parent, name: n.name, index: n.index}
	last := (*node)(nil)
	for child := n.first; child != nil; child = child.next {
		below := s // everything below a chosen place is chosen
		if !s.chosen {
			below = s.child(n.kind, child.name)
		}
		if kept := child.pick(below, picked); kept != nil {
			last = picked.add(kept, last)
		}
	}
	return picked
}

// add makes child the next of n's children, behind last, and returns it.
func (n *node) add(child, last *node) *node {
	child.index = n.count
	n.count++
	if last == nil {
		n.first = child
	} else {
		last.next = child
	}
	return child
}

// step is one place in a tree of paths.
type step struct {
	members  map[string]*step // by name
	elements *step            // every element, [*]

	chosen bool // in Paths: this place and all below
	rule   rule // in a Form
}

// child is the step to a child of that name in a value of that kind; nil if no
// path goes there. It may be asked of a nil step.
func (s *step) child(kind Kind, name string) *step {
	switch {
	case s == nil:
		return nil
	case kind == Object:
		return s.members[name]
	case kind == Array:
		return s.elements
	}
	return nil
}

// leadsInto reports whether paths go on inside a value of that kind.
func (s *step) leadsInto(kind Kind) bool {
	return kind == Object && s.members != nil || kind == Array && s.elements != nil
}

// at is the step at the end of path, made if need be.
func (s *step) at(path string) *step {
	rest, ok := strings.CutPrefix(path, "$")
	for ok && rest != "" {
		if after, isElement := strings.CutPrefix(rest, "[*]"); isElement {
			if s.elements == nil {
				s.elements = new(step)
			}
			s, rest = s.elements, after
			continue
		}
		end := 1
		for end < len(rest) && rest[end] != '.' && rest[end] != '[' {
			end++
		}
		name := rest[1:end]
		if ok = rest[0] == '.' && isSafe(name); !ok {
			break
		}
		if s.members == nil {
			s.members = make(map[string]*step)
		}
		if s.members[name] == nil {
			s.members[name] = new(step)
		}
		s, rest = s.members[name], rest[end:]
	}
	if !ok {
		panic("jsontree: not a path: " + path)
	}
	return s
}
