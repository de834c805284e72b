// These tests hold what the pages say against what the code does.
package docs

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// limitRow is a line of limits.md: what, number, why, and the constant's folder and
// name.
var limitRow = regexp.MustCompile("^\\| (.+?) \\| ([^|]+) \\| ([^|]*)\\| `([^`]+)` `([^`]+)` \\|$")

// TestLimitsAreThoseOfTheCode: a number that is written down twice is wrong once.
func TestLimitsAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("reference/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	folders := map[string]map[string]constant.Value{}
	for line := range strings.SplitSeq(string(page), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| limit |") {
			continue
		}
		m := limitRow.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("this line cannot be read: %s", line)
			continue
		}
		rows++
		what, number, folder, name := m[1], m[2], m[4], m[5]
		if folders[folder] == nil {
			folders[folder] = constantsIn(t, filepath.Join("..", folder))
		}
		got, ok := folders[folder][name]
		if !ok {
			t.Errorf("%s: %s has no constant %s of a simple kind", what, folder, name)
			continue
		}
		want, err := quantity(strings.TrimSpace(number))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if !constant.Compare(constant.ToInt(got), token.EQL, constant.MakeInt64(want)) {
			t.Errorf("%s: the page says %s, which is %d; %s is %s", what, number, want, name, got)
		}
	}
	if rows < 80 {
		t.Errorf("only %d limits were found", rows)
	}
}

// units are what may follow a number; times are in nanoseconds, as in Go.
var units = map[string]int64{
	"": 1, "KiB": 1 << 10, "MiB": 1 << 20,
	"ms": int64(time.Millisecond), "s": int64(time.Second), "min": int64(time.Minute), "h": int64(time.Hour), "d": 24 * int64(time.Hour),
}

func quantity(text string) (int64, error) {
	number, unit, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	factor, known := units[unit]
	if err != nil || !known {
		return 0, fmt.Errorf("%q is no number with a unit", text)
	}
	return n * factor, nil
}

// constantsIn evaluates the constants of a package that are made of literals, of
// each other and of package time's units. Others are left out.
func constantsIn(t *testing.T, folder string) map[string]constant.Value {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no Go files: %v", folder, err)
	}
	expressions := map[string]ast.Expr{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v, ok := s.(*ast.ValueSpec)
				if !ok || len(v.Values) != len(v.Names) {
					continue
				}
				for i, n := range v.Names {
					expressions[n.Name] = v.Values[i]
				}
			}
		}
	}
	values := map[string]constant.Value{}
	for name, e := range expressions {
		if v := evaluate(e, expressions, 0); v.Kind() == constant.Int {
			values[name] = v
		}
	}
	return values
}

var timeUnits = map[string]time.Duration{
	"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour,
}

func evaluate(e ast.Expr, known map[string]ast.Expr, depth int) constant.Value {
	if depth > 10 {
		return constant.MakeUnknown()
	}
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0)
	case *ast.ParenExpr:
		return evaluate(e.X, known, depth+1)
	case *ast.Ident:
		if other, ok := known[e.Name]; ok {
			return evaluate(other, known, depth+1)
		}
	case *ast.SelectorExpr:
		if unit, ok := timeUnits[e.Sel.Name]; ok {
			return constant.MakeInt64(int64(unit))
		}
	case *ast.BinaryExpr:
		x, y := evaluate(e.X, known, depth+1), evaluate(e.Y, known, depth+1)
		if x.Kind() != constant.Int || y.Kind() != constant.Int {
			break
		}
		if e.Op == token.SHL {
			bits, _ := constant.Uint64Val(y)
			return constant.Shift(x, token.SHL, uint(bits))
		}
		return constant.BinaryOp(x, e.Op, y)
	}
	return constant.MakeUnknown()
}

// link is one of a page's; anchor is what a heading becomes on GitHub.
var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code      = regexp.MustCompile("(?s)```.*?```")
	notAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// TestLinksLead to a file that is there, and to a heading that it has.
func TestLinksLead(t *testing.T) {
	t.Parallel()
	anchors := map[string]map[string]bool{}
	err := filepath.WalkDir(".", func(page string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(page) != ".md" {
			return err
		}
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(string(text), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[1])
				continue
			}
			if anchors[target] == nil {
				anchors[target] = anchorsOf(t, target)
			}
			if anchor != "" && !anchors[target][anchor] {
				t.Errorf("%s: %s has no heading for #%s", page, target, anchor)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func anchorsOf(t *testing.T, page string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(code.ReplaceAllString(string(text), ""), "\n") {
		if heading := strings.TrimLeft(line, "#"); heading != line {
			name := notAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
			found[strings.ReplaceAll(name, " ", "-")] = true
		}
	}
	return found
}
