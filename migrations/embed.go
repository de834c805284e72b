// Package migrations is the database schema, one purpose a file. Nothing else
// creates or changes a table.
package migrations

import "embed"

// FS holds the migrations in golang-migrate's naming.
//
//go:embed *.sql
var FS embed.FS

// Latest is the version of the newest migration, and the only one that this
// build can serve. A test compares it with the files.
const Latest = 4
