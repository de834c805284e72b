package httpapi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/jsontree"
)

// What a client hears of a body that is refused as a whole.
const (
	tooLarge   = "the body must have at most 262144 bytes" // MaxBody, as sent and as unpacked
	endedEarly = "the body ended early"
)

// Body reads a request's body as one JSON value. A body may be packed with gzip; it
// has at most MaxBody bytes, packed and unpacked. It fails with 408, 413, 415 or 400,
// and names place and rule.
func Body(c echo.Context) (jsontree.Value, error) {
	coding := contentCoding(c.Request().Header)
	if coding != plain && coding != packed {
		return jsontree.Value{}, apierr.New(apierr.UnsupportedMediaType, "Content-Encoding must be gzip, or not be set")
	}
	data, err := readJSON(c)
	if err == nil && coding == packed {
		data, err = unpack(data)
	}
	if err != nil {
		return jsontree.Value{}, err
	}
	v, err := jsontree.Parse(data)
	if err != nil {
		return jsontree.Value{}, apierr.New(apierr.InvalidRequest, err.Error())
	}
	return v, nil
}

// Object is Body where it must be an object.
func Object(c echo.Context) (jsontree.Value, error) {
	body, err := Body(c)
	if err == nil && body.Kind() != jsontree.Object {
		err = apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	return body, err
}

// OptionalObject is Object where a request may do without a body, as many clients send
// none where there is nothing to say, and others always one.
func OptionalObject(c echo.Context) (jsontree.Value, error) {
	if c.Request().ContentLength == 0 {
		return jsontree.Value{}, nil
	}
	return Object(c)
}

// RawBody reads a request's body, which says that it is JSON, byte for byte: for whoever
// has to check a signature first, which is why it must not be packed. It fails with 408,
// 413, 415 or 400.
func RawBody(c echo.Context) ([]byte, error) {
	if contentCoding(c.Request().Header) != plain {
		return nil, apierr.New(apierr.UnsupportedMediaType, "Content-Encoding must not be set")
	}
	return readJSON(c)
}

// The codings of a body that we take (RFC 9110, section 8.4.1).
const (
	plain  = "identity"
	packed = "gzip"
)

// contentCoding is what a body was coded with, one coding or a list of them; plain, if
// the header does not say. It may be on several lines, and none must be overlooked.
func contentCoding(h http.Header) string {
	coding := strings.ToLower(strings.TrimSpace(strings.Join(h.Values(echo.HeaderContentEncoding), ",")))
	if coding == "" {
		return plain
	}
	return coding
}

// readJSON reads what was sent as JSON, whatever it is coded with.
func readJSON(c echo.Context) ([]byte, error) {
	if err := jsonContent(c.Request().Header); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, MaxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, apierr.New(apierr.RequestTooLarge, tooLarge)
		}
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
			return nil, apierr.New(apierr.RequestTimeout, "the body did not arrive in time").WithStatus(http.StatusRequestTimeout)
		}
		return nil, apierr.New(apierr.InvalidRequest, endedEarly)
	}
	// The time to read has been kept. Left standing, its end would look to the server
	// like a client that went away while a provider takes its time.
	_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Time{}) // where there is none, there is nothing to lift
	return data, nil
}

// jsonContent refuses what is not JSON in UTF-8.
func jsonContent(h http.Header) error {
	mediaType, params, err := mime.ParseMediaType(h.Get(echo.HeaderContentType))
	if err != nil || mediaType != echo.MIMEApplicationJSON {
		return apierr.New(apierr.UnsupportedMediaType, "Content-Type must be application/json")
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return apierr.New(apierr.UnsupportedMediaType, "charset must be utf-8")
	}
	return nil
}

// unpack undoes gzip. A few bytes can unpack to gigabytes, so it stops one byte behind
// MaxBody: that much is enough to know. Nothing is pooled here: a reader that waits for
// its next body would keep the end of this one, cards included.
func unpack(data []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, notGzip(err)
	}
	unpacked, err := io.ReadAll(io.LimitReader(r, MaxBody+1))
	if err != nil {
		return nil, notGzip(err)
	}
	if len(unpacked) > MaxBody {
		return nil, apierr.New(apierr.RequestTooLarge, tooLarge)
	}
	return unpacked, nil
}

// notGzip is what a client hears of an error of package gzip's.
func notGzip(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return apierr.New(apierr.InvalidRequest, endedEarly)
	}
	return apierr.New(apierr.InvalidRequest, "the body is not valid gzip")
}
