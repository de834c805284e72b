package operators

import (
	"fmt"
	"time"

	"github.com/oncepay/oncepay/internal/postgres"
)

// sqlLastTry reads how a subject ($1) stands, and keeps others from counting for it. How
// long ago is in microseconds. For a subject that nobody has tried there is no row, and
// nothing is kept.
const sqlLastTry = `/* operators.last_try */
SELECT failures, failed_at, trunc(extract(epoch FROM clock_timestamp() - failed_at) * 1000000)::bigint AS ago
FROM operator_failures WHERE subject = $1::bytea FOR NO KEY UPDATE`

// waitAfter is how long a subject has to wait after so many failures in a row: not at all
// below $2, then a second, twice as long each time, and $3 microseconds at most.
const waitAfter = `CASE WHEN f.failures < $2::integer THEN interval '0'
       ELSE least($3::bigint * interval '1 microsecond', power(2, least(f.failures - $2, 30)) * interval '1 second') END`

// sqlCountTry counts a try, unless it comes too early. Of two at once the second sees what
// the first has counted. What the count may be is far above what the waits let it become.
const sqlCountTry = `/* operators.count_try */
INSERT INTO operator_failures AS f (subject, failures, failed_at) VALUES ($1::bytea, 1, clock_timestamp())
ON CONFLICT ON CONSTRAINT operator_failures_pkey DO UPDATE SET failures = least(f.failures + 1, 1000000), failed_at = clock_timestamp()
WHERE clock_timestamp() >= f.failed_at + ` + waitAfter + `
RETURNING failures, failed_at`

// sqlWait is how long a subject has to wait still, in microseconds.
const sqlWait = `/* operators.wait */
SELECT ceil(extract(epoch FROM f.failed_at + ` + waitAfter + ` - clock_timestamp()) * 1000000)::bigint AS left
FROM operator_failures f WHERE f.subject = $1::bytea`

const sqlForgive = `/* operators.forgive */
DELETE FROM operator_failures WHERE subject = $1::bytea`

// sqlTakeBack takes one try of a subject back, which was counted at $2; the one before it was
// at $3. If another one was counted since, that one was the last.
const sqlTakeBack = `/* operators.take_back */
UPDATE operator_failures SET failures = failures - 1, failed_at = CASE WHEN failed_at = $2::timestamptz THEN $3::timestamptz ELSE failed_at END
WHERE subject = $1::bytea`

// sqlTouch writes the row of a subject as it is: all that it does is to need a commit.
const sqlTouch = `/* operators.touch */
UPDATE operator_failures SET failed_at = failed_at WHERE subject = $1::bytea`

// lastTry is how a subject stands: after how many failures, and when the last one was.
type lastTry struct {
	Failures int
	FailedAt time.Time
	Ago      int64 // microseconds
}

// last reads and locks how a subject stands; ok is false where nothing is counted.
func (s store) last(tx postgres.Tx, subject []byte) (l lastTry, ok bool, err error) {
	found := tx.Raw(sqlLastTry, subject).Scan(&l)
	if found.Error != nil {
		return l, false, fmt.Errorf("read the wrong passwords of late: %w", found.Error)
	}
	return l, found.RowsAffected > 0, nil
}

// countTry counts a try for a subject; or it says how long the subject has to wait, and
// counts none.
func (s store) countTry(tx postgres.Tx, subject []byte) (t try, wait time.Duration, err error) {
	before, known, err := s.last(tx, subject)
	if err != nil {
		return try{}, 0, err
	}
	var now lastTry
	counted := tx.Raw(sqlCountTry, subject, freeFailures, maxWait.Microseconds()).Scan(&now)
	if counted.Error != nil {
		return try{}, 0, fmt.Errorf("count a try at a password: %w", counted.Error)
	}
	if counted.RowsAffected > 0 {
		t = try{subject: subject, failures: now.Failures, at: now.FailedAt, before: now.FailedAt, report: now.Failures == 1}
		if known { // where there was no row, another try may have been the first meanwhile
			t.before = before.FailedAt
			t.report = t.report || before.Ago >= reportEvery.Microseconds()
		}
		return t, 0, nil
	}
	var left int64
	if err := tx.Raw(sqlWait, subject, freeFailures, maxWait.Microseconds()).Scan(&left).Error; err != nil {
		return try{}, 0, fmt.Errorf("read how long to wait: %w", err)
	}
	return try{}, max(time.Duration(left)*time.Microsecond, time.Millisecond), nil // whatever became of it meanwhile
}

// takeBack takes one try back, and leaves those that others have made meanwhile.
func (s store) takeBack(tx postgres.Tx, t try) error {
	last, counted, err := s.last(tx, t.subject)
	if err != nil || !counted {
		return err
	}
	if last.Failures <= 1 {
		return s.forgive(tx, t.subject) // it is this one: a row is of one try or more
	}
	if err := tx.Exec(sqlTakeBack, t.subject, t.at, t.before).Error; err != nil {
		return fmt.Errorf("take a try at a password back: %w", err)
	}
	return nil
}

// forgive takes back all that was counted for a subject.
func (s store) forgive(tx postgres.Tx, subject []byte) error {
	if err := tx.Exec(sqlForgive, subject).Error; err != nil {
		return fmt.Errorf("forget wrong passwords: %w", err)
	}
	return nil
}

func (s store) touch(tx postgres.Tx, subject []byte) error {
	if err := tx.Exec(sqlTouch, subject).Error; err != nil {
		return fmt.Errorf("write a wrong password again: %w", err)
	}
	return nil
}
