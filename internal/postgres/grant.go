package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// privileges are what the product does with each table, and all that its role needs.
// What a row was once is never taken back where it cannot be deleted.
var privileges = map[string]string{
	"merchants":             "SELECT, INSERT, UPDATE",
	"api_keys":              "SELECT, INSERT, UPDATE",
	"payments":              "SELECT, INSERT, UPDATE",
	"transactions":          "SELECT, INSERT, UPDATE",
	"idempotency_keys":      "SELECT, INSERT, UPDATE, DELETE",
	"instances":             "SELECT, INSERT, UPDATE, DELETE",
	"provider_calls":        "SELECT, INSERT, DELETE",
	"provider_observations": "SELECT, INSERT",
	"arrivals":              "SELECT, INSERT, DELETE",
	"events":                "SELECT, INSERT",
	"resolutions":           "SELECT, INSERT",
	"takeovers":             "SELECT, INSERT",
	"authorizations":        "SELECT, INSERT, UPDATE, DELETE",
	"callbacks":             "SELECT, INSERT, DELETE",
	"watches":               "SELECT, INSERT, UPDATE, DELETE",
	"differences":           "SELECT, INSERT, UPDATE",
	"database_identity":     "SELECT, INSERT, UPDATE",

	"customers":         "SELECT, INSERT, UPDATE, DELETE",
	"customer_sessions": "SELECT, INSERT, DELETE",
	"payment_methods":   "SELECT, INSERT, UPDATE",
	"payment_links":     "SELECT, INSERT, UPDATE",
	"checkout_sessions": "SELECT, INSERT, UPDATE, DELETE",
	"one_time_tokens":   "SELECT, INSERT, UPDATE, DELETE",
	"payment_sources":   "SELECT, INSERT",

	"operators":            "SELECT, INSERT, UPDATE",
	"operator_invitations": "SELECT, INSERT, UPDATE, DELETE",
	"operator_sessions":    "SELECT, INSERT, UPDATE, DELETE",
	"operator_tokens":      "SELECT, INSERT, UPDATE",
	"operator_failures":    "SELECT, INSERT, UPDATE, DELETE",
	"audit_entries":        "SELECT, INSERT",
	"audit_head":           "SELECT, UPDATE",
	"request_minutes":      "SELECT, INSERT, UPDATE, DELETE",

	"reconciliation_progress": "SELECT, INSERT, UPDATE",

	"schema_migrations": "SELECT",
}

// reservedRoles mean everybody and nobody, in quotes, too.
var reservedRoles = []string{"public", "none"}

// Grant lets a role run the product on a migrated database, and nothing else: it can
// neither change the schema nor empty a table. It takes nothing away, because the
// release before may still run. It also gives the role the settings of our sessions
// in this database; left are the statements for that, if the connection's role may not
// run them. Doing it again changes nothing.
func Grant(ctx context.Context, url, role string) (left []string, err error) {
	if role == "" || slices.Contains(reservedRoles, role) {
		return nil, errors.New("privileges are granted to one named role, not to everybody")
	}
	conn, err := connectDirect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		left, err = grant(ctx, tx, role)
		return err
	})
	if sqlState(err) == codeUndefinedObject {
		return nil, errors.New("grant: there is no such role; create it first, as docs/operate/database.md says")
	}
	if err != nil {
		return nil, fmt.Errorf("grant: %w", err)
	}
	return left, nil
}

func grant(ctx context.Context, tx pgx.Tx, role string) (left []string, err error) {
	var (
		database, schema   string
		connects, uses, is bool
	)
	err = tx.QueryRow(ctx, `SELECT current_database()::text, current_schema()::text, has_database_privilege($1, current_database(), 'CONNECT'),
       has_schema_privilege($1, current_schema(), 'USAGE'), $3::text[] <@ coalesce(
         (SELECT setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
          WHERE setrole = $2::text::regrole AND d.datname = current_database()), '{}')`,
		role, quoted(role), configured()).Scan(&database, &schema, &connects, &uses, &is)
	if err != nil {
		return nil, err
	}
	var statements []string
	if !connects {
		statements = append(statements, fmt.Sprintf(`GRANT CONNECT ON DATABASE %s TO %s`, quoted(database), quoted(role)))
	}
	if !uses {
		statements = append(statements, fmt.Sprintf(`GRANT USAGE ON SCHEMA %s TO %s`, quoted(schema), quoted(role)))
	}
	for _, table := range slices.Sorted(maps.Keys(privileges)) {
		statements = append(statements, fmt.Sprintf(`GRANT %s ON %s.%s TO %s`, privileges[table], quoted(schema), quoted(table), quoted(role)))
	}
	if _, err := tx.Exec(ctx, strings.Join(statements, "; ")); err != nil {
		return nil, err
	}
	if is {
		return nil, nil
	}
	settings := roleSettings(role, database)
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a savepoint: whoever may not do this, may grant
		_, err := tx.Exec(ctx, strings.Join(settings, " "))
		return err
	})
	if sqlState(err) == codeInsufficientPrivilege {
		return settings, nil
	}
	return nil, err
}

// configured is how PostgreSQL keeps the settings of our sessions with a role.
func configured() []string {
	var all []string
	for _, s := range sessionSettings {
		name := s.name
		if name == "timezone" {
			name = "TimeZone"
		}
		all = append(all, name+"="+s.value())
	}
	return all
}
