// Package migrations is the database schema, one purpose a file. Nothing else
// creates or changes a table.
package migrations

import "embed"

// FS holds the migrations in golang-migrate's naming.
//
//go:embed *.sql
var FS embed.FS

// Latest is the version of the newest migration, and the least that this build can
// serve. A test compares it with the files.
const Latest = 9

// Ahead is by how much a schema may be newer. The schema is migrated first, and the
// binaries that run, and may be started again, follow; so a release has at most one
// migration, and one that the release before can live with.
const Ahead = 1
