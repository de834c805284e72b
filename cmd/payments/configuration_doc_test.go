package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// configurationPage is what operators read instead of this code. Its tables of commands
// and flags are made of the program, so that who adds one writes about it once, in its
// help:
//
//	go test ./cmd/payments -run TestConfigurationPage -update
const configurationPage = "../../docs/reference/configuration.md"

var updatePage = flag.Bool("update", false, "write the parts of "+configurationPage+" that are made of the program")

// TestConfigurationPageIsMadeOfTheProgram: every command, and every flag with its
// variable, unit and default, and no others. It is not parallel, because it may write
// what the tests below read.
func TestConfigurationPageIsMadeOfTheProgram(t *testing.T) {
	var c cli
	program, err := kong.New(&c, kong.Name("payments"), kong.DefaultEnvars("PAYMENTS"), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	was := readPage(t)
	is := withPart(t, was, "commands", commandsTable(program.Model))
	is = withPart(t, is, "flags", flagsTable(t, program.Model))
	if is == was {
		return
	}
	if *updatePage {
		if err := os.WriteFile(configurationPage, []byte(is), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	theirs := strings.Split(is, "\n")
	for _, line := range strings.Split(was, "\n") {
		if !slices.Contains(theirs, line) {
			t.Errorf("the page says, and the program does not: %s", line)
		}
	}
	t.Errorf("%s is not what the program is made of: run this test with -update, and read what it made", configurationPage)
}

func readPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(configurationPage)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// withPart is the page with another text between two of its comments.
func withPart(t *testing.T, page, part, text string) string {
	t.Helper()
	begin, end := "<!-- "+part+": made of the program -->\n", "<!-- end of "+part+" -->\n"
	before, rest, begun := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatalf("%s has no part between %q and %q", configurationPage, begin, end)
	}
	return before + begin + "\n" + text + "\n" + end + after
}

// commandsTable has each command with its arguments, and all that its help says.
func commandsTable(program *kong.Application) string {
	rows := []string{"| command | what it does |", "|---|---|"}
	for _, leaf := range program.Leaves(false) {
		name := leaf.FullPath()
		for _, p := range leaf.Positional {
			name += " " + strings.ToUpper(p.Name)
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s |", name, prose(strings.TrimSpace(leaf.Help+" "+leaf.Detail))))
	}
	return strings.Join(rows, "\n") + "\n"
}

// flagRow is a line of the table of flags; commands that have the same flag share it.
type flagRow struct {
	flag, variable, takes, standard, help string
}

func flagsTable(t *testing.T, program *kong.Application) string {
	t.Helper()
	var order []flagRow
	commands := map[flagRow][]string{}
	for _, leaf := range program.Leaves(false) {
		for _, group := range leaf.AllFlags(false) {
			for _, f := range group {
				if f.Name == "help" {
					continue
				}
				if f.Help == "" {
					t.Errorf("%s --%s has no help", leaf.FullPath(), f.Name)
				}
				row := rowOf(t, f)
				if commands[row] == nil {
					order = append(order, row)
				}
				commands[row] = append(commands[row], strings.TrimPrefix(leaf.FullPath(), program.Name+" "))
			}
		}
	}
	rows := []string{"| flag | commands | variable | takes | default | what it sets, and its limits |", "|---|---|---|---|---|---|"}
	for _, r := range order {
		rows = append(rows, fmt.Sprintf("| `--%s` | %s | %s | %s | %s | %s |", r.flag, commandsOf(program, commands[r]), r.variable, r.takes, r.standard, r.help))
	}
	return strings.Join(rows, "\n") + "\n"
}

// commandsOf names commands, and those that are all of a group by the group.
func commandsOf(program *kong.Application, commands []string) string {
	var names []string
	for _, top := range program.Children {
		leaves := top.Leaves(false)
		if len(leaves) == 0 { // it is no group
			leaves = []*kong.Node{top}
		}
		var some []string
		for _, leaf := range leaves {
			if name := strings.TrimPrefix(leaf.FullPath(), program.Name+" "); slices.Contains(commands, name) {
				some = append(some, "`"+name+"`")
			}
		}
		if len(some) == len(leaves) {
			some = []string{"`" + top.Name + "`"}
		}
		names = append(names, some...)
	}
	return strings.Join(names, ", ")
}

func rowOf(t *testing.T, f *kong.Flag) flagRow {
	t.Helper()
	standard, help := f.Default, f.Help
	if d, ok := computedDefaults(t)[f.Name]; ok {
		standard = d
	}
	help = strings.Replace(help, " (default "+standard+").", ".", 1)
	row := flagRow{flag: f.Name, variable: "none", takes: takes(f), help: prose(help)}
	if len(f.Envs) > 0 {
		row.variable = "`" + strings.Join(f.Envs, "`, `") + "`"
	}
	switch {
	case f.Required:
		row.standard = "required"
	case standard != "":
		row.standard = "`" + standard + "`"
	case f.IsBool():
		row.standard = "off"
	}
	return row
}

// computedDefaults are worked out in config.go, and stand nowhere in kong's model.
func computedDefaults(t *testing.T) map[string]string {
	t.Helper()
	f := usualFlags()
	got, err := f.times()
	if err != nil {
		t.Fatal(err)
	}
	computed := map[string]string{}
	for name, d := range map[string]time.Duration{"provider-timeout": got.providerTimeout, "settle": got.settle, "lease": got.lease} {
		computed[name] = strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
	}
	return computed
}

// takes is what a flag's value is, in the words that the page explains.
func takes(f *kong.Flag) string {
	what := f.PlaceHolder
	switch kind := f.Target.Type(); {
	case f.IsBool():
		return ""
	case f.Enum != "":
		return "`" + strings.ReplaceAll(f.Enum, ",", "` or `") + "`"
	case what != "":
	case kind == reflect.TypeFor[time.Duration](), kind == reflect.TypeFor[*time.Duration]():
		what = "DURATION"
	case kind.Kind() == reflect.Int:
		what = "N"
	case f.Tag.Type == "path":
		what = "PATH"
	default:
		what = "TEXT"
	}
	if f.IsSlice() {
		what += ",…"
	}
	return what
}

// named is what stands in ticks on a page: flags, variables and addresses.
var named = regexp.MustCompile(`--[a-z][a-z-]+|\b[A-Z]+(?:_[A-Z]+)+\b|\b\d+\.\d+\.\d+\.\d+(?::\d+|/\d+)?\b`)

// prose is a help's text as it stands in a table.
func prose(help string) string {
	var parts []string
	for i, part := range strings.Split(help, "`") { // the odd ones are in ticks already
		if i%2 == 0 {
			part = named.ReplaceAllString(strings.ReplaceAll(part, "|", "\\|"), "`$0`")
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "`")
}

// pageTable are the cells of the rows below a table's header.
func pageTable(t *testing.T, header string) [][]string {
	t.Helper()
	_, rest, there := strings.Cut(readPage(t), "\n"+header+"\n")
	if !there {
		t.Fatalf("%s has no table with the header %s", configurationPage, header)
	}
	var rows [][]string
	for line := range strings.SplitSeq(rest, "\n") {
		if strings.HasPrefix(line, "|---") {
			continue
		}
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// ticked are the words of a cell that stand in ticks.
func ticked(cell string) []string {
	var words []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		words = append(words, m[1])
	}
	return words
}

// TestExitCodesOnThePageAreThoseOfTheProgram compares numbers and names.
func TestExitCodesOnThePageAreThoseOfTheProgram(t *testing.T) {
	t.Parallel()
	var codes []string
	for _, row := range pageTable(t, "| code | means | for instance |") {
		codes = append(codes, row[0]+" "+row[1])
	}
	want := []string{
		fmt.Sprintf("%d fine", exitOK), fmt.Sprintf("%d failed", exitFailed), fmt.Sprintf("%d usage", exitUsage),
		fmt.Sprintf("%d not found", exitNotFound), fmt.Sprintf("%d unavailable", exitUnavailable),
		fmt.Sprintf("%d forced", exitForced),
	}
	if !slices.Equal(codes, want) {
		t.Errorf("the page has the exit codes %q, the program %q", codes, want)
	}
}

// TestVariablesOnThePageAreThoseOfTheProgram: those that are no flags are constants
// called env…, and nothing reads any other.
func TestVariablesOnThePageAreThoseOfTheProgram(t *testing.T) {
	t.Parallel()
	want := append(variablesRead(t), "TEST_DATABASE_URL") // pgtest reads it
	var got []string
	for _, row := range pageTable(t, "| variable | who reads it | default | what it is |") {
		got = append(got, ticked(row[0])[0])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the page has the variables %q, the program %q", got, want)
	}
}

// variablesRead are the values of this package's constants called env…. A variable that
// is read by another name is an error.
func variablesRead(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || name == "faultpoints.go" { // not in the product
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, id := range n.Names {
					if v, ok := literal(n.Values, i); ok && strings.HasPrefix(id.Name, "env") && !strings.HasPrefix(v, "_") {
						variables = append(variables, v)
					}
				}
			case *ast.CallExpr:
				if v, ok := literal(n.Args, 0); ok && slices.Contains([]string{"Getenv", "LookupEnv", "setting", "findSetting", "databaseSetting"}, called(n)) {
					t.Errorf("%s reads %s: name it by a constant env…", name, v)
				}
			}
			return true
		})
	}
	return variables
}

// literal is the i-th expression, if it is a text as it stands.
func literal(list []ast.Expr, i int) (string, bool) {
	if i >= len(list) {
		return "", false
	}
	l, ok := list[i].(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

// called is the last name of a function that is called.
func called(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// TestFilesOfDevOnThePageAreThoseOfTheProgram compares their names.
func TestFilesOfDevOnThePageAreThoseOfTheProgram(t *testing.T) {
	t.Parallel()
	var files []string
	for _, row := range pageTable(t, "| file | what it is |") {
		files = append(files, ticked(row[0])...)
	}
	for _, name := range []string{devFile, secretsFile, lockFile} {
		if !slices.Contains(files, name) {
			t.Errorf("the page does not explain the file %s", name)
		}
	}
}
