package mutants

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/oncepay/oncepay/internal/pgtest"
)

// A defect in SQL that PostgreSQL refuses would be caught by anything, and prove
// nothing. So each statement of a mutant that changes some is executed.
func TestStatementsOfEveryMutantRun(t *testing.T) {
	t.Parallel()
	product := statements(t, Mutant{Name: "none"})
	if len(product) < 20 {
		t.Fatalf("only %d statements were found in the product", len(product))
	}
	for _, m := range All() {
		changed := statements(t, m)
		maps.DeleteFunc(changed, func(name, sql string) bool { return product[name] == sql && m.Setup == "" })
		if len(changed) == 0 {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.URL(t)
			if m.Setup != "" {
				pgtest.Exec(t, url, m.Setup)
			}
			conn, err := pgx.Connect(t.Context(), pgtest.Direct(url))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
			for _, name := range slices.Sorted(maps.Keys(changed)) {
				if err := execute(t.Context(), conn, changed[name]); err != nil {
					t.Errorf("%s: %v\n%s", name, err, changed[name])
				}
			}
		})
	}
}

// execute runs a statement on made-up values and undoes it. A constraint that they
// break is no fault of the statement.
func execute(ctx context.Context, conn *pgx.Conn, sql string) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	prepared, err := tx.Prepare(ctx, sql, sql)
	if err != nil {
		return err
	}
	args := make([]any, len(prepared.ParamOIDs))
	for i, oid := range prepared.ParamOIDs {
		args[i] = someValue(oid)
	}
	_, err = tx.Exec(ctx, sql, args...)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(pg.Code, "23") {
		return nil
	}
	return err
}

// someValue is a value of that type.
func someValue(oid uint32) any {
	switch oid {
	case pgtype.BoolOID:
		return true
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.NumericOID:
		return 1
	case pgtype.TimestamptzOID:
		return time.Now()
	case pgtype.ByteaOID:
		return []byte("x")
	case pgtype.JSONBOID:
		return "[]"
	case pgtype.TextArrayOID, pgtype.UUIDArrayOID:
		return []string{}
	}
	return "00000000-0000-0000-0000-000000000001" // an id, or a text that may be one
}

// statements are the named statements of the packages that mutants edit, as they are
// with m's edits, by the name of their constant.
func statements(t *testing.T, m Mutant) map[string]string {
	t.Helper()
	dir := t.TempDir()
	file, err := Overlay(moduleRoot(t), dir, m)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(b, &overlay); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, folder := range []string{filepath.Dir(storeFile), filepath.Dir(purgeFile)} {
		files, err := filepath.Glob(filepath.Join(moduleRoot(t), folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		if _, added := overlay.Replace[filepath.Join(moduleRoot(t), addedFile)]; added && folder == filepath.Dir(addedFile) {
			files = append(files, filepath.Join(moduleRoot(t), addedFile))
		}
		constants := constants{}
		for _, f := range files {
			if edited, ok := overlay.Replace[f]; ok {
				f = edited
			}
			if !strings.HasSuffix(f, "_test.go") {
				constants.read(t, f)
			}
		}
		for name, value := range constants {
			if sql, ok := constants.text(value); ok && strings.HasPrefix(sql, "/* ") {
				found[folder+"."+name] = sql
			}
		}
	}
	return found
}

// constants are a package's, by name. Statements are put together from several, in
// several files.
type constants map[string]ast.Expr

func (c constants) read(t *testing.T, file string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.CONST {
			continue
		}
		for _, s := range decl.Specs {
			spec := s.(*ast.ValueSpec)
			for i, value := range spec.Values {
				c[spec.Names[i].Name] = value
			}
		}
	}
}

// text is the value of a constant, if it is a text.
func (c constants) text(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		x, ok := c.text(e.X)
		y, too := c.text(e.Y)
		return x + y, ok && too && e.Op == token.ADD
	case *ast.Ident:
		return c.text(c[e.Name])
	}
	return "", false
}
