package merchants

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/postgres"
)

// overlap is how far a refresh looks back before the last reading. A row's changed_at
// is set before its commit: by writeTimeout at most, for whoever was told of it.
const overlap = 30 * time.Second

// changeColumns are what the directory is made of. Lists are text in which commas
// separate, so that null, no list, is not the same as an empty one.
const changeColumns = `m.account_id, m.name, m.idempotency_policy, array_to_string(m.origins, ',') AS origins, m.disabled_at IS NOT NULL AS disabled,
       k.id, k.public_api_key, k.mode, k.secret_hash, k.revoked_at IS NOT NULL AS revoked, k.expires_at,
       array_to_string(k.allowed_networks, ',') AS allowed_networks`

// sqlDirectory reads every key that is not revoked, with what it has of its merchant
// and the database's clock: at least one row.
const sqlDirectory = `/* merchants.directory */
SELECT statement_timestamp() AS read_at, c.* FROM (VALUES (1)) one LEFT JOIN (
  SELECT ` + changeColumns + `
  FROM merchants m JOIN api_keys k ON k.account_id = m.account_id AND k.revoked_at IS NULL
) c ON true`

// sqlChanges reads all keys of the merchants that changed at or after $1, and the other
// keys that did, with the database's clock: at least one row. The two halves have an
// index each.
const sqlChanges = `/* merchants.changes */
SELECT statement_timestamp() AS read_at, c.* FROM (VALUES (1)) one LEFT JOIN (
  SELECT ` + changeColumns + `
  FROM merchants m JOIN api_keys k ON k.account_id = m.account_id
  WHERE m.changed_at >= $1::timestamptz
  UNION ALL
  SELECT ` + changeColumns + `
  FROM api_keys k JOIN merchants m ON m.account_id = k.account_id
  WHERE k.changed_at >= $1::timestamptz AND m.changed_at < $1::timestamptz
) c ON true`

// sqlRevokeDue turns keys ($1 and $2, accounts and ids) whose time is over into
// revoked ones, which releases that know nothing of expiry understand. Whichever
// instance comes first does it; nobody waits for another.
const sqlRevokeDue = `/* merchants.revoke_due */
WITH due AS (
  SELECT k.account_id, k.id FROM api_keys k
  WHERE (k.account_id, k.id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))
    AND k.revoked_at IS NULL AND k.expires_at <= clock_timestamp()
  FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE api_keys k SET revoked_at = k.expires_at, changed_at = clock_timestamp()
FROM due WHERE k.account_id = due.account_id AND k.id = due.id`

// sqlNoteUses writes when keys ($1 and $2) were used last ($3, microseconds). Several
// instances may have used the same: rows are locked in one order, and the latest use
// stays. changed_at is left alone: nobody has to read that.
const sqlNoteUses = `/* merchants.note_uses */
WITH used AS (
  SELECT k.account_id, k.id, to_timestamp(u.at / 1000000.0) AS at
  FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) u (account_id, id, at)
  JOIN api_keys k ON k.account_id = u.account_id AND k.id = u.id
  ORDER BY k.account_id, k.id
  FOR NO KEY UPDATE OF k
)
UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, used.at)
FROM used WHERE k.account_id = used.account_id AND k.id = used.id`

const sqlInsertMerchant = `/* merchants.insert */
INSERT INTO merchants (account_id, name, idempotency_policy, origins)
VALUES ($1::uuid, $2::text, $3::text, string_to_array($4::text, ','))`

// sqlLockMerchant keeps others from making keys for a merchant at the same time, who
// would count the same ones. Payments, whose rows refer to the merchant, go on.
const sqlLockMerchant = `/* merchants.lock */
SELECT 1 FROM merchants WHERE account_id = $1::uuid FOR NO KEY UPDATE`

// sqlInsertKey makes a key unless the account has enough ($7) in this mode.
const sqlInsertKey = `/* merchants.insert_key */
INSERT INTO api_keys (account_id, id, mode, public_api_key, secret_hash, allowed_networks)
SELECT $1::uuid, $2::uuid, $3::text, $4::text, $5::bytea, string_to_array($6::text, ',')::cidr[]
WHERE (SELECT count(*) FROM api_keys k WHERE k.account_id = $1 AND k.mode = $3
         AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())) < $7::integer`

