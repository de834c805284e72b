package console

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestHtmxIsWhatItsChecksumSays, so that nobody edits it, and that what is served is what
// scripts/fetch-htmx.sh fetches.
func TestHtmxIsWhatItsChecksumSays(t *testing.T) {
	t.Parallel()
	f, err := builtFiles()
	if err != nil {
		t.Fatal(err)
	}
	program := f.byName[strings.TrimPrefix(f.paths["htmx.js"], assetsPath)].body
	line, err := os.ReadFile("htmx/htmx.min.js.sha256")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	if got := hex.EncodeToString(sum[:]) + "  htmx.min.js\n"; got != string(line) {
		t.Errorf("it is %s, want %s", got, line)
	}
	script, err := os.ReadFile("../../scripts/fetch-htmx.sh")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^version=(\S+)$`).FindSubmatch(script)
	if version == nil {
		t.Fatal("the script names no version")
	}
	notice, err := os.ReadFile("htmx/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(program, append([]byte(`"`), version[1]...)) || !bytes.Contains(notice, version[1]) {
		t.Errorf("%s is not the version of the file, or not that of htmx/README.md", version[1])
	}
}

// inline is what the pages' policy would not let run, or show: a browser would say so in its
// console, and a page would be without it.
var inline = regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?:>|\s[^>]*>[^<])|javascript:|hx-on|hx-vals="js|hx-trigger="[^"]*\[`)

func TestNoTemplateNeedsWhatThePolicyForbids(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(web, "web/*.html")
	if err != nil || len(names) < 15 {
		t.Fatalf("%d templates, %v", len(names), err)
	}
	for _, name := range names {
		body, err := fs.ReadFile(web, name)
		if err != nil {
			t.Fatal(err)
		}
		if found := inline.Find(body); found != nil {
			t.Errorf("%s has %q", name, found)
		}
	}
}

// The files of the pages need no session, have their hash in their names, and may be kept.
func TestFilesOfThePagesAreServedForGood(t *testing.T) {
	t.Parallel()
	b := newConsole(t).nobody()
	paths, err := assetPaths()
	if err != nil || len(paths) < 4 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for name, path := range paths {
		a := b.get(path)
		if a.status != http.StatusOK || len(a.body) < 100 || !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d, %d bytes, %q", name, a.status, len(a.body), a.header.Get("Cache-Control"))
		}
	}
	if a := b.get(assetsPath + "console.0000000000000000.js"); a.status != http.StatusNotFound {
		t.Errorf("another release's file: %d", a.status)
	}
}
