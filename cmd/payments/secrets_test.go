package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// write makes a file that only its owner can read, unless mode says otherwise.
func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

// bare takes away what the caller's environment may hold.
func bare(t *testing.T) {
	t.Helper()
	for _, name := range []string{envDatabaseURL, envSecret, envSecretOther, envAdminToken} {
		t.Setenv(name, "")
		t.Setenv(name+envFile, "")
	}
	t.Setenv(envCredentials, "")
}

func TestASettingIsTheVariableOrTheFileOrTheCredential(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		variable, file, credential string
		mode                       os.FileMode
		want                       string
		open                       bool
	}{
		"nothing":                        {},
		"a variable":                     {variable: "from a variable\n", want: "from a variable\n"},
		"a file":                         {file: "from a file", mode: 0o600, want: "from a file"},
		"a file that ends a line":        {file: "from a file\n", mode: 0o400, want: "from a file"},
		"a file of another system":       {file: "from a file\r\n", mode: 0o400, want: "from a file"},
		"a file with two ends of a line": {file: "from a file\n\n", mode: 0o400, want: "from a file\n"},
		"a file with spaces":             {file: " from a file ", mode: 0o400, want: " from a file "},
		"an empty file":                  {file: "\n", mode: 0o600},
		"a file for a group":             {file: "shared", mode: 0o440, want: "shared", open: true},
		"a file for everybody":           {file: "shared", mode: 0o644, want: "shared", open: true},
		"a credential":                   {credential: "from systemd\n", want: "from systemd"},
		"a variable and an empty file":   {variable: "from a variable", file: "\n", mode: 0o600, want: "from a variable"},
		"the largest file":               {file: strings.Repeat("x", maxSettingFile), mode: 0o600, want: strings.Repeat("x", maxSettingFile)},
	} {
		t.Run(name, func(t *testing.T) {
			bare(t)
			t.Setenv(envSecret, c.variable)
			if c.file != "" {
				t.Setenv(envSecret+envFile, write(t, t.TempDir(), "secret", c.file, c.mode))
			}
			t.Setenv(envCredentials, dir) // without this one in it
			if c.credential != "" {
				own := t.TempDir()
				write(t, own, "payments_secret", c.credential, 0o644)
				t.Setenv(envCredentials, own)
			}
			got, err := findSetting(envSecret)
			if err != nil || got.value != c.want || got.open != c.open {
				t.Errorf("got %q, open to others: %t (%v)", got.value, got.open, err)
			}
		})
	}
}

