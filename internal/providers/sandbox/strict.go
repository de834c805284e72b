package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds nesting. A charge with its card has two levels.
const maxDepth = 8

// decodeStrict reads exactly one JSON object into v. encoding/json alone would
// let the last of two equal names win, match "Amount" with "amount", and mend
// broken UTF-8: each of them a way for two readers to see two different charges.
// The error is in our own words; encoding/json's would quote the value, which
// may be a card number.
func decodeStrict(data []byte, v any) error { return decode(data, v, true) }

// decodeOpen is decodeStrict for what a newer sandbox may have written: names that
// v does not have are passed over, if they look like ours.
func decodeOpen(data []byte, v any) error { return decode(data, v, false) }

func decode(data []byte, v any, closed bool) error {
	if !utf8.Valid(data) {
		return errors.New("must be UTF-8")
	}
	names := json.NewDecoder(bytes.NewReader(data))
	names.UseNumber()
	if err := checkValue(names, 0); err != nil {
		return err
	}
	if _, err := names.Token(); !errors.Is(err, io.EOF) {
		return errors.New("must be one JSON object and nothing after it")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if closed {
		dec.DisallowUnknownFields()
	}
	err := dec.Decode(v)
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType) && wrongType.Field != "":
		// The names of a struct's fields, never of the input's. An embedded struct
		// counts for encoding/json, and is nothing that a caller can see.
		field := strings.TrimPrefix(wrongType.Field, "order.")
		return errors.New(field + ": must be of type " + typeName(wrongType))
	case errors.As(err, &wrongType):
		return errors.New("must be a JSON object")
	case err != nil:
		return errors.New("must have only the documented names")
	}
	return nil
}

func typeName(e *json.UnmarshalTypeError) string {
	switch s := e.Type.String(); {
	case s == "bool":
		return "boolean"
	case strings.HasPrefix(s, "int"):
		return "integer"
	case s == "string", s == "time.Time":
		return "string"
	}
	return "object"
}

// checkValue walks one value and checks the names of every object in it.
func checkValue(dec *json.Decoder, depth int) error {
	notJSON := errors.New("must be well-formed JSON")
	t, err := dec.Token()
	if err != nil {
		return notJSON
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxDepth {
		return errors.New("is nested too deeply")
	}
	seen := map[string]bool{}
	for dec.More() {
		if open == '{' {
			t, err := dec.Token()
			if err != nil {
				return notJSON
			}
			name, _ := t.(string)
			if seen[name] {
				return errors.New("must not repeat a name")
			}
			// All documented names are like this. So encoding/json's matching without
			// regard to case has nothing left to match.
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
				return errors.New("must have only the documented names")
			}
			seen[name] = true
		}
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return notJSON
	}
	return nil
}
