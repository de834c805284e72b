package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"

	"github.com/golang-migrate/migrate/v4/source"
	"github.com/jackc/pgx/v5"
)

// besideTraffic is the line of a migration behind which there are indexes on tables in
// use. PostgreSQL builds those CONCURRENTLY, in no transaction and for as long as it takes.
// So they are no part of the version: it is written, not dirty, with what is above the
// line, whoever starts meanwhile may serve, and which of them are still to be built is
// asked of PostgreSQL's catalog, by name. Nothing else can be lost between the parts.
const besideTraffic = "-- then, beside the traffic:\n"

var (
	sqlComment = regexp.MustCompile(`--[^\n]*|(?s:/\*.*?\*/)`)
	// No IF NOT EXISTS, which takes an invalid index for a good one.
	sqlIndex = regexp.MustCompile(`^CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+([a-z][a-z0-9_]*)\s+ON\s+([a-z][a-z0-9_]*)[\s(]`)
)

// index is one that is built beside the traffic.
type index struct{ name, table, statement string }

// parts of a migration: what is one transaction, and the indexes behind the line that
// divides them. Anything else there is an error.
func parts(body string) (together string, indexes []index, err error) {
	together, rest, _ := strings.Cut(body, besideTraffic)
	for statement := range strings.SplitSeq(sqlComment.ReplaceAllString(rest, " "), ";") {
		statement = strings.TrimSpace(statement)
		if statement == "" {
			continue
		}
		found := sqlIndex.FindStringSubmatch(statement)
		if found == nil {
			return "", nil, errors.New("beside the traffic there is only CREATE [UNIQUE] INDEX CONCURRENTLY name ON table")
		}
		indexes = append(indexes, index{name: found[1], table: found[2], statement: statement})
	}
	return together, indexes, nil
}

// indexesOf reads which indexes a version has beside the traffic: none, if its file is
// not known here.
func indexesOf(files source.Driver, version uint) ([]index, error) {
	file, _, err := files.ReadUp(version)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read migration %d: %w", version, err)
	}
	body, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("read migration %d: %w", version, err)
	}
	_, indexes, err := parts(string(body))
	if err != nil {
		return nil, fmt.Errorf("migration %d: %w", version, err)
	}
	return indexes, nil
}

const sqlFindIndex = `/* postgres.find_index */
	SELECT i.indexrelid::regclass::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
	WHERE i.indrelid = to_regclass($1) AND c.relname = $2`

// find asks for the index by its name as SQL has it, "" where there is none, and whether
// it can be used.
func (i index) find(ctx context.Context, conn *pgx.Conn) (name string, valid bool, err error) {
	err = conn.QueryRow(ctx, sqlFindIndex, i.table, i.name).Scan(&name, &valid)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", false, fmt.Errorf("look for index %s: %w", i.name, err)
	}
	return name, valid, nil
}

// missingIndexes are those of a version that are not there, or cannot be used.
func missingIndexes(ctx context.Context, conn *pgx.Conn, files source.Driver, version uint) ([]string, error) {
	indexes, err := indexesOf(files, version)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, i := range indexes {
		_, valid, err := i.find(ctx, conn)
		if err != nil {
			return nil, err
		}
		if !valid {
			missing = append(missing, i.name)
		}
	}
	return missing, nil
}

// buildIndexes builds those of a version that are missing. They wait for transactions that
// were open before, and keep nobody waiting, so their limits are wider than a migration's.
func (d *migrationDriver) buildIndexes(ctx context.Context, version uint, indexes []index) error {
	if len(indexes) == 0 {
		return nil
	}
	if _, err := d.conn.Exec(ctx, `SET lock_timeout = 0; SET statement_timeout = `+millis(indexTimeout)); err != nil {
		return err
	}
	for _, i := range indexes {
		if err := d.buildIndex(ctx, version, i); err != nil {
			return fmt.Errorf("migration %d is applied and can be served, but its index %s is not built; find out why (docs/operate/database.md) and run `payments migrate up` again: %w", version, i.name, err)
		}
	}
	_, err := d.conn.Exec(ctx, `RESET lock_timeout; RESET statement_timeout`)
	return err
}

// buildIndex leaves an index that can be used, and replaces one that somebody who failed
// has left. The statement is not broken off with ctx: what it has done would be lost.
func (d *migrationDriver) buildIndex(ctx context.Context, version uint, i index) error {
	name, valid, err := i.find(ctx, d.conn)
	if err != nil || valid {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if name != "" {
		d.tell(fmt.Sprintf("migration %d: index %s was left unfinished; dropping it", version, i.name))
		if _, err := d.conn.Exec(ctx, `DROP INDEX CONCURRENTLY `+name); err != nil {
			return fmt.Errorf("drop what was left of it: %w", err)
		}
	}
	d.tell(fmt.Sprintf("migration %d: index %s is built beside the traffic, and is ready when every transaction has ended that is open", version, i.name))
	_, err = d.conn.Exec(ctx, i.statement)
	return err
}
