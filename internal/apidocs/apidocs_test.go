package apidocs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/api"
	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
)

// answer is what came back, its body as it was on the wire.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// get asks the real edge, as a client that unpacks nothing by itself, and holds the
// exchange against openapi.yaml.
func get(t *testing.T, path string, header ...string) answer {
	t.Helper()
	e := httpapi.New(httpapi.Options{Log: slog.New(slog.DiscardHandler)})
	Mount(e)
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, req)
	res := rec.Result()
	a := answer{res.StatusCode, res.Header, rec.Body.Bytes()}
	apitest.Check(t, req, nil, res, a.unzipped(t))
	return a
}

func (a answer) unzipped(t *testing.T) []byte {
	t.Helper()
	if a.header.Get("Content-Encoding") != "gzip" {
		return a.body
	}
	return unzip(t, a.body)
}

func unzip(t *testing.T, zipped []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// all are the paths of everything that is served.
func all(t *testing.T) []string {
	t.Helper()
	s, err := built()
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{documentPath, referencePath, errorIndexPath, apierr.SpecificationPath}
	for name := range s.assets {
		paths = append(paths, assetsPath+name)
	}
	for code := range s.errorPages {
		paths = append(paths, apierr.DocPath(apierr.Code(code)))
	}
	return paths
}

func TestTheDocumentIsServedAsItIs(t *testing.T) {
	t.Parallel()
	a := get(t, "/openapi.yaml")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/yaml" || !bytes.Equal(a.body, api.Document) {
		t.Errorf("%d, %s, %d bytes, want %d", a.status, a.header.Get("Content-Type"), len(a.body), len(api.Document))
	}
}

// TestBothFormsAreTheSameAndKnownAgain asks for everything plainly, packed, and
// with the tags that came with it.
func TestBothFormsAreTheSameAndKnownAgain(t *testing.T) {
	t.Parallel()
	for _, path := range all(t) {
		plain, zipped := get(t, path), get(t, path, "Accept-Encoding", "br, gzip")
		if plain.status != http.StatusOK || plain.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %d, %q", path, plain.status, plain.header.Get("Content-Encoding"))
		}
		if zipped.header.Get("Content-Encoding") != "gzip" || len(zipped.body) >= len(plain.body) || !bytes.Equal(zipped.unzipped(t), plain.body) {
			t.Errorf("%s: the packed form (%q, %d bytes) is not the plain one's (%d)", path, zipped.header.Get("Content-Encoding"), len(zipped.body), len(plain.body))
		}
		tags := []string{plain.header.Get("ETag"), zipped.header.Get("ETag")}
		if tags[0] == tags[1] || tags[0] == "" || plain.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: the forms have the tags %q, Vary %q", path, tags, plain.header.Get("Vary"))
		}
		for _, known := range append(tags, "W/"+tags[0], `"other", `+tags[1], "*") {
			if a := get(t, path, "If-None-Match", known); a.status != http.StatusNotModified || len(a.body) != 0 || a.header.Get("ETag") != tags[0] {
				t.Errorf("%s: If-None-Match: %s gets %d with %d bytes", path, known, a.status, len(a.body))
			}
		}
		if a := get(t, path, "If-None-Match", `"other"`); a.status != http.StatusOK {
			t.Errorf("%s: another tag gets %d", path, a.status)
		}
	}
}

func TestGzipOnlyForThoseWhoAskForIt(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{
		"": false, "br": false, "identity": false, "gzip;q=0": false, "*;q=0": false, "gzip;q=0.0, *": false, "gzip;q=x": false, "xgzip": false,
		"gzip": true, "GZIP": true, "x-gzip": true, "br, gzip": true, "gzip; q=0.1": true, "*": true, "*;q=0, gzip": true,
	} {
		if got := acceptsGzip([]string{header}); got != want {
			t.Errorf("Accept-Encoding %q: %t, want %t", header, got, want)
		}
	}
	if !acceptsGzip([]string{"br", "gzip"}) {
		t.Error("a second line is not read")
	}
}

// TestOnlyNamesWithAHashAreKept by browsers without asking again.
func TestOnlyNamesWithAHashAreKept(t *testing.T) {
	t.Parallel()
	for _, path := range all(t) {
		want := "no-cache"
		if strings.HasPrefix(path, assetsPath) {
			want = "public, max-age=31536000, immutable"
			if !regexp.MustCompile(`^/docs/assets/[a-z]+\.[0-9a-f]{16}\.(js|css)$`).MatchString(path) {
				t.Errorf("%s has no hash", path)
			}
		}
		if got := get(t, path).header.Get("Cache-Control"); got != want {
			t.Errorf("%s: Cache-Control %q, want %q", path, got, want)
		}
	}
}

