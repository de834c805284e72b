package console

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/operators"
)

func TestShotsMerchants(t *testing.T) {
	if os.Getenv("SHOTSM") == "" {
		t.Skip()
	}
	w := newConsole(t)
	b := w.as(operators.Admin)
	ada := w.as(operators.Operator)
	saved := map[string]string{}
	saved["secret-merchant"] = b.post(pathMerchants, sent("name", "Corner shop of a family with a rather long name that goes on and on", "policy", "novu", "origins", "https://shop.example\nhttps://checkout.a-long-name-of-a-shop.example:8443")).body
	m := w.account
	for i := range 3 {
		w.newMerchant(fmt.Sprintf("Shop %d", i))
	}
	b.post(merchantPath(m), sent("name", "First merchant", "policy", "yuno", "origins", "https://shop.example\nhttps://www.shop.example", "shown", merchantDigest(w.merchant(m))))
	saved["secret-key"] = b.post(merchantPath(m)+"/keys", sent("mode", "live", "networks", "203.0.113.0/24\n2001:db8::/32")).body
	saved["secret-rotate"] = b.post(keyPath(m, w.keys.ID)+"/rotate", sent("overlap_seconds", "86400")).body
	live := w.keysOf(m)[1]
	b.post(merchantPath(m)+"/keys", sent("mode", "test"))
	gone := w.keysOf(m)[0]
	b.post(keyPath(m, gone.ID)+"/revoke", sent())
	saved["secret-invite"] = b.post(pathOperators, sent("name", "grace", "role", "operator")).body
	saved["secret-token"] = b.post(pathTokens, sent("name", "nightly report", "scope", "viewer", "days", "30")).body
	b.post(pathTokens, sent("name", "old job", "scope", "admin", "days", "30"))
	ts, _ := w.operators.Tokens(t.Context(), uuid.Nil, 1)
	b.post(pathTokens+"/"+ts[0].ID.String()+"/revoke", sent())
	b.post("/operators/"+ada.Name+"/role", sent("role", "viewer"))
	saved["verify"] = b.post(pathAudit+"/verify", sent()).body
	saved["refused"] = b.post(pathMerchants, sent("name", "Shop", "policy", "yuno", "origins", "https://shop.example/path")).body
	saved["lastadmin"] = b.post("/operators/admin/disable", sent()).body
	target, _ := url.Parse(w.URL)
	proxy := httputil.NewSingleHostReverseProxy(target)
	cookies := b.client.Jar.Cookies(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Content-Security-Policy", strings.Replace(r.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'", "", 1))
		if r.Request.Header.Get("X-Open") != "" && strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
			body, _ := io.ReadAll(r.Body)
			body = bytes.ReplaceAll(body, []byte(`<details class="action">`), []byte(`<details class="action" open>`))
			body = bytes.ReplaceAll(body, []byte(`<td><details>`), []byte(`<td><details open>`))
			r.Body = io.NopCloser(bytes.NewReader(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			r.ContentLength = int64(len(body))
		}
		return nil
	}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/narrow" {
			rw.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(rw, `<body style="margin:0;background:#888"><iframe src="%s" style="width:390px;height:1790px;border:0"></iframe>`, r.URL.Query().Get("u"))
			return
		}
		if body, ok := saved[strings.TrimPrefix(r.URL.Path, "/saved/")]; ok {
			rw.Header().Set("Content-Type", "text/html; charset=utf-8")
			rw.Header().Set("Content-Security-Policy", strings.Replace(contentPolicy, "frame-ancestors 'none'", "", 1))
			_, _ = io.WriteString(rw, body)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/open/") {
			r.URL.Path = strings.TrimPrefix(r.URL.Path, "/open")
			r.Header.Set("X-Open", "1")
			r.Header.Del("Accept-Encoding")
		}
		for _, k := range cookies {
			r.AddCookie(k)
		}
		r.Host = target.Host
		proxy.ServeHTTP(rw, r)
	}))
	defer s.Close()
	pages := map[string]string{
		"merchants": "/merchants", "merchants-open": "/open/merchants", "merchant": merchantPath(m) + "?done=merchant-updated", "merchant-open": "/open" + merchantPath(m),
		"key-expiring": keyPath(m, w.keys.ID), "key-open": "/open" + keyPath(m, live.ID), "key-revoked": keyPath(m, gone.ID),
		"operators": "/operators", "operators-open": "/open/operators", "operator-open": "/open/operators/admin", "operator": "/operators/" + ada.Name, "audit": "/audit", "audit-none": "/audit?actor=nobody-is-called-so",
	}
	for name := range saved {
		pages[name] = "/saved/" + name
	}
	only := os.Getenv("ONLY")
	for name, path := range pages {
		if only != "" && !strings.Contains(","+only+",", ","+name+",") {
			continue
		}
		for _, v := range strings.Fields(os.Getenv("SHOTSM")) {
			u, size := s.URL+path, "1280,1700"
			if strings.HasPrefix(v, "narrow") {
				u, size = s.URL+"/narrow?u="+url.QueryEscape(path), "500,1800"
			}
			args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--window-size=" + size, "--screenshot=/tmp/shots-merchants/" + name + "-" + v + ".png"}
			if strings.HasSuffix(v, "dark") {
				args = append(args, "--blink-settings=preferredColorScheme=0")
			}
			out, err := exec.CommandContext(t.Context(), "chromium", append(args, u)...).CombinedOutput()
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "CONSOLE") {
					t.Log(name, v, line)
				}
			}
			if err != nil {
				t.Log(name, err)
			}
		}
	}
}
