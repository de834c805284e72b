package httpapi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

// readingRaw reads the body of a POST as it was sent, as whoever checks a signature does.
func readingRaw(e *echo.Echo) {
	e.POST("/", func(c echo.Context) error {
		data, err := RawBody(c)
		if err != nil {
			return err
		}
		return JSON(c, http.StatusOK, data)
	})
}

// zip packs each of the texts, and puts what comes of them behind each other.
func zip(t testing.TB, level int, texts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, text := range texts {
		w, err := gzip.NewWriterLevel(&b, level)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = io.WriteString(w, text); err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// packedCall sends a body as one that is packed.
func (x *edge) packedCall(data []byte) answer {
	x.t.Helper()
	return x.call(http.MethodPost, "/", bytes.NewReader(data), "Content-Type", "application/json", "Content-Encoding", "gzip")
}

const (
	typeRule        = "Content-Type must be application/json"
	charsetRule     = "charset must be utf-8"
	encodingRule    = "Content-Encoding must be gzip, or not be set"
	rawEncodingRule = "Content-Encoding must not be set"
	tooLargeRule    = "the body must have at most 262144 bytes"
	earlyRule       = "the body ended early"
	gzipRule        = "the body is not valid gzip"
)

func TestBodyMustBeJSONByItsType(t *testing.T) {
	t.Parallel()
	for name, mount := range map[string]func(*echo.Echo){"a value": reading, "raw": readingRaw} {
		x := newEdge(t, mount)
		for _, contentType := range []string{"application/json", "Application/JSON", "application/json; charset=utf-8", `application/json;charset="UTF-8"`, "application/json;", "application/json; profile=x"} {
			for _, encoding := range []string{"", "identity", "Identity"} {
				a := x.call(http.MethodPost, "/", strings.NewReader(`{"a":1}`), "Content-Type", contentType, "Content-Encoding", encoding)
				if a.status != http.StatusOK || string(a.body) != `{"a":1}` {
					t.Errorf("%s: %q, %q: got %d %s", name, contentType, encoding, a.status, a.body)
				}
			}
		}
		for contentType, message := range map[string]string{
			"": typeRule, "text/plain": typeRule, "text/json": typeRule, "application/x-www-form-urlencoded": typeRule,
			"application/problem+json": typeRule, "application/json, text/plain": typeRule, "application/json; charset": typeRule,
			"json": typeRule, "application/jsonp": typeRule, "geheim/geheim": typeRule, "application/gzip": typeRule,
			"application/json; charset=iso-8859-1": charsetRule, "application/json; charset=utf-16": charsetRule, "application/json; charset=utf8": charsetRule,
		} {
			a := x.call(http.MethodPost, "/", strings.NewReader(`{"a":1}`), "Content-Type", contentType)
			x.wantError(a, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", message)
			if bytes.Contains(a.body, []byte("geheim")) {
				t.Errorf("%s: %q: the answer repeats what was sent", name, contentType)
			}
		}
	}
}

func TestH49PackedBodyIsTheBodyThatWasPacked(t *testing.T) {
	t.Parallel()
	const body = `{"b":1.50,"a":"é"}`
	x := newEdge(t, reading)
	for name, data := range map[string][]byte{
		"as usual": zip(t, gzip.DefaultCompression, body), "best": zip(t, gzip.BestCompression, body), "stored": zip(t, gzip.NoCompression, body),
		"in pieces": zip(t, gzip.BestSpeed, body[:5], "", body[5:], ""),
	} {
		for _, encoding := range []string{"gzip", "GZip", " gzip "} {
			for _, r := range []io.Reader{bytes.NewReader(data), unsized{bytes.NewReader(data)}} {
				a := x.call(http.MethodPost, "/", r, "Content-Type", "application/json; charset=utf-8", "Content-Encoding", encoding)
				if a.status != http.StatusOK || string(a.body) != body {
					t.Errorf("%s, %q: got %d %s", name, encoding, a.status, a.body)
				}
			}
		}
	}
	// It is held to the same rules.
	x.wantError(x.packedCall(zip(t, gzip.DefaultCompression, "")), http.StatusBadRequest, "INVALID_REQUEST", "$ must not be empty")
	x.wantError(x.packedCall(zip(t, gzip.DefaultCompression, `{"a":1,"a":2}`)), http.StatusBadRequest, "INVALID_REQUEST", "$.a must not appear twice in the same object")
	x.wantError(x.packedCall(zip(t, gzip.DefaultCompression, "\ufeff{}")), http.StatusBadRequest, "INVALID_REQUEST", "$ must not begin with a byte order mark")
	x.wantError(x.packedCall(zip(t, gzip.DefaultCompression, string(zip(t, gzip.DefaultCompression, body)))), http.StatusBadRequest, "INVALID_REQUEST", "$ must be well-formed JSON")
}

func TestH49OtherCodingsAndCharsetsAre415(t *testing.T) {
	t.Parallel()
	data := zip(t, gzip.DefaultCompression, "{}")
	for _, c := range []struct {
		mount       func(*echo.Echo)
		encodings   []string
		contentType string
		status      int
		message     string
	}{
		{reading, []string{"br"}, "application/json", 415, encodingRule},
		{reading, []string{"deflate"}, "application/json", 415, encodingRule},
		{reading, []string{"x-gzip"}, "application/json", 415, encodingRule},
		{reading, []string{"geheim"}, "application/json", 415, encodingRule},
		{reading, []string{"gzip, gzip"}, "application/json", 415, encodingRule},
		{reading, []string{"identity, gzip"}, "application/json", 415, encodingRule},
		{reading, []string{"gzip", "gzip"}, "application/json", 415, encodingRule},
		{reading, []string{"identity", "gzip"}, "application/json", 415, encodingRule},
		{reading, []string{"", "gzip"}, "application/json", 415, encodingRule},
		{reading, []string{"gzip;q=1"}, "application/json", 415, encodingRule},
		{reading, []string{"*"}, "application/json", 415, encodingRule},
		{reading, []string{"gzip"}, "application/json; charset=utf-16", 415, charsetRule},
		{reading, []string{"gzip"}, "application/gzip", 415, typeRule},
		{reading, []string{"gzip"}, "", 415, typeRule},
		{readingRaw, []string{"gzip"}, "application/json", 415, rawEncodingRule}, // a signature is over bytes
		{readingRaw, []string{"br"}, "application/json", 415, rawEncodingRule},
		{readingRaw, []string{"identity", "gzip"}, "application/json", 415, rawEncodingRule},
	} {
		x := newEdge(t, c.mount)
		headers := []string{"Content-Type", c.contentType}
		for _, encoding := range c.encodings {
			headers = append(headers, "Content-Encoding", encoding)
		}
		a := x.call(http.MethodPost, "/", bytes.NewReader(data), headers...)
		x.wantError(a, c.status, "UNSUPPORTED_MEDIA_TYPE", c.message)
		if bytes.Contains(a.body, []byte("geheim")) {
			t.Errorf("%q: the answer repeats what was sent", c.encodings)
		}
	}
}

func TestH49PackedBodyIsBoundedPackedAndUnpacked(t *testing.T) {
	t.Parallel()
	x := newEdge(t, reading)
	for name, data := range map[string][]byte{
		"at the limit": zip(t, gzip.BestSpeed, jsonOf(MaxBody)), "in two pieces": zip(t, gzip.BestSpeed, jsonOf(MaxBody)[:1000], jsonOf(MaxBody)[1000:]),
	} {
		if a := x.packedCall(data); a.status != http.StatusOK || len(a.body) != MaxBody {
			t.Errorf("%s: got %d with %d bytes", name, a.status, len(a.body))
		}
	}
	for name, data := range map[string][]byte{
		"a byte too many":                  zip(t, gzip.BestSpeed, jsonOf(MaxBody+1)),
		"a byte too many in another piece": zip(t, gzip.BestSpeed, jsonOf(MaxBody), " "),
		"8 MiB":                            zip(t, gzip.BestCompression, strings.Repeat(" ", 8<<20)),
		"at the limit, but longer packed":  zip(t, gzip.NoCompression, jsonOf(MaxBody)),
		"nothing in too many pieces":       bytes.Repeat(zip(t, gzip.BestSpeed, ""), MaxBody/20),
	} {
		a := x.packedCall(data)
		x.wantError(a, http.StatusRequestEntityTooLarge, "REQUEST_TOO_LARGE", tooLargeRule)
		if a.status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d bytes", name, len(data))
		}
	}
}

// What unpacks to hundreds of megabytes costs no more than what unpacks to the limit. This
// test has the process to itself, for it counts what is allocated.
func TestPackedBodyCostsNoMoreThanItsLimit(t *testing.T) {
	one := zip(t, gzip.BestCompression, strings.Repeat("\x00", 8<<20))
	bomb := bytes.Repeat(one, MaxBody/len(one))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	data, err := unpack(bomb)
	runtime.ReadMemStats(&after)
	if e, ok := apierr.From(err); !ok || e.Code != apierr.RequestTooLarge || data != nil {
		t.Errorf("got %d bytes and %v", len(data), err)
	}
	if cost := after.TotalAlloc - before.TotalAlloc; cost > 8*MaxBody {
		t.Errorf("%d bytes were allocated for a body of at most %d", cost, MaxBody)
	}
}

func TestH49BrokenPackingIsInvalid(t *testing.T) {
	t.Parallel()
	x := newEdge(t, reading)
	whole := zip(t, gzip.DefaultCompression, `{"a":"geheim","b":[1,2,3]}`)
	changedAt := func(i int) []byte {
		data := slices.Clone(whole)
		data[i] ^= 0xff
		return data
	}
	with := func(more ...byte) []byte { return append(slices.Clone(whole), more...) }
	for name, c := range map[string]struct {
		data    []byte
		message string
	}{
		"nothing":             {nil, earlyRule},
		"half a header":       {whole[:5], earlyRule},
		"a header alone":      {whole[:10], earlyRule},
		"half of it":          {whole[:len(whole)/2], earlyRule},
		"all but a byte":      {whole[:len(whole)-1], earlyRule},
		"no checksum":         {whole[:len(whole)-8], earlyRule},
		"half a second piece": {with(whole[:len(whole)/2]...), earlyRule},
		"JSON":                {[]byte(`{"a":"geheim"}`), gzipRule},
		"no magic number":     {changedAt(0), gzipRule},
		"another method":      {changedAt(2), gzipRule},
		"another checksum":    {changedAt(len(whole) - 8), gzipRule},
		"another length":      {changedAt(len(whole) - 1), gzipRule},
		"a block of no kind":  {append(slices.Clone(whole[:10]), 0xff, 0xff, 0xff, 0xff), gzipRule},
		"something behind it": {with([]byte("geheim, and more")...), gzipRule},
		"zeros behind it":     {with(make([]byte, 64)...), gzipRule},
		"a byte behind it":    {with(' '), earlyRule}, // the beginning of another piece, to a reader
	} {
		a := x.packedCall(c.data)
		x.wantError(a, http.StatusBadRequest, "INVALID_REQUEST", c.message)
		if a.status != http.StatusBadRequest || bytes.Contains(a.body, []byte("geheim")) {
			t.Errorf("%s: got %d %s", name, a.status, a.body)
		}
	}
	if strings.Contains(x.logs.String(), "geheim") {
		t.Error("the log quotes a body")
	}
}

// A change of any bit is noticed, or changes nothing but what gzip says of a file's age.
func TestH49ChangedBitOfAPackedBodyIsNoticed(t *testing.T) {
	t.Parallel()
	const body = `{"amount":{"currency":"USD","value":45.67},"description":"Running shoes"}`
	whole := zip(t, gzip.DefaultCompression, body)
	for i := range len(whole) * 8 {
		data := slices.Clone(whole)
		data[i/8] ^= 1 << (i % 8)
		if got, err := unpack(data); err == nil && string(got) != body {
			t.Errorf("bit %d: %q", i, got)
		}
	}
}

// FuzzUnpack asks of any bytes that they are refused in words that a client may hear, or
// become what another reader makes of them, within the limit; and of any text that it
// comes out of its own packing.
func FuzzUnpack(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2)) // the same at each run
	noise := make([]byte, 300)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for _, seed := range [][]byte{
		nil, []byte("{}"), noise, zip(f, gzip.BestCompression, `{"a":1}`), zip(f, gzip.NoCompression, `{"a":1}`), zip(f, gzip.BestSpeed, "", "{}", ""),
		zip(f, gzip.BestCompression, strings.Repeat(" ", 2*MaxBody)), zip(f, gzip.BestCompression, string(noise)), append(zip(f, gzip.BestSpeed, "{}"), "more"...),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := unpack(data)
		want, wantErr := everything(data)
		if err != nil {
			e, ok := apierr.From(err)
			if !ok || got != nil || !slices.ContainsFunc([]string{tooLargeRule, earlyRule, gzipRule}, func(rule string) bool { return slices.Equal(e.Messages, []string{rule}) }) {
				t.Fatalf("%d bytes and %v", len(got), err)
			}
			if tooMuch := len(want) > MaxBody; tooMuch != (e.Code == apierr.RequestTooLarge) || !tooMuch && wantErr == nil {
				t.Fatalf("refused with %v, and %d bytes are in it (%v)", err, len(want), wantErr)
			}
		} else if wantErr != nil || len(got) > MaxBody || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came out, want %d (%v)", len(got), len(want), wantErr)
		}
		if len(data) <= MaxBody {
			if again, err := unpack(zip(t, gzip.BestSpeed, string(data))); err != nil || !bytes.Equal(again, data) {
				t.Fatalf("%d bytes became %d by packing and unpacking (%v)", len(data), len(again), err)
			}
		}
	})
}