func TestEveryCodeHasItsPageAndEveryPageItsCode(t *testing.T) {
	t.Parallel()
	s, err := built()
	if err != nil {
		t.Fatal(err)
	}
	var codes []apierr.Code
	for code := range s.errorPages {
		codes = append(codes, apierr.Code(code))
	}
	if slices.Sort(codes); !slices.Equal(codes, apierr.Codes()) {
		t.Errorf("there are pages of\n%q, want those of\n%q", codes, apierr.Codes())
	}
	index := string(get(t, errorIndexPath).body)
	for _, code := range apierr.Codes() {
		// The page is where the error itself says that it is.
		var body struct {
			DocURL string `json:"doc_url"`
		}
		if err := json.Unmarshal(apierr.New(code, "m").Body("r"), &body); err != nil {
			t.Fatal(err)
		}
		a := get(t, body.DocURL)
		page := readable(a.body)
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: %s answers %d, %s", code, body.DocURL, a.status, a.header.Get("Content-Type"))
		}
		for _, part := range []string{string(code), "Meaning.", "When.", "What to do.", "Same key?"} {
			if !strings.Contains(page, part) {
				t.Errorf("%s: the page has no %q:\n%s", code, part, page)
			}
		}
		if !strings.Contains(index, `href="`+body.DocURL+`"`) {
			t.Errorf("the index does not lead to %s", body.DocURL)
		}
	}
}

// readable is what a reader sees of a page.
func readable(page []byte) string {
	return html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(string(page), ""))
}

func TestWhatIsNotThereIsToldInTheEnvelope(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/docs/errors/NO_SUCH_CODE", "/docs/errors/invalid_amount", "/docs/errors/%2e%2e", "/docs/assets/scalar.js"} {
		a := get(t, path)
		if e := new(struct{ Code string }); a.status != http.StatusNotFound || json.Unmarshal(a.body, e) != nil || e.Code != "NOT_FOUND" {
			t.Errorf("%s: %d, %s", path, a.status, a.body)
		}
	}
}

// TestPagesLeadSomewhere: to something that is served, or to a page of the
// repository that is there.
func TestPagesLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, path := range all(t) {
		a := get(t, path)
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			continue
		}
		for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(string(a.body), -1) {
			link, _, _ := strings.Cut(m[1], "#") // the tests of docs look at the headings
			switch file, isOurs := strings.CutPrefix(link, repository); {
			case link == "data:,": // no icon, and no request for one
			case isOurs:
				if _, err := os.Stat("../../" + file); err != nil {
					t.Errorf("%s leads to %s: %v", path, m[1], err)
				}
			case strings.Contains(m[1], "://"):
				t.Errorf("%s leads to %s", path, m[1])
			default:
				if status := get(t, link).status; status != http.StatusOK {
					t.Errorf("%s leads to %s, which answers %d", path, m[1], status)
				}
			}
		}
	}
}

// TestI12PublishedSpecificationStatesFormatScopeAndTimeAndLeadsSomewhere: the draft
// standard leaves them to the server, and asks it to publish what it has decided. Where
// each link of the page leads is in TestPagesLeadSomewhere; that its numbers are those of
// the code, in internal/transactions.
func TestI12PublishedSpecificationStatesFormatScopeAndTimeAndLeadsSomewhere(t *testing.T) {
	t.Parallel()
	problem := apierr.New(apierr.MissingParameters, "m").AboutKey("Idempotency-Key is missing")
	var told struct{ Type string }
	if err := json.Unmarshal(problem.In(apierr.Problem, "r"), &told); err != nil {
		t.Fatal(err)
	}
	a := get(t, told.Type)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%s, the type of a problem with a key, answers %d, %s", told.Type, a.status, a.header.Get("Content-Type"))
	}
	if link := "<" + told.Type + ">; "; !strings.HasPrefix(apierr.Problem.Link(), link) {
		t.Errorf("problems have the Link %s, which does not lead to %s", apierr.Problem.Link(), told.Type)
	}
	page := readable(a.body)
	for what, words := range map[string][]string{
		"its title":   {"Idempotency keys", "draft-ietf-httpapi-idempotency-key-header"},
		"the format":  {"Syntax", "RFC 9651", `Idempotency-Key: "8e03978e-40d5-43dd-bc93-6894a57f9324"`, "1 to 255"},
		"the scope":   {"What a key is unique for", "For your account and a mode.", "For one request"},
		"the time":    {"How long a key lives", "24 h", "--retention"},
		"fingerprint": {"How two requests are compared"},
		"concurrency": {"Two at once", "409"},
		"the errors":  {"application/problem+json", "400", "422", "Idempotency-Key is already used"},
		"the routes":  {"POST /v1/payments", "/capture", "/cancel", "/refund", "/cancel-or-refund"},
	} {
		for _, w := range words {
			if !strings.Contains(page, w) {
				t.Errorf("the page does not state %s: it has no %q", what, w)
			}
		}
	}
	if index := string(get(t, errorIndexPath).body); !strings.Contains(index, `href="`+apierr.SpecificationPath+`"`) {
		t.Error("the page of all errors does not lead to it")
	}
}

