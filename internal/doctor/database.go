package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/oncepay/oncepay/internal/postgres"
)

const (
	// oldestVersion is the first PostgreSQL whose statements and settings are all
	// there; newestVersion the last one that was known when this was written.
	oldestVersion = 14
	newestVersion = 18
	// ageWarn and ageBad are transactions since a database was frozen. Autovacuum
	// freezes at 200 million; at two thousand, PostgreSQL stops taking writes.
	ageWarn = 1_000_000_000
	ageBad  = 1_800_000_000
	// instances at a time: one, and the one that follows it in a rolling restart.
	instances = 2
)

func reachable(f *facts) verdict {
	if err := f.set.Database.Err; err != nil {
		return bad(err.Error(), "Give the database's URL in one place only, as a variable or as a file that the process can read.")
	}
	if f.set.Database.Value == "" {
		return bad("DATABASE_URL is not set", "Give it as postgres://user@host/database.")
	}
	if f.reach != nil {
		return unreachable(f.reach)
	}
	return fine("it answers")
}

// unreachable tells apart why a database does not let us in. Neither the URL nor what
// the server quotes of it is told.
func unreachable(err error) verdict {
	if v, known := unreachableByNetwork(err); known {
		return v
	}
	switch state(err) {
	case "28P01":
		return bad("the database refuses the password, or the role does not exist", "Correct the user and its password in DATABASE_URL.")
	case "28000":
		return bad("the database does not let this role in from here: it does not exist, or pg_hba.conf has no line for it",
			"Create the role, or let it in with a line in pg_hba.conf and `SELECT pg_reload_conf()`.")
	case "3D000":
		return bad("the server has no such database", "Create it (`createdb`), then `payments migrate up`; or correct its name in DATABASE_URL.")
	case "42501":
		return bad("the role may not connect to this database", "payments migrate up --grant-to ROLE")
	case "53300":
		return bad("the server has no connection left", "Raise max_connections, run fewer instances, or put PgBouncer in between.")
	case "57P03":
		return bad("the server is starting up, recovering or stopping", "Wait, and look into PostgreSQL's log.")
	case "":
	default:
		return bad("the database refuses the connection: "+postgres.Describe(err), "Look into PostgreSQL's log.")
	}
	if strings.Contains(err.Error(), "URL cannot be read") {
		return bad("DATABASE_URL cannot be read, or a certificate's file that it names", "Give it as postgres://user@host/database; characters such as @ and / in a password are written as %40 and %2F.")
	}
	return bad("the connection breaks off before it is one: something else may listen there", "Correct host and port in DATABASE_URL, and look into PostgreSQL's log.")
}

func unreachableByNetwork(err error) (verdict, bool) {
	var (
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		certificate *tls.CertificateVerificationError
	)
	switch _, dns := errors.AsType[*net.DNSError](err); {
	case dns:
		return bad("the name of the database's host cannot be resolved", "Correct the host in DATABASE_URL, or this machine's resolver."), true
	case errors.Is(err, syscall.ECONNREFUSED):
		return bad("nobody listens at the database's address", "Start PostgreSQL, or correct host and port in DATABASE_URL; see listen_addresses, too."), true
	case errors.Is(err, fs.ErrNotExist):
		return bad("there is no socket, or no file of a certificate, where DATABASE_URL says", "Start PostgreSQL, or correct the folder in DATABASE_URL."), true
	case errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &certificate):
		return bad("the database's certificate is not to be trusted", "Give the right sslrootcert, and the host that its certificate names, in DATABASE_URL."), true
	case strings.Contains(err.Error(), "refused TLS"):
		return bad("the database has no TLS, and DATABASE_URL asks for it", "Let the server have `ssl = on` with a certificate; sslmode=disable only on the same machine."), true
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return bad(fmt.Sprintf("the database does not answer within %s", plain(lookLimit)), "Look at firewalls and routes between here and there, and whether the server is overloaded."), true
	}
	return verdict{}, false
}

func session(f *facts) verdict {
	if f.refused != nil {
		next := "Give --pgbouncer, if it is PgBouncer that is in between; or a URL that leads to PostgreSQL itself. docs/operate/database.md"
		if f.set.PgBouncer {
			next = "Set them for the role: payments migrate up --grant-to ROLE, with MIGRATE_DATABASE_URL; docs/operate/database.md"
		}
		return bad("sessions do not get the time-outs and the isolation that the product relies on", next)
	}
	return fine("sessions have our time-outs, isolation and time zone")
}

