package postgres

// What only tests may reach.
var (
	MigrateFrom  = migrateFrom
	IsConcurrent = isConcurrent
	Privileges   = privileges
)

// The limits that tests measure against.
const (
	LockTimeout          = lockTimeout
	MigrationLockTimeout = migrationLockTimeout
)
