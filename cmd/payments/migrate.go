package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/oncepay/oncepay/internal/postgres"
)

// migrateCmd is `migrate up` and `migrate status`.
type migrateCmd struct {
	Up     migrateUpCmd     `cmd:"" help:"Apply every migration that is missing. Safe to run from several machines at once."`
	Status migrateStatusCmd `cmd:"" help:"Tell which version the database has, and which this binary needs."`
}

type migrateUpCmd struct{}

// Run migrates the database of DATABASE_URL.
func (migrateUpCmd) Run(ctx context.Context, s streams) error {
	url, err := databaseURL()
	if err != nil {
		return err
	}
	fmt.Fprintln(s.err, "migrating …")
	if err := migrateUp(ctx, url); err != nil {
		return err
	}
	return migrateStatusCmd{}.Run(ctx, s)
}

// migrateUp migrates, and tells a database that is away from one that refuses.
func migrateUp(ctx context.Context, url string) error {
	err := postgres.Migrate(ctx, url)
	if postgres.IsUnavailable(err) {
		return unavailableError("%w", err)
	}
	return err
}

type migrateStatusCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints where the database of DATABASE_URL stands.
func (c migrateStatusCmd) Run(ctx context.Context, s streams) error {
	url, err := databaseURL()
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
	if status.Version > status.Latest {
		fmt.Fprintf(s.out, "version %d: one ahead of this binary, which can serve it\n", status.Version)
		return nil
	}
	fmt.Fprintf(s.out, "version %d: up to date\n", status.Version)
	return nil
}