func encrypted(f *facts) verdict {
	if s := f.server.got; s.Remote && !s.Encrypted {
		return warn("the database is on another machine, and the connection has no TLS", "Add sslmode=verify-full and sslrootcert to DATABASE_URL.")
	}
	return fine("the connection has TLS, or does not leave the machine")
}

func version(f *facts) verdict {
	s := f.server.got
	switch major := s.VersionNumber / 10000; {
	case major < oldestVersion:
		return bad(fmt.Sprintf("PostgreSQL %s is older than %d, the oldest that is supported", s.Version, oldestVersion), "Upgrade it with pg_upgrade.")
	case major > newestVersion:
		return warn(fmt.Sprintf("PostgreSQL %s is newer than %d, the newest that this binary knows", s.Version, newestVersion), "Look for a newer payments, and try yours out first.")
	}
	return fine("PostgreSQL " + s.Version)
}

func writable(f *facts) verdict {
	s := f.server.got
	switch {
	case s.InRecovery:
		return bad("this is a standby, or still recovering: it takes no writes", "Let DATABASE_URL lead to the primary; target_session_attrs=read-write in it finds that among several hosts.")
	case s.ReadOnly:
		return bad("default_transaction_read_only is on: it takes no writes", fmt.Sprintf("Find where it is set (`\\drds` in psql, postgresql.conf), such as ALTER ROLE %q RESET default_transaction_read_only", s.Role))
	}
	return fine("it takes writes")
}

func schema(f *facts) verdict {
	switch {
	case errors.Is(f.misfit, postgres.ErrSchema):
		says, next, _ := strings.Cut(f.misfit.Error(), "; ")
		return bad(says, next)
	case f.misfit != nil:
		return bad("the version of the schema cannot be read: "+f.misfit.Error(), "payments migrate up --grant-to ROLE")
	}
	return fine("it fits this binary")
}

func tables(f *facts) verdict {
	if unfit := f.tables.got; len(unfit) > 0 {
		return bad("a table or index does not keep its promise: "+strings.Join(unfit, "; "),
			"Somebody has changed the schema by hand. Compare it with a fresh one (`pg_dump --schema-only`), and mend it: REINDEX, ADD PRIMARY KEY, SET LOGGED.")
	}
	return fine("all tables are logged and have their keys, all indexes are valid")
}

func privileges(f *facts) verdict {
	if lacking := f.lacking.got; len(lacking) > 0 {
		return bad("the role lacks "+strings.Join(lacking, ", "), fmt.Sprintf("payments migrate up --grant-to %s", f.server.got.Role))
	}
	return fine("the role has what it needs")
}

func role(f *facts) verdict {
	s := f.server.got
	const next = "Let instances have a role of their own: CREATE ROLE oncepay_app LOGIN PASSWORD '…', then payments migrate up --grant-to oncepay_app; docs/operate/database.md"
	switch {
	case s.Superuser:
		return warn("instances would run as a superuser: whoever breaks into one has the server", next)
	case s.Owner:
		return warn("instances would run as the owner of the tables, who can drop them", next)
	case s.Creates:
		return warn("the role may create tables in the schema", "REVOKE CREATE ON SCHEMA public FROM PUBLIC, or from the role if it was granted to it; docs/operate/database.md")
	}
	return fine("the role owns nothing, and may create nothing")
}

func encoding(f *facts) verdict {
	if e := f.server.got.Encoding; e != "UTF8" {
		return bad("the database's encoding is "+e+": not every text of a merchant's can be kept", "Create another with ENCODING 'UTF8' TEMPLATE template0, and bring the data over with pg_dump.")
	}
	return fine("UTF8")
}

func collation(f *facts) verdict {
	s := f.server.got
	if s.Collation != s.CollationNow {
		return bad("the operating system sorts otherwise than when the indexes were built: a nonce that is there may not be found, and is charged again",
			"Stop all instances; REINDEX DATABASE, then ALTER DATABASE … REFRESH COLLATION VERSION.")
	}
	return fine("indexes were built with the present rules of sorting")
}

func fsync(f *facts) verdict {
	if !f.server.got.Fsync {
		return bad("fsync is off: a loss of power forgets answers that were given, and may destroy the database", "fsync = on in postgresql.conf, then SELECT pg_reload_conf()")
	}
	return fine("on")
}

func fullPageWrites(f *facts) verdict {
	if !f.server.got.FullPageWrites {
		return bad("full_page_writes is off: a loss of power may leave half-written pages", "full_page_writes = on in postgresql.conf, then SELECT pg_reload_conf()")
	}
	return fine("on")
}