// sqlExpireKey lets a key end in $3 seconds; in none, it has ended. One that ends
// already keeps its time.
const sqlExpireKey = `/* merchants.expire_key */
UPDATE api_keys k SET expires_at = now.at + make_interval(secs => $3::integer), changed_at = now.at,
       revoked_at = CASE WHEN $3::integer = 0 THEN now.at END
FROM (SELECT clock_timestamp() AS at) now
WHERE k.account_id = $1::uuid AND k.id = $2::uuid AND k.revoked_at IS NULL AND k.expires_at IS NULL`

// sqlRevokeKey dates a key that is revoked already anew: whoever was not told whether
// it worked, and asks again, is told of a change that every instance finds.
const sqlRevokeKey = `/* merchants.revoke_key */
UPDATE api_keys k SET revoked_at = coalesce(k.revoked_at, CASE WHEN k.expires_at <= now.at THEN k.expires_at END, now.at), changed_at = now.at
FROM (SELECT clock_timestamp() AS at) now
WHERE k.account_id = $1::uuid AND k.id = $2::uuid`

const sqlRestrictKey = `/* merchants.restrict_key */
UPDATE api_keys SET allowed_networks = string_to_array($3::text, ',')::cidr[], changed_at = clock_timestamp()
WHERE account_id = $1::uuid AND id = $2::uuid`

const sqlDisableMerchant = `/* merchants.disable */
UPDATE merchants m SET disabled_at = CASE WHEN $2::boolean THEN coalesce(m.disabled_at, now.at) END, changed_at = now.at
FROM (SELECT clock_timestamp() AS at) now
WHERE m.account_id = $1::uuid`

const merchantColumns = `account_id, name, idempotency_policy, array_to_string(origins, ',') AS origins, created_at, disabled_at`

// sqlUpdateMerchant changes a merchant's name ($2), policy ($3) and origins ($4); null
// leaves each as it is, so that of two changes at once neither undoes the other. Like every
// change of a merchant it has all of its keys read again, which is how each learns of it.
const sqlUpdateMerchant = `/* merchants.update */
UPDATE merchants SET name = coalesce($2::text, name), idempotency_policy = coalesce($3::text, idempotency_policy),
       origins = coalesce(string_to_array($4::text, ','), origins), changed_at = clock_timestamp()
WHERE account_id = $1::uuid
RETURNING ` + merchantColumns

const sqlMerchant = `/* merchants.one */
SELECT ` + merchantColumns + ` FROM merchants WHERE account_id = $1::uuid`

// sqlMerchants reads a page of merchants, the newest first: their ids begin with the
// time.
const sqlMerchants = `/* merchants.page */
SELECT ` + merchantColumns + ` FROM merchants WHERE $1::uuid IS NULL OR account_id < $1
ORDER BY account_id DESC LIMIT $2::integer`

// keyColumns show a key as what it is, whether or not a sweep has been there.
const keyColumns = `id, account_id, mode, public_api_key, created_at, last_used_at, expires_at,
       coalesce(revoked_at, CASE WHEN expires_at <= clock_timestamp() THEN expires_at END) AS revoked_at,
       array_to_string(allowed_networks, ',') AS allowed_networks`

const sqlKey = `/* merchants.key */
SELECT ` + keyColumns + ` FROM api_keys WHERE account_id = $1::uuid AND id = $2::uuid`

// sqlLockKey reads a key for whoever changes it.
const sqlLockKey = `/* merchants.lock_key */
SELECT ` + keyColumns + ` FROM api_keys WHERE account_id = $1::uuid AND id = $2::uuid FOR NO KEY UPDATE`

const sqlKeys = `/* merchants.keys */
SELECT ` + keyColumns + ` FROM api_keys WHERE account_id = $1::uuid AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3::integer`

// change is a key with what it has of its merchant; without a key, it is the one row of
// a reading that found nothing.
type change struct {
	ReadAt            time.Time
	AccountID         uuid.UUID
	Name              string
	IdempotencyPolicy string
	Origins           string
	Disabled          bool
	ID                uuid.UUID
	PublicAPIKey      *string
	Mode              string
	SecretHash        []byte
	Revoked           bool
	ExpiresAt         *time.Time
	AllowedNetworks   *string
}

// entry is the change's key as the directory has it.
func (c change) entry() *entry {
	e := &entry{
		id: c.ID, publicKey: *c.PublicAPIKey, merchantName: c.Name, origins: originsOf(c.Origins),
		caller: Caller{AccountID: c.AccountID, Mode: c.Mode, Policy: c.IdempotencyPolicy},
		hash:   [sha256.Size]byte(c.SecretHash), networks: networksOf(c.AllowedNetworks), use: &use{},
	}
	if c.ExpiresAt != nil {
		e.expires = *c.ExpiresAt
	}
	return e
}

