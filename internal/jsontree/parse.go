package jsontree

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxDepth is how many objects and arrays may lie inside each other. The
	// contract's own bodies need 8; 32 leaves room for what a shop nests in
	// additional_data, and keeps every recursion over a tree shallow.
	maxDepth = 32

	// maxValues is how many values a body may have, and so what its tree may cost:
	// below 2 MB. Without it 256 KiB of "[0,0,0,…" would become 131,000 nodes and
	// 10 MB. The contract's longest example has 149; an order of 1,000 items with 15
	// fields each still passes.
	maxValues = 16_384

	// maxNumber is the longest a number may be, in characters: a float64 printed to
	// its last useful digit has 24, a decimal128 at most 43. Whoever computes with
	// a number's text, its exponent included, may take it for small.
	maxNumber = 128

	// slabSize is how many nodes are allocated at once: about what a payment has.
	slabSize = 64
)

// Rule is what a body breaks, in words that a client may hear.
type Rule string

// The rules of Parse, with the numbers of the limits above.
const (
	RuleEmpty     Rule = "must not be empty"
	RuleBOM       Rule = "must not begin with a byte order mark"
	RuleUTF8      Rule = "must be valid UTF-8"
	RuleSyntax    Rule = "must be well-formed JSON"
	RuleTrailing  Rule = "must not be followed by anything"
	RuleDuplicate Rule = "must not appear twice in the same object"
	RuleDepth     Rule = "must not be nested more than 32 deep"
	RuleValues    Rule = "must not have more than 16384 values in all"
	RuleNumber    Rule = "must not be a number of more than 128 characters"
	RuleNUL       Rule = "must not contain the character U+0000"
)

// Error is why a body was refused: a place and the rule it breaks. It holds
// nothing else of the body, nor does it wrap an error that does, so it may be
// shown and logged as it is.
type Error struct {
	Path string
	Rule Rule
}

func (e *Error) Error() string {
	return e.Path + " " + string(e.Rule)
}

// Parse reads exactly one JSON value. It refuses what two readers might
// understand differently (a name twice in an object, invalid UTF-8, half a
// surrogate pair, a byte order mark, anything after the value), what PostgreSQL
// cannot keep as text (U+0000), and what costs more than a request should (see
// the limits above). Its errors are all *Error.
//
// The tree does not refer to body, which the caller may reuse.
func Parse(body []byte) (Value, error) {
	if bytes.HasPrefix(body, []byte("\ufeff")) {
		return Value{}, (*node)(nil).broke(RuleBOM)
	}
	p := parser{body: body, decoder: jsontext.NewDecoder(bytes.NewBuffer(body))}
	root, err := p.child(nil, "")
	if err != nil {
		return Value{}, err
	}
	if err := p.value(root, 0); err != nil {
		return Value{}, err
	}
	if _, err := p.decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return Value{}, root.broke(RuleTrailing)
	}
	return Value{root}, nil
}

func (n *node) broke(rule Rule) error {
	return &Error{Path: string(n.appendPath(nil)), Rule: rule}
}

// parser turns the decoder's tokens into nodes. The decoder is what holds the
// grammar, UTF-8 and the uniqueness of names.
type parser struct {
	body    []byte
	decoder *jsontext.Decoder
	values  int
	slab    []node
}

// child makes the node for the next value inside parent, which is not read yet.
func (p *parser) child(parent *node, name string) (*node, error) {
	p.values++
	if p.values > maxValues {
		return nil, parent.broke(RuleValues)
	}
	if len(p.slab) == cap(p.slab) {
		p.slab = make([]node, 0, slabSize) // a new one, never a larger one: nodes are pointed at
	}
	p.slab = append(p.slab, node{parent: parent, name: name})
	return &p.slab[len(p.slab)-1], nil
}

// value reads the next value into n, which lies inside depth others.
func (p *parser) value(n *node, depth int) error {
	token, err := p.decoder.ReadToken()
	if err != nil {
		return p.refused(n, err)
	}
	switch token.Kind() {
	case jsontext.KindNull:
		n.kind = Null
	case jsontext.KindTrue:
		n.kind, n.text = Bool, literalTrue
	case jsontext.KindFalse:
		n.kind, n.text = Bool, literalFalse
	case jsontext.KindNumber:
		n.kind, n.text = Number, token.String()
		if len(n.text) > maxNumber {
			return n.broke(RuleNumber)
		}
	case jsontext.KindString:
		n.kind, n.text = String, token.String()
		if strings.IndexByte(n.text, 0) >= 0 {
			return n.broke(RuleNUL)
		}
	case jsontext.KindBeginArray, jsontext.KindBeginObject:
		if depth == maxDepth {
			return n.broke(RuleDepth)
		}
		n.kind = Array
		if token.Kind() == jsontext.KindBeginObject {
			n.kind = Object
		}
		return p.children(n, depth+1)
	default: // the end of an object or array, which children looks out for
		return n.broke(RuleSyntax)
	}
	return nil
}

// children reads what is in n, an object or array, up to its end.
func (p *parser) children(n *node, depth int) error {
	var last *node
	for {
		if next := p.decoder.PeekKind(); next == jsontext.KindEndArray || next == jsontext.KindEndObject {
			if _, err := p.decoder.ReadToken(); err != nil { // an object does not end with ]
				return p.refused(n, err)
			}
			return nil
		}
		name := ""
		if n.kind == Object {
			var err error
			if name, err = p.name(n); err != nil {
				return err
			}
		}
		child, err := p.child(n, name)
		if err != nil {
			return err
		}
		last = n.add(child, last)
		if err := p.value(child, depth); err != nil {
			return err
		}
	}
}

// name reads the name of n's next member.
func (p *parser) name(n *node) (string, error) {
	token, err := p.decoder.ReadToken()
	if err != nil {
		return "", p.refused(n, err)
	}
	name := token.String()
	if strings.IndexByte(name, 0) >= 0 {
		return "", (&node{parent: n, name: name}).broke(RuleNUL)
	}
	return name, nil
}

// refused is the decoder's error, met at n, in our terms. The original quotes the
// body, and goes no further.
func (p *parser) refused(n *node, err error) error {
	if len(bytes.TrimLeft(p.body, " \t\r\n")) == 0 {
		return n.broke(RuleEmpty)
	}
	var syntactic *jsontext.SyntacticError
	switch {
	case !errors.As(err, &syntactic):
		return n.broke(RuleSyntax)
	case errors.Is(err, jsontext.ErrDuplicateName):
		return (&node{parent: n, name: syntactic.JSONPointer.LastToken()}).broke(RuleDuplicate)
	case p.isInvalidUTF8(syntactic.ByteOffset):
		return n.broke(RuleUTF8)
	}
	return n.broke(RuleSyntax)
}

// isInvalidUTF8 reports whether what the decoder tripped over at offset is no
// character at all.
func (p *parser) isInvalidUTF8(offset int64) bool {
	r, size := utf8.DecodeRune(p.body[min(offset, int64(len(p.body))):])
	return r == utf8.RuneError && size == 1
}
