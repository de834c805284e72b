package telemetry

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/postgres"
)

// minutesStore keeps the figures by minute.
type minutesStore struct{ db *postgres.DB }

const sqlMinute = `/* telemetry.minutes_now */
SELECT date_trunc('minute', clock_timestamp()) AS minute`

// sqlSaveMinute writes what a minute ($1) of one process ($2) has come to. What has been
// counted only grows, so a statement that was held up somewhere, and arrives after a later
// one, changes nothing.
const sqlSaveMinute = `/* telemetry.minutes_save */
INSERT INTO request_minutes AS m (minute, instance_id, requests, failures, began, replayed, conflicts, durations)
VALUES ($1::timestamptz, $2::uuid, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint, string_to_array($8::text, ',')::bigint[])
ON CONFLICT (minute, instance_id) DO UPDATE
SET requests = excluded.requests, failures = excluded.failures, began = excluded.began, replayed = excluded.replayed,
    conflicts = excluded.conflicts, durations = excluded.durations
WHERE m.requests <= excluded.requests`

// sqlReadMinutes adds the instances up: one row per step ($2, microseconds) of the last
// span ($1, microseconds) in which there was something, one for the running minute, and at
// least one, which tells what the database's clock made of the span. It reads the primary
// key from the first step on. A release with other bounds has another number of durations;
// theirs are left out, because they cannot be added to these.
const sqlReadMinutes = `/* telemetry.minutes_read */
WITH span AS (
  SELECT now.read_at, now.running, date_bin($2::bigint * interval '1 microsecond', now.running - $1::bigint * interval '1 microsecond', timestamptz 'epoch') AS first
  FROM (SELECT at.read_at, date_trunc('minute', at.read_at) AS running FROM (SELECT clock_timestamp() AS read_at) at) now
)
SELECT s.read_at, s.first, s.running, f.* FROM span s LEFT JOIN LATERAL (
  SELECT date_bin($2::bigint * interval '1 microsecond', r.minute, timestamptz 'epoch') AS begin, r.minute = s.running AS is_running,
         sum(r.requests)::bigint AS requests, sum(r.failures)::bigint AS failures, sum(r.began)::bigint AS began,
         sum(r.replayed)::bigint AS replayed, sum(r.conflicts)::bigint AS conflicts,
         concat_ws(',', coalesce(sum(r.d[1]), 0), coalesce(sum(r.d[2]), 0), coalesce(sum(r.d[3]), 0), coalesce(sum(r.d[4]), 0), coalesce(sum(r.d[5]), 0),
                   coalesce(sum(r.d[6]), 0), coalesce(sum(r.d[7]), 0), coalesce(sum(r.d[8]), 0), coalesce(sum(r.d[9]), 0), coalesce(sum(r.d[10]), 0),
                   coalesce(sum(r.d[11]), 0), coalesce(sum(r.d[12]), 0), coalesce(sum(r.d[13]), 0), coalesce(sum(r.d[14]), 0)) AS durations
  FROM (
    SELECT m.minute, m.requests, m.failures, m.began, m.replayed, m.conflicts, CASE WHEN cardinality(m.durations) = 14 THEN m.durations END AS d
    FROM request_minutes m WHERE m.minute >= s.first AND m.minute <= s.running
  ) r
  GROUP BY 1, 2
) f ON true`

// sqlPurgeMinutes removes rows that are older than $1 microseconds, at most $2. Several
// instances may do it at once; none waits for another.
const sqlPurgeMinutes = `/* telemetry.minutes_purge */
DELETE FROM request_minutes WHERE (minute, instance_id) IN (
    SELECT minute, instance_id FROM request_minutes
    WHERE minute < clock_timestamp() - $1::bigint * interval '1 microsecond'
    ORDER BY minute LIMIT $2::integer FOR UPDATE SKIP LOCKED)`

// minute is the one that it is now, by the database's clock.
func (s minutesStore) minute(ctx context.Context) (time.Time, error) {
	var row struct{ Minute time.Time }
	r := s.db.Conn(ctx).Raw(sqlMinute).Scan(&row)
	if r.Error == nil && r.RowsAffected != 1 {
		return time.Time{}, errors.New("no answer")
	}
	return row.Minute, r.Error
}

func (s minutesStore) save(ctx context.Context, minute time.Time, writer uuid.UUID, c Counts) error {
	durations := make([]string, 0, buckets)
	for _, n := range c.Durations {
		durations = append(durations, strconv.FormatInt(n, 10))
	}
	return s.db.Conn(ctx).Exec(sqlSaveMinute, minute, writer, c.Requests, c.Failures, c.Began, c.Replayed, c.Conflicts, strings.Join(durations, ",")).Error
}

// minuteRow is a step, or the running minute. Without Begin it says only what the span is.
type minuteRow struct {
	ReadAt, First, Running time.Time
	Begin                  *time.Time
	IsRunning              bool

	Requests, Failures, Began, Replayed, Conflicts int64
	Durations                                      string
}

var errDurations = errors.New("durations that are not what was asked for")

func (r minuteRow) counts() (Counts, error) {
	c := Counts{Requests: r.Requests, Failures: r.Failures, Began: r.Began, Replayed: r.Replayed, Conflicts: r.Conflicts}
	durations := strings.Split(r.Durations, ",")
	if len(durations) != buckets {
		return Counts{}, errDurations
	}
	for i, d := range durations {
		n, err := strconv.ParseInt(d, 10, 64)
		if err != nil {
			return Counts{}, errDurations
		}
		c.Durations[i] = n
	}
	return c, nil
}

func (s minutesStore) read(ctx context.Context, span, step time.Duration) ([]minuteRow, error) {
	var rows []minuteRow
	err := s.db.Conn(ctx).Raw(sqlReadMinutes, span.Microseconds(), step.Microseconds()).Scan(&rows).Error
	return rows, err
}

// purge says how many rows went.
func (s minutesStore) purge(ctx context.Context, age time.Duration, batch int) (int, error) {
	r := s.db.Conn(ctx).Exec(sqlPurgeMinutes, age.Microseconds(), batch)
	return int(r.RowsAffected), r.Error
}
