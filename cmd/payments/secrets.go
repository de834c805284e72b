package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/postgres"
)

// Secrets come from the environment or from files, never from a flag: a command line
// is visible to every user of the machine.
const (
	envDatabaseURL = "DATABASE_URL"
	envSecret      = "PAYMENTS_SECRET"
	envSecretOther = "PAYMENTS_SECRET_OTHER"
	envAdminToken  = "PAYMENTS_ADMIN_TOKEN"
	envPGBinDir    = "PG_BIN_DIR"
	// envCallbackSecret is shared with the provider, who signs its callbacks with it.
	envCallbackSecret = "PAYMENTS_CALLBACK_SECRET"

	// envFile is what the name of a variable ends in that names a file instead.
	envFile = "_FILE"
	// envCredentials is the folder in which systemd puts what LoadCredential= names.
	envCredentials = "CREDENTIALS_DIRECTORY"
)

const (
	// maxSettingFile bounds a file with a secret, a certificate or a key, in bytes. A
	// chain of certificates has some ten thousand.
	maxSettingFile = 64 << 10
	// maxAuthorities bounds a file with authorities. Those that a system trusts are some
	// 250 KB together.
	maxAuthorities = 1 << 20
)

// given is a setting that is no flag, and where it was. The zero value is one that
// is not set.
type given struct {
	value string
	file  string // where it was read; "" is the variable itself
	open  bool   // others than the file's owner can read it
}

// findSetting looks for what variable name holds: in itself, in the file that
// name_FILE names, or in systemd's credential of that name in lower case. One
// newline at a file's end is no part of it. Empty is the same as not set; set twice is
// refused, because nobody could tell which one was meant.
func findSetting(name string) (given, error) {
	var all []given
	if value := os.Getenv(name); value != "" {
		all = append(all, given{value: value})
	}
	path, dir := os.Getenv(name+envFile), os.Getenv(envCredentials)
	credential := filepath.Join(dir, strings.ToLower(name))
	if path != "" {
		f, err := readSetting(path)
		if err != nil {
			return given{}, usage("%s%s names a file that cannot be read: %w", name, envFile, err)
		}
		if dir != "" && filepath.Dir(filepath.Clean(path)) == filepath.Clean(dir) {
			f.open = false // systemd decides who gets into the folder
		}
		all = append(all, f)
	}
	if dir != "" && filepath.Clean(path) != credential { // otherwise it is the same file
		f, err := readSetting(credential)
		f.open = false
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return given{}, usage("the credential %s cannot be read: %w", strings.ToLower(name), err)
		default:
			all = append(all, f)
		}
	}
	all = slices.DeleteFunc(all, func(g given) bool { return g.value == "" })
	switch len(all) {
	case 0:
		return given{}, nil
	case 1:
		return all[0], nil
	}
	return given{}, usage("%s is set more than once: give it as %s, as %s%s or as a credential of systemd's", name, name, name, envFile)
}

// setting is what variable name, or its file, holds; "" if it is not set.
func setting(name string) (string, error) {
	f, err := findSetting(name)
	return f.value, err
}

// readSetting reads a file with one setting.
func readSetting(path string) (given, error) {
	data, info, err := readFile(path, maxSettingFile)
	if err != nil {
		return given{}, err
	}
	value, ended := strings.CutSuffix(string(data), "\n")
	if ended {
		value = strings.TrimSuffix(value, "\r")
	}
	return given{value: value, file: path, open: info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0}, nil
}

// readFile reads a file of at most limit bytes. Its errors don't have the path: whoever
// mixes up two variables puts a secret there.
func readFile(path string, limit int64) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, withoutPath(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, withoutPath(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, nil, withoutPath(err)
	case int64(len(data)) > limit:
		return nil, nil, fmt.Errorf("it has more than %d bytes", limit)
	}
	return data, info, nil
}

func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

var errNoDatabaseURL = exitError{exitUsage, errors.New("DATABASE_URL is not set: give it as postgres://user@host/database, or try `payments dev`, which needs none")}

// databaseURL is the database to use where there is no private one.
func databaseURL() (string, error) {
	value, err := databaseSetting(envDatabaseURL)
	if err == nil && value == "" {
		err = errNoDatabaseURL
	}
	return value, err
}