// A unit may well say PAYMENTS_SECRET_FILE=%d/payments_secret, which is the credential.
func TestAFileAmongTheCredentialsIsNotGivenTwice(t *testing.T) {
	bare(t)
	dir := t.TempDir()
	t.Setenv(envCredentials, dir)
	for _, name := range []string{"payments_secret", "another"} {
		t.Setenv(envSecret+envFile, write(t, dir, name, "from systemd", 0o440))
		if got, err := findSetting(envSecret); err != nil || got.value != "from systemd" || got.open {
			t.Errorf("%s: got %+v (%v)", name, got, err)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASettingThatIsUnclearIsRefusedByNameAlone(t *testing.T) {
	dir := t.TempDir()
	const secret = "do-not-tell-anybody"
	file := write(t, dir, "file", secret, 0o600)
	credentials := t.TempDir()
	write(t, credentials, "payments_secret", secret, 0o600)
	large := write(t, dir, "large", strings.Repeat(secret, maxSettingFile/len(secret)+1), 0o600)
	for name, c := range map[string]struct {
		variable, file, credentials string
		says                        string
	}{
		"twice":                       {variable: secret, file: file, says: "PAYMENTS_SECRET is set more than once"},
		"a variable and a credential": {variable: secret, credentials: credentials, says: "PAYMENTS_SECRET is set more than once"},
		"a file and a credential":     {file: file, credentials: credentials, says: "PAYMENTS_SECRET is set more than once"},
		"a secret in place of a path": {file: secret, says: "PAYMENTS_SECRET_FILE names a file that cannot be read: no such file"},
		"a folder":                    {file: dir, says: "PAYMENTS_SECRET_FILE names a file that cannot be read: is a directory"},
		"too large":                   {file: large, says: "more than 65536 bytes"},
		"no folder of credentials":    {credentials: file, says: "the credential payments_secret cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			bare(t)
			t.Setenv(envSecret, c.variable)
			t.Setenv(envSecret+envFile, c.file)
			t.Setenv(envCredentials, c.credentials)
			_, err := findSetting(envSecret)
			e, ok := errors.AsType[exitError](err)
			if !ok || e.code != exitUsage || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A shell's <(…) is a pipe, which is nobody's to read later.
func TestASettingMayComeThroughAPipe(t *testing.T) {
	bare(t)
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	go func() { _ = os.WriteFile(path, []byte("from a pipe\n"), 0) }() // ends with the reader
	t.Setenv(envSecret+envFile, path)
	if got, err := findSetting(envSecret); err != nil || got.value != "from a pipe" || got.open {
		t.Errorf("got %+v (%v)", got, err)
	}
}

func TestAnInstallationThatCannotServeIsRefusedByTheVariable(t *testing.T) {
	t.Parallel()
	whole := installation{
		database: given{value: "postgres://somebody@somewhere/something"},
		secret:   given{value: strings.Repeat("s", 32)}, otherSecret: given{value: strings.Repeat("o", 32)}, adminToken: given{value: strings.Repeat("t", 32)},
	}
	if err := whole.check(); err != nil {
		t.Errorf("all is well, and it says %v", err)
	}
	for name, c := range map[string]struct {
		change func(*installation)
		says   string
	}{
		"no database":           {func(i *installation) { i.database.value = "" }, "DATABASE_URL is not set"},
		"no secret":             {func(i *installation) { i.secret.value = "" }, "PAYMENTS_SECRET must hold at least 32 bytes"},
		"short secret":          {func(i *installation) { i.secret.value = i.secret.value[1:] }, "PAYMENTS_SECRET must hold at least 32 bytes"},
		"short other secret":    {func(i *installation) { i.otherSecret.value = i.otherSecret.value[1:] }, "PAYMENTS_SECRET_OTHER must hold at least 32 bytes"},
		"one secret twice":      {func(i *installation) { i.otherSecret = i.secret }, "PAYMENTS_SECRET_OTHER must not be PAYMENTS_SECRET"},
		"no token":              {func(i *installation) { i.adminToken.value = "" }, "PAYMENTS_ADMIN_TOKEN must hold at least 32 bytes"},
		"short token":           {func(i *installation) { i.adminToken.value = i.adminToken.value[1:] }, "PAYMENTS_ADMIN_TOKEN must hold at least 32 bytes"},
		"the secret as a token": {func(i *installation) { i.adminToken = i.secret }, "PAYMENTS_ADMIN_TOKEN must not be the installation's secret"},
		"the other as a token":  {func(i *installation) { i.adminToken = i.otherSecret }, "PAYMENTS_ADMIN_TOKEN must not be the installation's secret"},
	} {
		i := whole
		c.change(&i)
		err := i.check()
		e, ok := errors.AsType[exitError](err)
		if !ok || e.code != exitUsage || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	alone := whole
	alone.otherSecret = given{}
	if err := alone.check(); err != nil {
		t.Errorf("without another secret: %v", err)
	}
}

func TestAFileThatOthersCanReadIsToldInTheLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	installation{secret: given{value: "hidden", file: "/a/path", open: true}, adminToken: given{value: "hidden"}}.warn(t.Context(), newLog(&log))
	line := log.String()
	if !strings.Contains(line, `"level":"WARN"`) || !strings.Contains(line, `"variable":"PAYMENTS_SECRET_FILE"`) || strings.Count(line, "\n") != 1 || strings.Contains(line, "hidden") {
		t.Errorf("the log says %s", line)
	}
}
