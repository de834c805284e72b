package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	caseRow  = regexp.MustCompile(`^\| ([YNFIH]\d\d) \| [^|]+ \| (.+) \|$`)
	caseTest = regexp.MustCompile("`(Test\\w+)` in `([\\w/.-]+)`")
)

// TestCasesAreShownByTestsThatExist: a behaviour without a test is a hope.
func TestCasesAreShownByTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("reference/cases.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	numbers := map[string]bool{}
	for line := range strings.SplitSeq(string(page), "\n") {
		m := caseRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		numbers[m[1]] = true
		tests := caseTest.FindAllStringSubmatch(m[2], -1)
		if len(tests) == 0 {
			t.Errorf("%s names no test", m[1])
		}
		for _, test := range tests {
			listed[test[2]+" "+test[1]] = true
		}
	}
	if len(numbers) != 156 {
		t.Fatalf("%d behaviours could be read, and there are 156", len(numbers))
	}
	there := testsIn(t, "..")
	for name := range listed {
		if !there[name] {
			t.Errorf("%s is named, and does not exist", name)
		}
	}
	numbered := regexp.MustCompile(`^Test((?:(?:And)?[YNFIH]\d\d)+)`)
	for name := range there {
		_, test, _ := strings.Cut(name, " ")
		if m := numbered.FindStringSubmatch(test); m != nil && numbers[m[1]] && !listed[name] {
			t.Errorf("%s carries a number of the page and is not on it", name)
		}
	}
}

// testsIn are all tests below root, as "folder Name".
func testsIn(t *testing.T, root string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				found[filepath.ToSlash(folder)+" "+f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