// openMigrated opens one connection to a database whose schema this binary knows.
func openMigrated(ctx context.Context, at string, pgbouncer bool) (*postgres.DB, error) {
	db, err := postgres.Open(ctx, at, postgres.Options{MaxConns: 1, PgBouncer: pgbouncer})
	switch {
	case errors.Is(err, postgres.ErrSession):
		return nil, err
	case err != nil:
		return nil, unavailableError("%w", err)
	}
	if err := db.CheckSchema(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// databaseSetting is the URL of a database, or "" if it is not set.
func databaseSetting(name string) (string, error) {
	value, err := setting(name)
	if err != nil {
		return "", err
	}
	return value, checkDatabaseFiles(name, value)
}

// checkDatabaseFiles tells of a file for TLS that is not there. Whoever opens the
// database could only say that something is wrong with the URL, which has a password.
func checkDatabaseFiles(name, value string) error {
	u, err := url.Parse(value)
	if err != nil {
		return nil //nolint:nilerr // that it is no URL is told by who opens it
	}
	for _, parameter := range []string{"sslrootcert", "sslcert", "sslkey"} {
		path := u.Query().Get(parameter)
		if path == "" || path == "system" { // the machine's own authorities
			continue
		}
		if _, _, err := readFile(path, maxAuthorities); err != nil {
			return usage("%s: the file of its %s cannot be read: %w", name, parameter, err)
		}
	}
	return nil
}

// installation is what all instances of one installation must be given alike.
type installation struct {
	database, secret, adminToken given
	// otherSecret is the last one, or the next, while the secret is being changed.
	otherSecret given
	// callbackSecret is what the provider signs its callbacks with.
	callbackSecret given
}

// readInstallation reads what is given, and judges nothing.
func readInstallation() (i installation, err error) {
	for _, s := range []struct {
		name string
		to   *given
	}{{envDatabaseURL, &i.database}, {envSecret, &i.secret}, {envSecretOther, &i.otherSecret}, {envAdminToken, &i.adminToken},
		{envCallbackSecret, &i.callbackSecret}} {
		if *s.to, err = findSetting(s.name); err != nil {
			return i, err
		}
	}
	return i, nil
}

// check refuses what no instance should serve with.
func (i installation) check() error {
	const drawn = "such as the output of `openssl rand -hex 32`"
	secret, other, token := i.secret.value, i.otherSecret.value, i.adminToken.value
	switch {
	case i.database.value == "":
		return errNoDatabaseURL
	case len(secret) < idem.MinSecretLength:
		return usage("%s must hold at least %d bytes, %s", envSecret, idem.MinSecretLength, drawn)
	case len(token) < admin.MinTokenLength:
		return usage("%s must hold at least %d bytes, %s", envAdminToken, admin.MinTokenLength, drawn)
	case other != "" && len(other) < idem.MinSecretLength:
		return usage("%s must hold at least %d bytes, %s, or nothing", envSecretOther, idem.MinSecretLength, drawn)
	case other == secret:
		return usage("%s must not be %s: it is the last one, or the next", envSecretOther, envSecret)
	case token == secret || token == other:
		return usage("%s must not be the installation's secret: it is told to whoever operates", envAdminToken)
	}
	if err := checkCallbackSecret(i.callbackSecret.value); err != nil {
		return err
	}
	return checkDatabaseFiles(envDatabaseURL, i.database.value)
}

// checkCallbackSecret refuses one that could be guessed.
func checkCallbackSecret(secret string) error {
	if secret != "" && len(secret) < idem.MinSecretLength {
		return usage("%s must hold at least %d bytes, such as the output of `openssl rand -hex 32`, or nothing", envCallbackSecret, idem.MinSecretLength)
	}
	return nil
}

// warn tells of files that more than their owner can read. Mounted ones often are,
// and nobody can help it, so they are no reason not to serve.
func (i installation) warn(ctx context.Context, log *slog.Logger) {
	for _, s := range []struct {
		name string
		given
	}{{envDatabaseURL, i.database}, {envSecret, i.secret}, {envSecretOther, i.otherSecret}, {envAdminToken, i.adminToken},
		{envCallbackSecret, i.callbackSecret}} {
		if s.open {
			log.WarnContext(ctx, "others can read the file of a secret", "variable", s.name+envFile)
		}
	}
}