// reading is what changed, and the database's clock when it was asked.
type reading struct {
	changes []change
	at      time.Time
}

type store struct{ db *postgres.DB }

// changes reads what changed since that reading; everything if it is zero.
func (s store) changes(ctx context.Context, since time.Time) (reading, error) {
	var rows []change
	q := s.db.Conn(ctx).Raw(sqlDirectory)
	if !since.IsZero() {
		q = s.db.Conn(ctx).Raw(sqlChanges, since.Add(-overlap))
	}
	if err := q.Scan(&rows).Error; err != nil {
		return reading{}, fmt.Errorf("read the directory: %w", err)
	}
	return reading{changes: rows, at: rows[0].ReadAt}, nil
}

func (s store) revokeDue(ctx context.Context, due []*entry) error {
	accounts, ids := idsOf(due)
	if err := s.db.Conn(ctx).Exec(sqlRevokeDue, accounts, ids).Error; err != nil {
		return fmt.Errorf("revoke keys whose time is over: %w", err)
	}
	return nil
}

// noteUses writes the last use of keys, in microseconds of the database's clock.
func (s store) noteUses(ctx context.Context, used []*entry, at []int64) error {
	accounts, ids := idsOf(used)
	if err := s.db.Conn(ctx).Exec(sqlNoteUses, accounts, ids, at).Error; err != nil {
		return fmt.Errorf("write the last use of keys: %w", err)
	}
	return nil
}

func idsOf(entries []*entry) (accounts, ids []string) {
	for _, e := range entries {
		accounts, ids = append(accounts, e.caller.AccountID.String()), append(ids, e.id.String())
	}
	return accounts, ids
}

func errNoMerchant() error {
	return apierr.New(apierr.NotFound, "there is no merchant with this account_id")
}

func errNoKey() error { return apierr.New(apierr.NotFound, "this merchant has no key with this id") }

func errRevoked() error {
	return apierr.New(apierr.InvalidState, "the key is revoked: make another key")
}

func (s store) insertMerchant(tx postgres.Tx, m Merchant) error {
	if err := tx.Exec(sqlInsertMerchant, m.AccountID, m.Name, m.IdempotencyPolicy, strings.Join(m.Origins, ",")).Error; err != nil {
		return fmt.Errorf("insert the merchant: %w", err)
	}
	return nil
}

func (s store) lockMerchant(tx postgres.Tx, account uuid.UUID) error {
	return one("lock the merchant", tx.Exec(sqlLockMerchant, account), errNoMerchant)
}

func (s store) updateMerchant(tx postgres.Tx, account uuid.UUID, u Update) (Merchant, error) {
	var origins *string
	if u.Origins != nil {
		origins = new(strings.Join(u.Origins, ","))
	}
	var r merchantRow
	err := one("update the merchant", tx.Raw(sqlUpdateMerchant, account, u.Name, u.IdempotencyPolicy, origins).Scan(&r), errNoMerchant)
	if err != nil {
		return Merchant{}, err
	}
	return r.merchant(), nil
}

func (s store) disableMerchant(tx postgres.Tx, account uuid.UUID, disabled bool) error {
	return one("disable the merchant", tx.Exec(sqlDisableMerchant, account, disabled), errNoMerchant)
}

// insertKey makes a key; networks nil are all.
func (s store) insertKey(tx postgres.Tx, account uuid.UUID, p KeyPair, networks []netip.Prefix) error {
	hash := hashSecret(p.PrivateSecretKey)
	insert := tx.Exec(sqlInsertKey, account, p.ID, p.Mode, p.PublicAPIKey, hash[:], textOf(networks), maxKeys)
	return one("insert the key", insert, func() error {
		return apierr.New(apierr.InvalidState, fmt.Sprintf("the merchant has %d keys in %s mode that are not revoked, which is the most: revoke one first", maxKeys, p.Mode))
	})
}

// expireKey lets an active key end, and returns it as it is then.
func (s store) expireKey(tx postgres.Tx, account, id uuid.UUID, in time.Duration) (k Key, err error) {
	expire := tx.Exec(sqlExpireKey, account, id, int(in.Seconds()))
	if k, err = s.key(tx, account, id); err != nil {
		return Key{}, err
	}
	return k, one("let the key expire", expire, func() error {
		if k.Status == Expiring {
			return apierr.New(apierr.InvalidState, "the key has been rotated already, and ends by itself: rotate its successor, or make another key")
		}
		return errRevoked()
	})
}

func (s store) revokeKey(tx postgres.Tx, account, id uuid.UUID) error {
	return one("revoke the key", tx.Exec(sqlRevokeKey, account, id), errNoKey)
}

