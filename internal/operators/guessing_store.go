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
SELECT failures, trunc(extract(epoch FROM clock_timestamp() - failed_at) * 1000000)::bigint AS ago
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
RETURNING failures`

// sqlWait is how long a subject has to wait still, in microseconds.
const sqlWait = `/* operators.wait */
SELECT ceil(extract(epoch FROM f.failed_at + ` + waitAfter + ` - clock_timestamp()) * 1000000)::bigint AS left
FROM operator_failures f WHERE f.subject = $1::bytea`

const sqlForgive = `/* operators.forgive */
DELETE FROM operator_failures WHERE subject = $1::bytea`

// sqlTouch dates the last try of a subject to now.
const sqlTouch = `/* operators.touch */
UPDATE operator_failures SET failed_at = clock_timestamp() WHERE subject = $1::bytea`

// countTry counts a try for a subject; or it says how long the subject has to wait, and
// counts none. report is whether there was none for a while.
func (s store) countTry(tx postgres.Tx, subject []byte) (failures int, report bool, wait time.Duration, err error) {
	var last struct {
		Failures int
		Ago      int64
	}
	before := tx.Raw(sqlLastTry, subject).Scan(&last)
	if before.Error != nil {
		return 0, false, 0, fmt.Errorf("read the wrong passwords of late: %w", before.Error)
	}
	counted := tx.Raw(sqlCountTry, subject, freeFailures, maxWait.Microseconds()).Scan(&failures)
	if counted.Error != nil {
		return 0, false, 0, fmt.Errorf("count a try at a password: %w", counted.Error)
	}
	if counted.RowsAffected > 0 {
		// Where there was no row, another try may have been the first meanwhile.
		quiet := before.RowsAffected > 0 && last.Ago >= reportEvery.Microseconds()
		return failures, failures == 1 || quiet, 0, nil
	}
	var left int64
	if err := tx.Raw(sqlWait, subject, freeFailures, maxWait.Microseconds()).Scan(&left).Error; err != nil {
		return 0, false, 0, fmt.Errorf("read how long to wait: %w", err)
	}
	return 0, false, max(time.Duration(left)*time.Microsecond, time.Millisecond), nil // whatever became of it meanwhile
}

// forgive takes back what was counted for a subject.
func (s store) forgive(tx postgres.Tx, subject []byte) error {
	if err := tx.Exec(sqlForgive, subject).Error; err != nil {
		return fmt.Errorf("forget wrong passwords: %w", err)
	}
	return nil
}

func (s store) touch(tx postgres.Tx, subject []byte) error {
	if err := tx.Exec(sqlTouch, subject).Error; err != nil {
		return fmt.Errorf("date a wrong password: %w", err)
	}
	return nil
}
