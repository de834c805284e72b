package localpg

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fake makes a program from a line of shell.
func fake(t *testing.T, path, line string) {
	t.Helper()
	write(t, path, "#!/bin/sh\n"+line+"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestBinariesAreFoundInTheOrderOfTheDocumentation(t *testing.T) {
	t.Parallel()
	const nothing = "$none"
	for _, c := range []struct {
		name  string
		have  []string          // folders with both programs; $ is the root of the test
		files map[string]string // other programs
		env   map[string]string
		want  string
	}{
		{name: "nothing", want: nothing},
		{name: "PG_BIN_DIR wins", have: []string{"$/own", "$/onpath"}, env: map[string]string{"PG_BIN_DIR": "$/own", "PATH": "$/onpath"}, want: "$/own"},
		{
			name: "pg_config before PATH", have: []string{"$/configured", "$/onpath"},
			files: map[string]string{"$/tools/pg_config": `[ "$1" = --bindir ] && echo "$/configured"`},
			env:   map[string]string{"PATH": "$/onpath:$/tools"}, want: "$/configured",
		},
		{
			name: "a pg_config that names a client's folder", have: []string{"$/onpath"},
			files: map[string]string{"$/tools/pg_config": `echo "$/client"`, "$/client/psql": ""},
			env:   map[string]string{"PATH": "$/tools:$/onpath"}, want: "$/onpath",
		},
		{
			name: "a pg_config that fails", have: []string{"$/usr/lib/postgresql/15/bin"},
			files: map[string]string{"$/tools/pg_config": `echo sorry >&2; exit 1`},
			env:   map[string]string{"PATH": "$/tools"}, want: "$/usr/lib/postgresql/15/bin",
		},
		{name: "PATH before folders", have: []string{"$/onpath", "$/usr/lib/postgresql/15/bin"}, env: map[string]string{"PATH": "$/empty:$/onpath"}, want: "$/onpath"},
		{name: "relative PATH is not searched", have: []string{"$/onpath"}, env: map[string]string{"PATH": ".:onpath:"}, want: nothing},
		{name: "the newest of Debian's", have: []string{"$/usr/lib/postgresql/9/bin", "$/usr/lib/postgresql/17/bin", "$/usr/lib/postgresql/15/bin"}, want: "$/usr/lib/postgresql/17/bin"},
		{
			name: "initdb alone does not do", have: []string{"$/usr/lib/postgresql/15/bin"},
			files: map[string]string{"$/usr/lib/postgresql/17/bin/initdb": ""}, want: "$/usr/lib/postgresql/15/bin",
		},
		{name: "Homebrew on Apple silicon", have: []string{"$/opt/homebrew/opt/postgresql@14/bin", "$/opt/homebrew/opt/postgresql@16/bin"}, want: "$/opt/homebrew/opt/postgresql@16/bin"},
		{name: "Homebrew on Intel", have: []string{"$/usr/local/opt/postgresql@16/bin"}, want: "$/usr/local/opt/postgresql@16/bin"},
		{name: "Postgres.app", have: []string{"$/Applications/Postgres.app/Contents/Versions/17/bin"}, want: "$/Applications/Postgres.app/Contents/Versions/17/bin"},
		{name: "postgresql.org's RPMs", have: []string{"$/usr/pgsql-16/bin"}, want: "$/usr/pgsql-16/bin"},
		{name: "Alpine", have: []string{"$/usr/libexec/postgresql17"}, want: "$/usr/libexec/postgresql17"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			here := func(s string) string { return strings.ReplaceAll(s, "$/", root+"/") }
			for _, dir := range c.have {
				fake(t, filepath.Join(here(dir), "postgres"), "")
				fake(t, filepath.Join(here(dir), "initdb"), "")
			}
			for path, line := range c.files {
				fake(t, here(path), here(line))
			}
			s := search{root: root, env: func(name string) string { return here(c.env[name]) }}
			found, err := s.folders(context.Background())
			if c.want == nothing {
				if !errors.Is(err, ErrNotInstalled) {
					t.Errorf("found %v (%v)", found, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if found[0] != here(c.want) {
				t.Errorf("found %s", found[0])
			}
		})
	}
}

func TestAWrongPGBinDirIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fake(t, filepath.Join(dir, "postgres"), "")
	_, err := FindBinaries(func(name string) string {
		return map[string]string{"PG_BIN_DIR": dir, "PATH": os.Getenv("PATH")}[name]
	})
	mustSay(t, err, "PG_BIN_DIR", dir, "initdb")
}

func TestTheErrorHasTheLineThatInstallsPostgreSQL(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]string{
		"apt-get": "sudo apt-get update && sudo apt-get install -y postgresql",
		"dnf":     "sudo dnf install",
		"apk":     "sudo apk add postgresql",
		"pacman":  "sudo pacman -S",
		"zypper":  "sudo zypper ",
		"none":    "package manager",
	} {
		dir := t.TempDir()
		fake(t, filepath.Join(dir, program), "")
		s := search{env: func(string) string { return dir }}
		if got := s.installLine("linux", false); !strings.Contains(got, want) {
			t.Errorf("%s: %s", program, got)
		}
		if got := s.installLine("linux", true); strings.Contains(got, "sudo") {
			t.Errorf("root needs no sudo: %s", got)
		}
		if got := s.installLine("darwin", false); got != "brew install postgresql@17" {
			t.Errorf("macOS: %s", got)
		}
	}
}

func TestTheVersionThatTheClusterNeedsIsPreferred(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := func(version string) string { return filepath.Join(root, version) }
	for version, says := range map[string]string{
		"15": "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)",
		"17": "postgres (PostgreSQL) 17beta1",
		"12": "postgres (PostgreSQL) 12.22",
		"no": "something else",
	} {
		fake(t, filepath.Join(dir(version), "postgres"), `echo "`+says+`"`)
		fake(t, filepath.Join(dir(version), "initdb"), "")
	}
	all := []string{dir("no"), dir("12"), dir("17"), dir("15")}
	for version, want := range map[int]string{0: dir("17"), 15: dir("15"), 17: dir("17"), 14: "", 12: ""} {
		got, err := pickBinaries(context.Background(), all, &cluster{dir: "/data", version: version})
		if got != want {
			t.Errorf("a cluster of version %d: %q (%v)", version, got, err)
		}
	}
	_, err := pickBinaries(context.Background(), []string{dir("12")}, &cluster{})
	mustSay(t, err, "13 or newer", dir("12"))
	_, err = pickBinaries(context.Background(), []string{dir("no")}, &cluster{})
	mustSay(t, err, dir("no"), "no PostgreSQL version")
}

// The script that `make run` calls has the search a second time, in shell.
func TestTheInstallScriptFindsWhatTheProgramFinds(t *testing.T) {
	t.Parallel()
	want, err := FindBinaries(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "../../scripts/install-postgres.sh", "--find").Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != want {
		t.Errorf("the script finds %q and the program %q (%v)", got, want, err)
	}
}
