package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// serializableDefault is counted once for each instance that lives with it.
const serializableDefault = "database: sessions are serializable by default"

// ownConnections are few beside those that a stage's own PostgreSQL has, however many
// processors there are.
const ownConnections = 8

// openPool is the campaign's own way to a database. Its sessions are what PostgreSQL's
// usually are, whatever the instances' find.
func openPool(ctx context.Context, dbURL string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(dbURL)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = ownConnections
	cfg.ConnConfig.RuntimeParams["default_transaction_isolation"] = "read committed"
	return pgxpool.NewWithConfig(ctx, cfg)
}

// strictByDefault makes new sessions in the stage's database SERIALIZABLE, unless they
// ask for something else, as some do for all that they have.
func (s *stage) strictByDefault(ctx context.Context) error {
	if !s.serializable {
		return nil
	}
	sql := `ALTER DATABASE ` + pgx.Identifier{s.dbName}.Sanitize() + ` SET default_transaction_isolation TO 'serializable'`
	if _, err := s.pool.Exec(ctx, sql); err != nil {
		return fmt.Errorf("make sessions serializable by default: %w", err)
	}
	for range s.set.instances {
		s.faults.note("", serializableDefault)
	}
	return nil
}