func (s store) restrictKey(tx postgres.Tx, account, id uuid.UUID, networks []netip.Prefix) error {
	return one("restrict the key", tx.Exec(sqlRestrictKey, account, id, textOf(networks)), errNoKey)
}

// one is nil if a statement concerned a row, and otherwise the error of whoever is not
// there.
func one(what string, done postgres.Tx, missing func() error) error {
	if done.Error != nil {
		return fmt.Errorf("%s: %w", what, done.Error)
	}
	if done.RowsAffected == 0 {
		return missing()
	}
	return nil
}

// merchantRow is a merchant as the database has it.
type merchantRow struct {
	AccountID                        uuid.UUID
	Name, IdempotencyPolicy, Origins string
	CreatedAt                        time.Time
	DisabledAt                       *time.Time
}

func (r merchantRow) merchant() Merchant {
	return Merchant{
		AccountID: r.AccountID, Name: r.Name, IdempotencyPolicy: r.IdempotencyPolicy, Origins: originsOf(r.Origins),
		CreatedAt: r.CreatedAt, DisabledAt: r.DisabledAt,
	}
}

func (s store) merchant(tx postgres.Tx, account uuid.UUID) (Merchant, error) {
	var r merchantRow
	if err := one("read the merchant", tx.Raw(sqlMerchant, account).Scan(&r), errNoMerchant); err != nil {
		return Merchant{}, err
	}
	return r.merchant(), nil
}

// merchants reads a page, the newest first; after is uuid.Nil on the first.
func (s store) merchants(ctx context.Context, after uuid.UUID, limit int) ([]Merchant, error) {
	var rows []merchantRow
	if err := s.db.Conn(ctx).Raw(sqlMerchants, orNone(after), limit).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("read the merchants: %w", err)
	}
	ms := make([]Merchant, len(rows))
	for i, r := range rows {
		ms[i] = r.merchant()
	}
	return ms, nil
}

// keyRow is a key as the database has it.
type keyRow struct {
	ID, AccountID                    uuid.UUID
	Mode, PublicAPIKey               string
	CreatedAt                        time.Time
	LastUsedAt, ExpiresAt, RevokedAt *time.Time
	AllowedNetworks                  *string
}

func (r keyRow) key() Key {
	k := Key{
		ID: r.ID, AccountID: r.AccountID, Mode: r.Mode, PublicAPIKey: r.PublicAPIKey, Status: Active,
		CreatedAt: r.CreatedAt, LastUsedAt: r.LastUsedAt, ExpiresAt: r.ExpiresAt, RevokedAt: r.RevokedAt,
		Networks: networksOf(r.AllowedNetworks),
	}
	switch {
	case k.RevokedAt != nil:
		k.Status = Revoked
	case k.ExpiresAt != nil:
		k.Status = Expiring
	}
	return k
}

func (s store) key(tx postgres.Tx, account, id uuid.UUID) (Key, error) {
	return readKey(tx.Raw(sqlKey, account, id))
}

func (s store) lockKey(tx postgres.Tx, account, id uuid.UUID) (Key, error) {
	return readKey(tx.Raw(sqlLockKey, account, id))
}

func readKey(q postgres.Tx) (Key, error) {
	var r keyRow
	if err := one("read the key", q.Scan(&r), errNoKey); err != nil {
		return Key{}, err
	}
	return r.key(), nil
}

// keys reads a page of a merchant's keys, the newest first.
func (s store) keys(ctx context.Context, account, after uuid.UUID, limit int) ([]Key, error) {
	var rows []keyRow
	if err := s.db.Conn(ctx).Raw(sqlKeys, account, orNone(after), limit).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	ks := make([]Key, len(rows))
	for i, r := range rows {
		ks[i] = r.key()
	}
	return ks, nil
}

func orNone(id uuid.UUID) uuid.NullUUID { return uuid.NullUUID{UUID: id, Valid: id != uuid.Nil} }

// textOf is a list of networks as statements take it.
func textOf(networks []netip.Prefix) *string {
	if networks == nil {
		return nil
	}
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	text := strings.Join(texts, ",")
	return &text
}

// networksOf reads such a list. What cannot be read allows nobody.
func networksOf(text *string) []netip.Prefix {
	if text == nil {
		return nil
	}
	networks := []netip.Prefix{}
	for part := range strings.SplitSeq(*text, ",") {
		if n, ok := parseNetwork(part); ok {
			networks = append(networks, n)
		}
	}
	return networks
}
