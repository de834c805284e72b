package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// sqlUnfit finds, of the tables in $1, those that are not there, have no primary key or
// are emptied by a crash, and indexes that nobody may trust.
const sqlUnfit = `/* postgres.unfit */
WITH ours AS (SELECT name, to_regclass(name) AS id FROM unnest(string_to_array($1::text, ',')) name)
SELECT format('%s is missing', o.name) AS says FROM ours o WHERE o.id IS NULL
UNION ALL
SELECT format('%s has no primary key', o.name) FROM ours o
WHERE o.id IS NOT NULL AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = o.id AND i.indisprimary)
UNION ALL
SELECT format('%s is unlogged, and a crash empties it', o.name) FROM ours o JOIN pg_class c ON c.oid = o.id WHERE c.relpersistence = 'u'
UNION ALL
SELECT format('the index %s is not valid', c.relname) FROM ours o JOIN pg_index i ON i.indrelid = o.id JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid
ORDER BY says`

// Unfit says what is wrong with our tables and their indexes: nothing, unless somebody
// has changed them by hand. It only reads.
func (db *DB) Unfit(ctx context.Context) ([]string, error) {
	var says []string
	names := strings.Join(slices.Sorted(maps.Keys(privileges)), ",")
	if err := db.Conn(ctx).Raw(sqlUnfit, names).Scan(&says).Error; err != nil {
		return nil, fmt.Errorf("look at the tables: %w", err)
	}
	return says, nil
}

// sqlLacking compares what the role may do with what it needs. $1 has a line a table:
// its name and privileges, such as "events SELECT, INSERT". Each is asked about by
// itself, because has_table_privilege is content with any of several.
const sqlLacking = `/* postgres.lacking */
SELECT format('%s on %s', privilege, split_part(line, ' ', 1)) AS says
FROM unnest(string_to_array($1::text, chr(10))) line,
     unnest(string_to_array(substr(line, strpos(line, ' ') + 1), ', ')) privilege
WHERE NOT has_table_privilege(to_regclass(split_part(line, ' ', 1))::oid, privilege)
UNION ALL
SELECT 'USAGE on the schema' WHERE current_schema() IS NULL
ORDER BY says`

// Lacking are the privileges on our tables that the connection's role needs and has
// not, such as "INSERT on events". It only reads.
func (db *DB) Lacking(ctx context.Context) ([]string, error) {
	var lines []string
	for _, table := range slices.Sorted(maps.Keys(privileges)) {
		lines = append(lines, table+" "+privileges[table])
	}
	var says []string
	if err := db.Conn(ctx).Raw(sqlLacking, strings.Join(lines, "\n")).Scan(&says).Error; err != nil {
		return nil, fmt.Errorf("read the role's privileges: %w", err)
	}
	return says, nil
}
