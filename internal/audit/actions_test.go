package audit

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// anAction is what an action looks like, wherever it is written.
var anAction = regexp.MustCompile(`^(merchant|key|transaction|payment|operator|token)\.[a-z_]+$`)

// The page for operators lists the actions. Who adds one says there what it means.
func TestPageListsEveryAction(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operate/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for line := range strings.SplitSeq(string(page), "\n") {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
			if strings.HasPrefix(line, "| ") && anAction.MatchString(m[1]) {
				listed[m[1]] = true
			}
		}
	}
	written := actionsWritten(t)
	for _, a := range slices.Sorted(maps.Keys(written)) {
		if !listed[a] {
			t.Errorf("docs/operate/audit.md does not list %s, which %s writes", a, written[a])
		}
	}
	for _, a := range slices.Sorted(maps.Keys(listed)) {
		if written[a] == "" {
			t.Errorf("docs/operate/audit.md lists %s, which nobody writes", a)
		}
	}
}

// actionsWritten are the actions in the files that write entries, with one of the files.
func actionsWritten(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(source.Imports, func(i *ast.ImportSpec) bool {
			return i.Path.Value == `"github.com/oncepay/oncepay/internal/audit"`
		}) {
			continue
		}
		ast.Inspect(source, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil && anAction.MatchString(text) {
					written[text] = file
				}
			}
			return true
		})
	}
	return written
}
