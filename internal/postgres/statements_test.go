package postgres_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	named    = regexp.MustCompile(`^/\* [a-z]+\.[a-z_]+ \*/`)
	changing = regexp.MustCompile(`\b(INSERT|UPDATE|DELETE|TRUNCATE|MERGE)\b`)
)

// repeatable write the same however often they are executed.
var repeatable = []string{"/* postgres.note_identity */", "/* postgres.accept_identity */"}

// A statement without parameters may be executed twice: pgx (5.12) calls a connection
// that broke while its answer was awaited safe to retry, and database/sql then does. So
// whatever writes has a parameter, or may be repeated.
func TestStatementsThatWriteHaveParameters(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(source, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			sql := literal(e)
			if !named.MatchString(sql) {
				return true
			}
			seen++
			if changing.MatchString(strings.ReplaceAll(sql, "NO KEY UPDATE", "")) && !strings.Contains(sql, "$1") && !slices.Contains(repeatable, named.FindString(sql)) {
				t.Errorf("%s: %s writes, and has no parameter", file, named.FindString(sql))
			}
			return false
		})
	}
	if seen < 30 {
		t.Errorf("only %d statements were found", seen)
	}
}

// literal is what a sum of strings says, as far as it is written there.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return s
		}
	case *ast.BinaryExpr:
		return literal(e.X) + literal(e.Y)
	}
	return ""
}
