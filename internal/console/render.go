package console

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"
)

//go:embed web
var web embed.FS

// contentPolicy is the one of every page: all that it has comes from here, and nothing that
// is in it runs.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// layoutFile is around the content of every page; partsFile has what several of them use.
const (
	layoutFile = "web/layout.html"
	partsFile  = "web/parts.html"
)

// pages are the templates by name: web/payments.html is payments. Each defines "content", and
// what it likes to answer parts with.
var pages = sync.OnceValues(func() (map[string]*template.Template, error) {
	files, err := fs.Glob(web, "web/*.html")
	if err != nil {
		return nil, err
	}
	paths, err := assetPaths()
	if err != nil {
		return nil, err
	}
	all := map[string]*template.Template{}
	for _, file := range files {
		if file == layoutFile || file == partsFile {
			continue
		}
		t, err := template.New(path.Base(layoutFile)).Funcs(functions(paths)).ParseFS(web, layoutFile, partsFile, file)
		if err != nil {
			return nil, fmt.Errorf("the console's templates: %w", err)
		}
		all[strings.TrimSuffix(path.Base(file), ".html")] = t
	}
	return all, nil
})

// functions are those of all templates.
func functions(assets map[string]string) template.FuncMap {
	return template.FuncMap{
		"asset":  func(name string) (string, error) { return known(assets, name) },
		"money":  formatMoney,
		"time":   formatTime,
		"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"nonce":  noncePath,
		"short":  shorten,
		"status": statusClass,
		"ago":    ago,
		"words":  func(code string) []string { return strings.SplitAfter(code, "_") },
	}
}

func known(assets map[string]string, name string) (string, error) {
	at, ok := assets[name]
	if !ok {
		return "", fmt.Errorf("the console has no file %s", name)
	}
	return at, nil
}

// render makes a page, or a part of one.
func render(name, part string, data any) ([]byte, error) {
	all, err := pages()
	if err != nil {
		return nil, err
	}
	t, ok := all[name]
	if !ok {
		return nil, fmt.Errorf("the console has no page %s", name)
	}
	var out bytes.Buffer
	if err := t.ExecuteTemplate(&out, part, data); err != nil {
		return nil, fmt.Errorf("make the page %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// formatMoney writes an amount with its currency.
func formatMoney(amount decimal.Decimal, currency string) string {
	return plainAmount(amount, currency) + " " + currency
}

// formatTime writes a time in UTC, to the second.
func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// shorten shows the end of an id, where those of one time differ.
func shorten(id any) string {
	s := fmt.Sprint(id)
	if len(s) <= 12 {
		return s
	}
	return "…" + s[len(s)-12:]
}

// statusClass says in which colour a status is shown. The word is always there as well.
func statusClass(status any) string {
	switch fmt.Sprint(status) {
	case "SUCCEEDED", "VERIFIED", "WON", "answered":
		return "good"
	case "DECLINED", "REJECTED", "ERROR", "EXPIRED", "CHARGEBACK", "LOST", "parked":
		return "bad"
	case "PENDING", "CREATED", "IN_DISPUTE", "open", "unresolved", "unknown", "accepted":
		return "waiting"
	}
	return "quiet"
}

// ago says how long something has lasted, in its largest unit.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than a second"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
