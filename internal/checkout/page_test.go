package checkout

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/sdk/js"
)

// What a browser makes of the page is tested in sdk/js, with a real one.

var (
	openPage    = uuid.Must(uuid.NewV7())
	expiredPage = uuid.Must(uuid.NewV7())
	brokenPage  = uuid.Must(uuid.NewV7())
)

// askPage asks the real edge for a page or a file.
func askPage(t *testing.T, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	e := httpapi.New(httpapi.Options{
		Log:       slog.New(slog.DiscardHandler),
		Transient: func(error) bool { return true }, Describe: func(error) string { return "" },
	})
	NewPageHandler(func(_ context.Context, id uuid.UUID) (PageSession, bool, error) {
		s := PageSession{
			ID: id, Mode: "live", Workflow: "SDK_SEAMLESS", PublicKey: "prod_x", MerchantName: `<b>"Shop" & sons`,
			CallbackURL: "https://shop.example/?a=1&b=2", Origins: []string{"https://shop.example"}, Expired: id == expiredPage,
		}
		if id == brokenPage {
			return PageSession{}, false, errors.New("the database is away")
		}
		return s, id == openPage || id == expiredPage, nil
	}).Mount(e)
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, req)
	return rec
}

// TestAPersonAlwaysGetsAPage in a language of theirs, whatever became of the session.
func TestAPersonAlwaysGetsAPage(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]struct {
		status int
		says   string
		script bool
	}{
		openPage.String():                      {http.StatusOK, "Esta página precisa de JavaScript", true},
		expiredPage.String():                   {http.StatusGone, "Esta página expirou", true},
		uuid.NewString():                       {http.StatusNotFound, "Não há pagamento aqui", false},
		"nonsense":                             {http.StatusNotFound, "Não há pagamento aqui", false},
		strings.ToUpper(openPage.String())[1:]: {http.StatusNotFound, "Não há pagamento aqui", false},
		brokenPage.String():                    {http.StatusServiceUnavailable, "Não podemos mostrar esta página agora", false},
	} {
		rec := askPage(t, "/pay/"+path+"?lang=pt-BR")
		body := rec.Body.String()
		if rec.Code != want.status || !strings.Contains(body, want.says) || !strings.Contains(body, `<html lang="pt">`) {
			t.Errorf("%s: %d, %s", path, rec.Code, body)
		}
		if got := strings.Contains(body, "<script"); got != want.script {
			t.Errorf("%s: it has a script: %v", path, got)
		}
		if got := rec.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
			t.Errorf("%s: it is %s", path, got)
		}
		if policy := rec.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "frame-ancestors 'self'") {
			t.Errorf("%s: its policy is %q", path, policy)
		}
	}
}

// TestWhatAMerchantIsCalledIsNoMarkup on the page.
func TestWhatAMerchantIsCalledIsNoMarkup(t *testing.T) {
	t.Parallel()
	body := askPage(t, "/pay/"+openPage.String()).Body.String()
	if strings.Contains(body, "<b>") || strings.Contains(body, `"<`) {
		t.Errorf("the merchant's name is markup: %s", body)
	}
	for _, want := range []string{`data-live="true"`, `data-origins="https://shop.example"`, `data-callback-url="https://shop.example/?a=1&amp;b=2"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %s: %s", want, body)
		}
	}
}

// TestFilesAreServedInBothForms, each under its own tag, and known again by either.
func TestFilesAreServedInBothForms(t *testing.T) {
	t.Parallel()
	plain := askPage(t, sdkPath)
	if plain.Header().Get("Content-Encoding") != "" || !bytes.Equal(plain.Body.Bytes(), js.SDK) {
		t.Errorf("the plain form: %q, %d bytes", plain.Header().Get("Content-Encoding"), plain.Body.Len())
	}
	zipped := askPage(t, sdkPath, "Accept-Encoding", "br, gzip")
	r, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	if err != nil || zipped.Header().Get("Content-Encoding") != "gzip" || !bytes.Equal(body, js.SDK) {
		t.Errorf("the packed form: %q, %d bytes, %v", zipped.Header().Get("Content-Encoding"), len(body), err)
	}
	tags := []string{plain.Header().Get("ETag"), zipped.Header().Get("ETag")}
	if tags[0] == tags[1] || plain.Header().Get("Vary") != "Accept-Encoding" {
		t.Errorf("tags %q, Vary %q", tags, plain.Header().Get("Vary"))
	}
	for _, tag := range append(tags, "*", `"x", W/`+tags[0]) {
		if rec := askPage(t, sdkPath, "If-None-Match", tag); rec.Code != http.StatusNotModified || rec.Body.Len() != 0 {
			t.Errorf("%s: %d", tag, rec.Code)
		}
	}
	if rec := askPage(t, sdkPath, "Accept-Encoding", "gzip;q=0", "If-None-Match", `"x"`); rec.Code != http.StatusOK || rec.Header().Get("Content-Encoding") != "" {
		t.Errorf("who refuses gzip gets %d, %q", rec.Code, rec.Header().Get("Content-Encoding"))
	}
}

// TestOriginsThatAreNoneStayOutOfThePolicy: one with a semicolon would write its own.
func TestOriginsThatAreNoneStayOutOfThePolicy(t *testing.T) {
	t.Parallel()
	got := frameOrigins([]string{"https://a.example", "http://localhost:3000", "http://[::1]:80", "https://", "*", "https://a.example/path", "https://x; script-src *", "https://a b", "javascript:x", ""})
	if want := "https://a.example http://localhost:3000 http://[::1]:80"; strings.Join(got, " ") != want {
		t.Errorf("got %q", got)
	}
}