// everything is what is in a packed text, read piece by piece; a little more than MaxBody,
// if it is more.
func everything(data []byte) (all []byte, err error) {
	in := bytes.NewReader(data)
	r, err := gzip.NewReader(in)
	for err == nil && len(all) <= MaxBody {
		r.Multistream(false)
		var one []byte
		one, err = io.ReadAll(io.LimitReader(r, MaxBody+1))
		all = append(all, one...)
		if err == nil && len(all) <= MaxBody {
			if err = r.Reset(in); errors.Is(err, io.EOF) {
				return all, nil
			}
		}
	}
	return all, err
}

// BenchmarkUnpack is what gzip costs a request, beside what it costs to read.
func BenchmarkUnpack(b *testing.B) {
	const member = `"description":"Running shoes","amount":{"currency":"USD","value":45.67},`
	for name, data := range map[string][]byte{
		"1KiB":   zip(b, gzip.DefaultCompression, strings.Repeat(member, 1<<10/len(member))),
		"256KiB": zip(b, gzip.DefaultCompression, strings.Repeat(member, MaxBody/len(member))),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := unpack(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Names of charsets have no case (RFC 9110, section 8.3.2).
func TestCharsetIsReadInAnyCase(t *testing.T) {
	t.Parallel()
	x := newEdge(t, reading)
	for _, charset := range []string{"utf-8", "UTF-8", "Utf-8", "uTF-8"} {
		if a := x.call(http.MethodPost, "/", strings.NewReader(`{}`), "Content-Type", "application/json; charset="+charset); a.status != http.StatusOK {
			t.Errorf("charset=%s: got %d", charset, a.status)
		}
	}
}

// jsonOf is a JSON text of exactly n bytes.
func jsonOf(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }

// unsized hides a body's length, so that it is sent in chunks.
type unsized struct{ io.Reader }

func TestBodyAboveTheLimitIsRefusedAndOneAtTheLimitIsNot(t *testing.T) {
	t.Parallel()
	x := newEdge(t, reading)
	for name, sent := range map[string]func(s string) io.Reader{
		"with a length": func(s string) io.Reader { return strings.NewReader(s) },
		"in chunks":     func(s string) io.Reader { return unsized{strings.NewReader(s)} },
	} {
		if a := x.call(http.MethodPost, "/", sent(jsonOf(MaxBody)), "Content-Type", "application/json"); a.status != http.StatusOK || len(a.body) != MaxBody {
			t.Errorf("%s, %d bytes: got %d with %d bytes", name, MaxBody, a.status, len(a.body))
		}
		for _, n := range []int{MaxBody + 1, 2 * MaxBody} {
			a := x.call(http.MethodPost, "/", sent(jsonOf(n)), "Content-Type", "application/json")
			x.wantError(a, http.StatusRequestEntityTooLarge, "REQUEST_TOO_LARGE", "the body must have at most 262144 bytes")
		}
	}
}

func TestBodyThatEndsEarlyIsInvalid(t *testing.T) {
	t.Parallel()
	x := newEdge(t, reading)
	for name, request := range map[string]string{
		"less than its length": "Content-Length: 100\r\n\r\n{\"a\":\"geheim\"",
		"nothing of it":        "Content-Length: 100\r\n\r\n",
		"half a chunk":         "Transfer-Encoding: chunked\r\n\r\n64\r\n{\"a\":\"geheim\"",
		"no last chunk":        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
		"no chunks at all":     "Transfer-Encoding: chunked\r\n\r\ngeheim\r\n",
	} {
		c := x.dial()
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+request); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		a := x.answerOn(c)
		x.wantError(a, http.StatusBadRequest, "INVALID_REQUEST", "the body ended early")
		if a.status != http.StatusBadRequest {
			t.Errorf("%s: got %d", name, a.status)
		}
	}
}

func TestBodyThatIsTooSlowIsGivenUp(t *testing.T) {
	t.Parallel()
	x := newEdge(t, reading, func(s *http.Server) { s.ReadTimeout = 300 * time.Millisecond })
	c := x.dial()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	x.wantError(x.answerOn(c), http.StatusRequestTimeout, "REQUEST_TIMEOUT", "the body did not arrive in time")
}

// The deadline of a body must not end a request that takes longer than it, because
// its provider does.
func TestDeadlineOfTheBodyEndsWithTheBody(t *testing.T) {
	t.Parallel()
	const limit = 200 * time.Millisecond
	x := newEdge(t, func(e *echo.Echo) {
		e.POST("/", func(c echo.Context) error {
			if _, err := Body(c); err != nil {
				return err
			}
			select {
			case <-c.Request().Context().Done():
				return apierr.New(apierr.InternalError, "the request was cancelled")
			case <-time.After(3 * limit):
				return JSON(c, http.StatusOK, []byte("{}"))
			}
		})
	}, func(s *http.Server) { s.ReadTimeout = limit })
	if a := x.call(http.MethodPost, "/", strings.NewReader("{}"), "Content-Type", "application/json"); a.status != http.StatusOK {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestBodyIsReadAsJSONAndRefusedByPlace(t *testing.T) {
	t.Parallel()
	x := newEdge(t, reading)
	for body, message := range map[string]string{
		"":                       "$ must not be empty",
		"geheim":                 "$ must be well-formed JSON",
		`{"a":1,"a":2}`:          "$.a must not appear twice in the same object",
		`{}{}`:                   "$ must not be followed by anything",
		"\ufeff{}":               "$ must not begin with a byte order mark",
		"{\"a\":\"geheim\xff\"}": "$.a must be valid UTF-8",
	} {
		a := x.call(http.MethodPost, "/", strings.NewReader(body), "Content-Type", "application/json")
		x.wantError(a, http.StatusBadRequest, "INVALID_REQUEST", message)
	}
}
