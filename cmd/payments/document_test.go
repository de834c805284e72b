package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oncepay/oncepay/api"
)

// TestTheDocumentHasEveryRouteOfTheProgram compares openapi.yaml with what the
// program itself has mounted on each listener, both ways.
func TestTheDocumentHasEveryRouteOfTheProgram(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(api.Document)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t)
	for port, listener := range map[string]*http.Server{":8080": r.public, ":8081": r.operator} {
		mounted := map[string]bool{}
		for _, name := range r.routes(listener) {
			// Go's profiles are for Go's tools, which know them; pages are for people.
			if _, path, _ := strings.Cut(name, " "); !strings.HasPrefix(path, "/debug/pprof/") && !isPage(listener == r.operator, path) {
				mounted[inDocument(name)] = true
			}
		}
		for path, item := range doc.Paths.Map() {
			servers := item.Servers
			if servers == nil {
				servers = doc.Servers
			}
			for _, s := range servers {
				if !strings.HasSuffix(s.URL, port) {
					continue
				}
				for method := range item.Operations() {
					if name := method + " " + path; !mounted[name] {
						t.Errorf("%s is in the document, but not mounted on %s", name, port)
					} else {
						delete(mounted, name)
					}
				}
			}
		}
		for name := range mounted {
			t.Errorf("%s is mounted on %s, but not in the document like this", name, port)
		}
	}
}

// inDocument is a route in the document's notation. The only thing that follows a
// star is a nonce.
func inDocument(route string) string {
	segments := strings.Split(route, "/")
	for i, s := range segments {
		if name, ok := strings.CutPrefix(s, ":"); ok {
			segments[i] = "{" + name + "}"
		} else if s == "*" {
			segments[i] = "{nonce}"
		}
	}
	return strings.Join(segments, "/")
}