func TestLinksLeadToWhatIsServedWhereItIs(t *testing.T) {
	t.Parallel()
	for link, want := range map[string]string{
		"../errors.md": "/docs/errors", "../errors.md#invalid_amount": "/docs/errors/INVALID_AMOUNT", "../../api/openapi.yaml": "/openapi.yaml",
		"#syntax": "/docs/idempotency#syntax", "idempotency-key.md": "/docs/idempotency", "https://example.com/#a": "https://example.com/#a",
		"limits.md": repository + "docs/reference/limits.md", "../concepts/idempotency.md#leases": repository + "docs/concepts/idempotency.md#leases",
	} {
		if got := (served{specificationFile}).at(link); got != want {
			t.Errorf("%s in %s leads to %s, want %s", link, specificationFile, got, want)
		}
	}
}

// TestPagesMayFetchNothingFromOutside looks at the policy, which is what holds a
// browser whatever a page's program tries.
func TestPagesMayFetchNothingFromOutside(t *testing.T) {
	t.Parallel()
	for _, path := range all(t) {
		a := get(t, path)
		policy := a.header.Get("Content-Security-Policy")
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			continue
		}
		directives := map[string]string{}
		for d := range strings.SplitSeq(policy, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(d), " ")
			directives[name] = value
		}
		for name, value := range directives {
			for source := range strings.FieldsSeq(value) {
				inlineStyle := path == referencePath && name == "style-src" && source == "'unsafe-inline'"
				icon := name == "img-src" && source == "data:"
				if source != "'none'" && source != "'self'" && !inlineStyle && !icon {
					t.Errorf("%s: %s allows %s", path, name, source)
				}
			}
		}
		for _, name := range []string{"default-src", "base-uri", "form-action", "frame-ancestors"} {
			if directives[name] != "'none'" {
				t.Errorf("%s: %s is %q", path, name, directives[name])
			}
		}
	}
}

// TestScalarIsWhatItsChecksumSays, so that nobody edits it, and that what is served
// is what scripts/fetch-scalar.sh fetches.
func TestScalarIsWhatItsChecksumSays(t *testing.T) {
	t.Parallel()
	line, err := os.ReadFile("scalar/standalone.js.sha256")
	if err != nil {
		t.Fatal(err)
	}
	program := unzip(t, scalar)
	sum := sha256.Sum256(program)
	if got := hex.EncodeToString(sum[:]) + "  standalone.js\n"; got != string(line) {
		t.Errorf("it is %s, want %s", got, line)
	}
	script, err := os.ReadFile("../../scripts/fetch-scalar.sh")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^version=(\S+)$`).FindSubmatch(script)
	if m == nil {
		t.Fatal("the script names no version")
	}
	notice, err := os.ReadFile("scalar/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(program, m[1]) || !bytes.Contains(notice, m[1]) {
		t.Errorf("%s is not the version of the file, or not that of scalar/README.md", m[1])
	}
}

// TestTheReferenceShowsThisDocument and asks nobody for it but this server.
func TestTheReferenceShowsThisDocument(t *testing.T) {
	t.Parallel()
	page := string(get(t, referencePath).body)
	m := regexp.MustCompile(`data-configuration="([^"]*)"`).FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("the page configures nothing:\n%s", page)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(html.UnescapeString(m[1])), &got); err != nil {
		t.Fatal(err)
	}
	off := map[string]any{"disabled": true}
	for name, want := range map[string]any{
		"url": "/openapi.yaml", "withDefaultFonts": false, "telemetry": false, "agent": off, "mcp": off, "showDeveloperTools": "never",
		"proxyUrl": "", "hideClientButton": true, "hideTestRequestButton": true, "persistAuth": false,
	} {
		if !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}
