package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/oncepay/oncepay/internal/postgres"
)

// store reads the database. Nothing in it writes.
type store struct{ db *postgres.DB }

const sqlClock = `/* doctor.clock */ SELECT clock_timestamp()`

func (s store) skew(ctx context.Context) (skew, error) {
	var theirs time.Time
	before := time.Now()
	err := s.db.Conn(ctx).Raw(sqlClock).Row().Scan(&theirs)
	trip := time.Since(before)
	if err != nil {
		return skew{}, fmt.Errorf("read the database's clock: %w", err)
	}
	return skew{ahead: before.Add(trip / 2).Sub(theirs), within: trip / 2}, nil
}

// server is what the server says of itself and of the session that we have.
type server struct {
	Version       string
	VersionNumber int
	InRecovery    bool
	ReadOnly      bool
	Encoding      string
	// Collation is the version of the operating system's rules of sorting that the
	// indexes were built with, and CollationNow the present one; "" is none.
	Collation, CollationNow string

	Fsync, FullPageWrites, Autovacuum, TrackCounts, Checksums bool
	SynchronousCommit, SynchronousStandbys                    string
	Standbys                                                  int
	MaxConnections, Reserved, RoleLimit, DatabaseLimit        int
	TransactionAge                                            int64

	Role                              string
	Superuser, Owner, Creates, Reader bool
	// Remote says that the session comes from another machine, Encrypted that it has
	// TLS.
	Remote, Encrypted bool
}

// sqlServer reads what every role may. state is hidden from most, except as null; a
// sender of a base backup's, or of decoded changes, is no standby's.
const sqlServer = `/* doctor.server */
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS version_number,
       pg_is_in_recovery() AS in_recovery, current_setting('default_transaction_read_only')::boolean AS read_only,
       current_setting('server_encoding') AS encoding,
       current_setting('fsync')::boolean AS fsync, current_setting('full_page_writes')::boolean AS full_page_writes,
       current_setting('autovacuum')::boolean AS autovacuum, current_setting('track_counts')::boolean AS track_counts,
       current_setting('data_checksums')::boolean AS checksums,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('synchronous_standby_names') AS synchronous_standbys,
       (SELECT count(*) FROM pg_stat_replication p WHERE p.state IS DISTINCT FROM 'backup'
          AND NOT EXISTS (SELECT FROM pg_replication_slots l WHERE l.active_pid = p.pid AND l.slot_type = 'logical')) AS standbys,
       current_setting('max_connections')::integer AS max_connections,
       current_setting('superuser_reserved_connections')::integer + coalesce(current_setting('reserved_connections', true)::integer, 0) AS reserved,
       r.rolconnlimit AS role_limit, d.datconnlimit AS database_limit,
       (SELECT max(greatest(age(a.datfrozenxid), mxid_age(a.datminmxid))) FROM pg_database a) AS transaction_age,
       r.rolname::text AS role, r.rolsuper AS superuser,
       coalesce((SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = to_regclass('transactions')), false) AS owner,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS creates,
       inet_client_addr() IS NOT NULL AND NOT (inet_client_addr() << inet '127.0.0.0/8' OR inet_client_addr() = inet '::1') AS remote,
       coalesce((SELECT l.ssl FROM pg_stat_ssl l WHERE l.pid = pg_backend_pid()), false) AS encrypted
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()`

// sqlCollation is for PostgreSQL 15 and newer, which remember the version.
const (
	sqlCollation = `/* doctor.collation */
SELECT coalesce(d.datcollversion, '') AS collation, coalesce(pg_database_collation_actual_version(d.oid), '') AS collation_now
FROM pg_database d WHERE d.datname = current_database()`
	collationSince = 150000
)

func (s store) server(ctx context.Context) (server, error) {
	var v server
	if err := s.db.Conn(ctx).Raw(sqlServer).Scan(&v).Error; err != nil {
		return server{}, fmt.Errorf("read the server's settings: %w", err)
	}
	if v.VersionNumber < collationSince {
		return v, nil
	}
	if err := s.db.Conn(ctx).Raw(sqlCollation).Row().Scan(&v.Collation, &v.CollationNow); err != nil {
		return server{}, fmt.Errorf("read the version of the collation: %w", err)
	}
	return v, nil
}

// keys are the merchants, and their keys by mode.
type keys struct {
	merchants int
	modes     []modeKeys
}

// modeKeys count the usable keys of one mode.
type modeKeys struct {
	Mode                     string
	Usable, Expiring, Unused int
}

func (k keys) of(mode string) modeKeys {
	for _, m := range k.modes {
		if m.Mode == mode {
			return m
		}
	}
	return modeKeys{Mode: mode}
}

// all counts the usable keys of every mode.
func (k keys) all() modeKeys {
	var sum modeKeys
	for _, m := range k.modes {
		sum.Usable += m.Usable
		sum.Expiring += m.Expiring
		sum.Unused += m.Unused
	}
	return sum
}

const sqlMerchants = `/* doctor.merchants */ SELECT count(*) FROM merchants`

// sqlKeys counts keys that end soon only if they are still in use or have no
// successor: in a rotation, the old one is to end. Uses were not noted before the
// first instance wrote down which database this is.
const sqlKeys = `/* doctor.keys */
WITH usable AS (
    SELECT k.* FROM api_keys k JOIN merchants m ON m.account_id = k.account_id
    WHERE k.revoked_at IS NULL AND m.disabled_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()))
SELECT u.mode, count(*) AS usable,
       count(*) FILTER (WHERE u.expires_at < clock_timestamp() + $1::bigint * interval '1 second'
           AND (u.last_used_at > clock_timestamp() - interval '1 hour'
               OR NOT EXISTS (SELECT FROM usable o WHERE o.account_id = u.account_id AND o.mode = u.mode AND o.expires_at IS NULL))) AS expiring,
       count(*) FILTER (WHERE coalesce(u.last_used_at, greatest(u.created_at, i.noted_at)) < clock_timestamp() - $2::bigint * interval '1 second') AS unused
FROM usable u LEFT JOIN database_identity i ON true
GROUP BY u.mode ORDER BY u.mode`

func (s store) keys(ctx context.Context) (keys, error) {
	var k keys
	if err := s.db.Conn(ctx).Raw(sqlMerchants).Row().Scan(&k.merchants); err != nil {
		return keys{}, fmt.Errorf("count the merchants: %w", err)
	}
	err := s.db.Conn(ctx).Raw(sqlKeys, int64(expiringSoon.Seconds()), int64(unusedLong.Seconds())).Scan(&k.modes).Error
	if err != nil {
		return keys{}, fmt.Errorf("count the keys: %w", err)
	}
	return k, nil
}

// work is what is not settled.
type work struct {
	Stale, Parked int
	ParkedSeconds int64 // since the first was
}

// sqlWork reads the index of unresolved rows. What the provider has accepted may
// take days, and is no fault.
const sqlWork = `/* doctor.work */
SELECT count(*) FILTER (WHERE t.parked_at IS NULL AND t.status = 'CREATED' AND t.created_at < clock_timestamp() - $1::bigint * interval '1 second') AS stale,
       count(t.parked_at) AS parked,
       coalesce(extract(epoch FROM clock_timestamp() - min(t.parked_at)), 0)::bigint AS parked_seconds
FROM transactions t WHERE t.lease_until IS NOT NULL`

func (s store) work(ctx context.Context) (work, error) {
	var w work
	if err := s.db.Conn(ctx).Raw(sqlWork, int64(staleAfter.Seconds())).Scan(&w).Error; err != nil {
		return work{}, fmt.Errorf("count what is unresolved: %w", err)
	}
	return w, nil
}
