package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/oncepay/oncepay/internal/postgres"
)

// migrateCmd is `migrate up` and `migrate status`.
type migrateCmd struct {
	Up     migrateUpCmd     `cmd:"" help:"Apply every migration that is missing. Safe to run from several machines at once."`
	Status migrateStatusCmd `cmd:"" help:"Tell which version the database has, and which this binary needs."`
}

// envMigrateDatabaseURL is the database as the role that owns the schema sees it, past
// any pooler.
const envMigrateDatabaseURL = "MIGRATE_DATABASE_URL"

// migrationURL is the database to migrate.
func migrationURL() (string, error) {
	if url, err := databaseSetting(envMigrateDatabaseURL); err != nil || url != "" {
		return url, err
	}
	return databaseURL()
}

type migrateUpCmd struct {
	GrantTo []string `help:"Roles that are to run the product, separated by commas: each gets the privileges and settings that it needs." placeholder:"ROLE"`
}

// Run migrates the database of MIGRATE_DATABASE_URL, or else of DATABASE_URL.
func (c migrateUpCmd) Run(ctx context.Context, s streams) error {
	url, err := migrationURL()
	if err != nil {
		return err
	}
	fmt.Fprintln(s.err, "migrating …")
	tell := func(line string) { fmt.Fprintln(s.err, line) }
	if err := migrateUp(ctx, url, tell); err != nil {
		return err
	}
	for _, role := range c.GrantTo {
		left, err := postgres.Grant(ctx, url, role)
		if err != nil {
			return fmt.Errorf("--grant-to: %w", err)
		}
		if len(left) > 0 {
			tell("a superuser must run these statements before `payments serve --pgbouncer` can start; the role that migrates may not:")
			tell("  " + strings.Join(left, "\n  "))
		}
	}
	return migrateStatusCmd{}.Run(ctx, s)
}

// migrateUp migrates, and tells a database that is away from one that refuses.
func migrateUp(ctx context.Context, url string, tell func(string)) error {
	err := postgres.Migrate(ctx, url, tell)
	if postgres.IsUnavailable(err) {
		return unavailableError("%w", err)
	}
	return err
}

type migrateStatusCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints where the database stands that `migrate up` would migrate.
func (c migrateStatusCmd) Run(ctx context.Context, s streams) error {
	url, err := migrationURL()
	if err != nil {
		return err
	}
	status, err := postgres.Schema(ctx, url)
	if err != nil {
		return unavailableError("%w", err)
	}
	if c.JSON {
		return json.NewEncoder(s.out).Encode(status)
	}
	if misfit := status.Misfit(); misfit != nil {
		_, err = fmt.Fprintf(s.out, "version %d of %d: %s\n", status.Version, status.Latest, misfit)
		return err
	}
	if missing := status.MissingIndexes; len(missing) > 0 {
		fmt.Fprintf(s.out, "version %d: instances can serve it, but these indexes are not built: %s; run `payments migrate up`\n", status.Version, strings.Join(missing, ", "))
		return nil
	}
	if status.Version > status.Latest {
		fmt.Fprintf(s.out, "version %d: one ahead of this binary, which can serve it\n", status.Version)
		return nil
	}
	fmt.Fprintf(s.out, "version %d: up to date\n", status.Version)
	return nil
}
