package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// configurationPage is what operators read instead of this code.
const configurationPage = "../../docs/reference/configuration.md"

// pageTable are the cells of the rows below a table's header, without the ticks.
func pageTable(t *testing.T, header string) [][]string {
	t.Helper()
	page, err := os.ReadFile(configurationPage)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "\n"+header+"\n")
	if !found {
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

// pageFlag is a flag of one command as the page has it; "" is no default.
type pageFlag struct{ variable, value string }

// TestFlagsOnThePageAreThoseOfTheProgram: each command's flags, with variable and
// default, and no others.
func TestFlagsOnThePageAreThoseOfTheProgram(t *testing.T) {
	t.Parallel()
	onPage := map[string]pageFlag{}
	for _, row := range pageTable(t, "| flag | commands | variable | default | what it sets, and its limits |") {
		flag := strings.TrimPrefix(ticked(row[0])[0], "--")
		value := ""
		if words := ticked(row[3]); strings.HasPrefix(row[3], "`") {
			value = words[0]
		}
		for _, command := range ticked(row[1]) {
			variable := ""
			if words := ticked(row[2]); len(words) > 0 {
				variable = words[0]
			}
			onPage[command+" "+flag] = pageFlag{variable, value}
		}
	}

	var c cli
	parser, err := kong.New(&c, kong.DefaultEnvars("PAYMENTS"), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	// Defaults that are worked out in config.go, and stand nowhere in the model.
	workedOut, err := serverFlags{Listen: ":0", AdminListen: ":0", RecoveryInterval: 1, Retention: minRetention, ShutdownTimeout: 1}.times()
	if err != nil {
		t.Fatal(err)
	}
	computed := map[string]fmt.Stringer{
		"provider-timeout": workedOut.providerTimeout, "settle": workedOut.settle, "lease": workedOut.lease,
	}
	for _, leaf := range parser.Model.Leaves(false) {
		command := strings.TrimPrefix(leaf.FullPath(), parser.Model.Name+" ")
		for _, group := range leaf.AllFlags(false) {
			for _, f := range group {
				if f.Name == "help" {
					continue
				}
				name := command + " " + f.Name
				got, ok := onPage[name]
				if !ok {
					t.Errorf("%s --%s is not on the page", command, f.Name)
					continue
				}
				delete(onPage, name)
				if strings.Join(f.Envs, " ") != got.variable {
					t.Errorf("%s --%s reads %v, the page says %s", command, f.Name, f.Envs, got.variable)
				}
				want := f.Default
				if d, ok := computed[f.Name]; ok {
					want = d.String()
				}
				if want == "1m0s" {
					want = "60s" // as people write it
				}
				if got.value != want {
					t.Errorf("%s --%s is %q by default, the page says %q", command, f.Name, want, got.value)
				}
			}
		}
	}
	for name := range onPage {
		t.Errorf("there is no flag for %q, which is on the page", name)
	}
}

// TestCommandsOnThePageAreThoseOfTheProgram compares their names.
func TestCommandsOnThePageAreThoseOfTheProgram(t *testing.T) {
	t.Parallel()
	var c cli
	parser, err := kong.New(&c, kong.Name("payments"), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, leaf := range parser.Model.Leaves(false) {
		want = append(want, leaf.FullPath())
	}
	for _, row := range pageTable(t, "| command | what it does | stops on |") {
		name := ticked(row[0])[0]
		got = append(got, strings.TrimRight(strings.Trim(name, " "), "ABCDEFGHIJKLMNOPQRSTUVWXYZ "))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the page has the commands %q, the program %q", got, want)
	}
}

// TestExitCodesAndVariablesOnThePageAreThoseOfTheProgram.
func TestExitCodesAndVariablesOnThePageAreThoseOfTheProgram(t *testing.T) {
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
	var variables []string
	for _, row := range pageTable(t, "| variable | who reads it | what it is |") {
		variables = append(variables, ticked(row[0])[0])
	}
	if want := []string{envDatabaseURL, envSecret, envAdminToken, envPGBinDir, "TEST_DATABASE_URL"}; !slices.Equal(variables, want) {
		t.Errorf("the page has the variables %q, the program %q", variables, want)
	}
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
