package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// oldestVersion is the first that keeps parameters out of its log
// (log_parameter_max_length).
const oldestVersion = 13

// ErrNotInstalled is wrapped by the error that says how to install PostgreSQL.
var ErrNotInstalled = errors.New("PostgreSQL is not installed")

// usualFolders are where packages put the server's programs.
var usualFolders = []string{
	"/usr/lib/postgresql/*/bin",                       // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                // RPMs of postgresql.org
	"/usr/lib/postgresql*/bin",                        // openSUSE
	"/usr/libexec/postgresql*",                        // Alpine
	"/opt/homebrew/opt/postgresql@*/bin",              // Homebrew on Apple silicon
	"/opt/homebrew/opt/postgresql/bin",                //
	"/usr/local/opt/postgresql@*/bin",                 // Homebrew on Intel
	"/usr/local/opt/postgresql/bin",                   //
	"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin", // Homebrew on Linux
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// installers are how each system gets PostgreSQL, by the program that does it; a
// dollar is where sudo goes.
var installers = []struct{ program, line string }{
	{"apt-get", "$apt-get update && $apt-get install -y postgresql"},
	{"dnf", "$dnf install -y postgresql-server"},
	{"zypper", "$zypper --non-interactive install postgresql-server"},
	{"pacman", "$pacman -Sy --needed --noconfirm postgresql"},
	{"apk", "$apk add postgresql"},
}

// FindBinaries returns a folder that has both postgres and initdb: PG_BIN_DIR if
// that is set, else what pg_config, PATH and the usual folders of packages have,
// in this order. If there is none, the error wraps ErrNotInstalled and has the
// line that installs PostgreSQL on this system.
func FindBinaries(env func(string) string) (dir string, err error) {
	dirs, err := search{env: env, root: "/"}.folders(context.Background())
	if err != nil {
		return "", err
	}
	return dirs[0], nil
}

// search is where to look; root is "/" except in tests.
type search struct {
	env  func(string) string
	root string
}

// folders are all that have the programs, best first: at least one, or an error.
func (s search) folders(ctx context.Context) ([]string, error) {
	if dir := s.env("PG_BIN_DIR"); dir != "" {
		if err := checkBinaries(dir); err != nil {
			return nil, fmt.Errorf("PG_BIN_DIR: %w", err)
		}
		return []string{dir}, nil
	}
	var found []string
	add := func(dir string) {
		if checkBinaries(dir) == nil && !slices.Contains(found, dir) {
			found = append(found, dir)
		}
	}
	if path, ok := s.lookPath("pg_config"); ok {
		if dir, err := self().ask(ctx, "/", path, "--bindir"); err == nil {
			add(dir)
		}
	}
	for _, dir := range s.path() {
		add(dir)
	}
	for _, pattern := range usualFolders {
		matches, _ := filepath.Glob(filepath.Join(s.root, pattern)) // the only error is a malformed pattern
		slices.SortFunc(matches, newestFirst)
		for _, dir := range matches {
			add(dir)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w (looked in PG_BIN_DIR, pg_config, PATH and the usual folders). Install it with:\n\n    %s\n\nor set PG_BIN_DIR to the folder that has postgres and initdb",
			ErrNotInstalled, s.installLine(runtime.GOOS, os.Geteuid() == 0))
	}
	return found, nil
}

// path is PATH without its relative folders, which mean something else in every
// place one runs from.
func (s search) path() []string {
	return slices.DeleteFunc(filepath.SplitList(s.env("PATH")), func(dir string) bool { return !filepath.IsAbs(dir) })
}

func (s search) lookPath(program string) (string, bool) {
	for _, dir := range s.path() {
		if path := filepath.Join(dir, program); isProgram(path) {
			return path, true
		}
	}
	return "", false
}

func (s search) installLine(goos string, root bool) string {
	if goos == "darwin" {
		return "brew install postgresql@17"
	}
	sudo := "sudo "
	if root {
		sudo = ""
	}
	for _, i := range installers {
		if _, ok := s.lookPath(i.program); ok {
			return strings.ReplaceAll(i.line, "$", sudo)
		}
	}
	return "your system's package manager (the package is named postgresql or postgresql-server)"
}

// checkBinaries says what is missing in the folder.
func checkBinaries(dir string) error {
	for _, program := range []string{"postgres", "initdb"} {
		if !isProgram(filepath.Join(dir, program)) {
			return fmt.Errorf("%s has no program named %s", dir, program)
		}
	}
	return nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

var number = regexp.MustCompile(`[0-9]+`)

// newestFirst orders folders by the last number in their names, numerically: 9
// comes after 17.
func newestFirst(a, b string) int {
	last := func(s string) int {
		all := number.FindAllString(s, -1)
		if len(all) == 0 {
			return 0
		}
		n, _ := strconv.Atoi(all[len(all)-1]) // too long to be a version is as good as none
		return n
	}
	return last(b) - last(a)
}

// chooseBinaries returns the folder to use: dir if it is set, else what a search
// finds.
func chooseBinaries(ctx context.Context, dir string, c *cluster) (string, error) {
	if dir == "" {
		dirs, err := search{env: os.Getenv, root: "/"}.folders(ctx)
		if err != nil {
			return "", err
		}
		return pickBinaries(ctx, dirs, c)
	}
	if err := checkBinaries(dir); err != nil {
		return "", err
	}
	return pickBinaries(ctx, []string{dir}, c)
}

// pickBinaries returns the first folder whose version suits the cluster.
func pickBinaries(ctx context.Context, dirs []string, c *cluster) (string, error) {
	if c.version != 0 && c.version < oldestVersion {
		return "", fmt.Errorf("the data in %s was made by PostgreSQL %d, and %d is the oldest that is supported. Nothing was touched. "+
			"Bring the data over with pg_upgrade, or choose another folder", c.dir, c.version, oldestVersion)
	}
	var seen []string
	var errs []error
	for _, dir := range dirs {
		v, err := versionOf(ctx, dir)
		switch {
		case err != nil:
			errs = append(errs, err)
		case v >= oldestVersion && (c.version == 0 || c.version == v):
			return filepath.Abs(dir)
		default:
			seen = append(seen, fmt.Sprintf("%d (%s)", v, dir))
		}
	}
	if len(seen) == 0 {
		return "", errors.Join(errs...)
	}
	have := strings.Join(seen, ", ")
	if c.version == 0 {
		return "", fmt.Errorf("PostgreSQL %d or newer is needed; this machine has %s", oldestVersion, have)
	}
	return "", fmt.Errorf("the data in %s was made by PostgreSQL %d, and this machine has %s. Nothing was touched. "+
		"Set PG_BIN_DIR to the programs of PostgreSQL %d, or bring the data over with pg_upgrade, or choose another folder", c.dir, c.version, have, c.version)
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) ([0-9]+)`)

// versionOf asks postgres for its major version.
func versionOf(ctx context.Context, dir string) (int, error) {
	path := filepath.Join(dir, "postgres")
	text, err := self().ask(ctx, "/", path, "--version")
	if err != nil {
		return 0, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	m := versionText.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%s gives no PostgreSQL version", path)
	}
	return strconv.Atoi(m[1])
}
