package postgres

// What only tests may reach.
var (
	MigrateFrom    = migrateFrom
	MigrationParts = parts
	Privileges     = privileges
)

// The limits that tests measure against.
const (
	LockTimeout          = lockTimeout
	MigrationLockTimeout = migrationLockTimeout
)