func synchronousCommit(f *facts) verdict {
	s := f.server.got
	next := fmt.Sprintf("Set it to on in postgresql.conf; and where it was set otherwise: ALTER ROLE %q RESET synchronous_commit, ALTER DATABASE … RESET synchronous_commit", s.Role)
	switch s.SynchronousCommit {
	case "off":
		return bad("synchronous_commit is off for this role and database: a crash forgets nonces that were answered, and charges them again", next)
	case "local":
		return bad("synchronous_commit is local: a failover forgets nonces that were answered, whatever standbys there are", next)
	}
	return fine(s.SynchronousCommit)
}

func standbys(f *facts) verdict {
	s := f.server.got
	switch {
	case s.InRecovery:
		return fine("a standby itself")
	case s.Standbys > 0 && s.SynchronousStandbys == "":
		return warn(counted(s.Standbys, "receiver of the log is", "receivers of the log are")+" attached, and none is synchronous: whoever promotes one forgets what was answered last",
			"Set synchronous_standby_names; docs/operate/scale-out.md tells what it costs. Ignore this where they only archive.")
	case s.Standbys == 0 && s.SynchronousStandbys != "":
		return bad("synchronous_standby_names is set, and no standby is attached: no commit ever ends", "Attach the standby; or, if you can afford to lose it, empty synchronous_standby_names and SELECT pg_reload_conf()")
	case s.Standbys == 0:
		return fine("there are none")
	}
	return fine("a synchronous one is attached")
}

func checksums(f *facts) verdict {
	if !f.server.got.Checksums {
		return warn("data checksums are off: a failing disk is not noticed", "With the server stopped: pg_checksums --enable")
	}
	return fine("on")
}

func connections(f *facts) verdict {
	s := f.server.got
	have := s.MaxConnections - s.Reserved
	for _, limit := range []int{s.RoleLimit, s.DatabaseLimit} {
		if limit >= 0 { // -1 is none
			have = min(have, limit)
		}
	}
	const next = "Raise max_connections (or the role's or the database's CONNECTION LIMIT), or put PgBouncer in between: --pgbouncer"
	switch {
	case have < postgres.DefaultMaxConns:
		return bad(fmt.Sprintf("%d connections are for this role, and one instance takes up to %d", have, postgres.DefaultMaxConns), next)
	case have < instances*postgres.DefaultMaxConns:
		return warn(fmt.Sprintf("%d connections are for this role: not enough for two instances with up to %d each, as in a rolling restart", have, postgres.DefaultMaxConns), next)
	}
	return fine(fmt.Sprintf("%d, enough for %d instances", have, have/postgres.DefaultMaxConns))
}

func autovacuum(f *facts) verdict {
	if s := f.server.got; !s.Autovacuum || !s.TrackCounts {
		return warn("autovacuum is off: tables grow, and get slow", "autovacuum = on and track_counts = on in postgresql.conf, then SELECT pg_reload_conf()")
	}
	return fine("on")
}

func transactionIDs(f *facts) verdict {
	age := f.server.got.TransactionAge
	says := fmt.Sprintf("the oldest transaction id is %d million transactions old; at about 2000 million PostgreSQL takes no more writes", age/1_000_000)
	const next = "VACUUM FREEZE, as a superuser; and find what holds it up: old transactions, prepared ones (pg_prepared_xacts), replication slots."
	switch {
	case age > ageBad:
		return bad(says, next)
	case age > ageWarn:
		return warn(says, next)
	}
	return fine(fmt.Sprintf("the oldest transaction id is %d million transactions old", age/1_000_000))
}

func identity(f *facts) verdict {
	n := f.identity.got
	switch {
	case n.Was == postgres.Identity{}:
		return fine("not noted yet; the first instance that serves does it")
	case !n.Differs():
		return fine("the one that was noted on " + day(n.At))
	}
	says := "it is another database than the one that was noted on " + day(n.At) + ": a copy, or restored from a dump"
	if n.Now.System == n.Was.System {
		says = fmt.Sprintf("it is on timeline %d, and %d was noted on %s: a standby was promoted, or it was restored to a point in time", n.Now.Timeline, n.Was.Timeline, day(n.At))
	}
	return bad(says+". It may have forgotten nonces that were answered, and would charge them again",
		"Keep the API closed until you have reconciled with the provider's records (docs/operate/backup.md); a synchronous standby has forgotten nothing. Then: payments doctor --accept-database")
}
