package mutants

// The files that most mutants edit.
const (
	serviceFile = "internal/transactions/service.go"
	settleFile  = "internal/transactions/settle.go"
	storeFile   = "internal/transactions/store.go"
	sourceFile  = "internal/transactions/source_store.go"
	wireFile    = "internal/providers/wire.go"
	adapterFile = "internal/providers/sandbox/adapter.go"
	purgeFile   = "internal/idem/store.go"
	onceFile    = "internal/idem/once_store.go"
	confirmFile = "internal/postgres/confirm.go"
	statesFile  = "internal/transactions/states.go"
	actionFile  = "internal/transactions/action_store.go"
	hearFile    = "internal/transactions/callback.go"
	// addedFile is none of the product's.
	addedFile = "internal/transactions/mutant.go"
)

// All are the mutants. How each does harm stands in its Defect.
func All() []Mutant {
	return []Mutant{
		callInsideTransaction(), releaseOnAnyAttempt(), releaseBeforeProofMoment(), noFence(), processClock(), nonceAsReference(),
		selectThenInsert(), finishUnconditional(), purgeUnresolved(), requestContext(), transportResends(), eventOutside(),
		fenceAlone(), expiryFromClaim(), deleteByKey(), proofIgnoresMaySendUntil(), holderNotCompared(),
		warningNotHeard(), readBackUnlocked(),
		reservationLeaked(), refundNotReserved(), callbackUnchecked(), paymentNotLocked(),
		answeredNotRecovered(),
		sessionNotClaimed(), sessionFreedWhenUnclear(), sessionNotGivenBack(), sessionVersionIgnored(), tokenNotConsumed(),
	}
}

func callInsideTransaction() Mutant {
	return Mutant{
		Name: "call-inside-transaction",
		Defect: "The provider is called inside the database transaction that claims the nonce; a crash after the send rolls the claim back, " +
			"and the retry charges under a new reference.",
		Edits: []Edit{
			{sourceFile, "\terr = s.db.Confirmed(ctx, func(db postgres.Tx) error {\n\t\treturn db.Raw(query,", `	open := s.db.Conn(ctx).Begin()
	if err = open.Error; err != nil {
		return tx, c, false, err
	}
	err = s.db.Confirmed(ctx, func(postgres.Tx) error {
		return open.Raw(query,`},
			{sourceFile, "\tif errors.Is(err, sql.ErrNoRows) || checkout &&", `	if err != nil {
		open.Rollback()
	} else {
		claims.Store(tx.ID, open)
	}
	if errors.Is(err, sql.ErrNoRows) || checkout &&`},
			{storeFile, "one(db.Raw(sqlFinish,", "one(within(db, tx.ID).Raw(sqlFinish,"},
			{storeFile, `wrap("finish", err)`, `wrap("finish", commit(tx.ID, err))`},
			{storeFile, "return db.Raw(sqlLeave,", "return within(db, tx.ID).Raw(sqlLeave,"},
			{storeFile, `wrap("leave", err)`, `wrap("leave", commit(tx.ID, err))`},
			{storeFile, `wrap("observe", s.db.Conn(ctx).Exec(sqlObserve,`, `wrap("observe", commit(tx.ID, within(s.db.Conn(ctx), tx.ID).Exec(sqlObserve,`},
			{storeFile, "r.AuthorizationCode, r.Detail).Error)", "r.AuthorizationCode, r.Detail).Error))"},
			{addedFile, "", `package transactions

import (
	"sync"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"github.com/oncepay/oncepay/internal/postgres"
)

// claims are the database transactions that are open while a provider is called,
// by the transaction that they claim.
var claims sync.Map

// within is the open database transaction of id, if there is one.
func within(db postgres.Tx, id uuid.UUID) postgres.Tx {
	if open, ok := claims.Load(id); ok {
		return open.(*gorm.DB)
	}
	return db
}

// commit ends the open database transaction of id, by how its last write went.
func commit(id uuid.UUID, err error) error {
	open, ok := claims.LoadAndDelete(id)
	switch {
	case !ok:
		return err
	case err != nil:
		open.(*gorm.DB).Rollback()
		return err
	}
	return open.(*gorm.DB).Commit().Error
}
`},
		},
	}
}

func releaseOnAnyAttempt() Mutant {
	return Mutant{
		Name: "release-on-any-attempt",
		Defect: "A later attempt that had no effect gives the nonce back although an earlier attempt may have had one; " +
			"the next request charges a second time.",
		Edits: []Edit{
			{settleFile, "case r.tx.Fence == 1 && result.Outcome == providers.Refused:", "case result.Outcome == providers.Refused:"},
			{settleFile, "case r.tx.Fence == 1 && result.Outcome == providers.NotReached:", "case result.Outcome == providers.NotReached:"},
		},
	}
}

func releaseBeforeProofMoment() Mutant {
	return Mutant{
		Name: "release-before-proof-moment",
		Defect: "An inquiry that is answered \"unknown\" gives the nonce back at once, while the charge may still be on its way; it arrives after all, " +
			"and the next request makes another. (A void would stop the late charge, so the provider has none.)",
		Edits: []Edit{
			{settleFile, "\t\tcase r.deliver == nil && !sentAt.Before(r.tx.proofMoment()):\n", "\t\tdefault:\n"},
		},
		Withhold: "can_void",
	}
}

func noFence() Mutant {
	return Mutant{
		Name: "no-fence",
		Defect: "What follows a provider call is written whoever has taken the transaction over meanwhile; a first holder that reached nobody wakes, " +
			"gives the nonce back under a second one that is charging, and the next request charges again.",
		Edits: []Edit{
			{storeFile, "t.fence = $3::bigint AND t.lease_holder = $4::uuid\n", "$3::bigint IS NOT NULL AND $4::uuid IS NOT NULL\n"},
			// Otherwise the note about parking would meet another's, and undo the write.
			{storeFile, "FROM moved WHERE moved.fence > $3\n", "FROM moved WHERE moved.fence > $3 ON CONFLICT DO NOTHING\n"},
		},
	}
}

func processClock() Mutant {
	return Mutant{
		Name: "process-clock",
		Defect: "Whether a lease is over, and whether the proof moment has passed, is judged by the process's clock; a machine whose clock is ahead gives a nonce back " +
			"while its charge is about to be sent, and the next request makes another. ONCEPAY_MUTANT_CLOCK says how far ahead, such as 30s. " +
			"(A void would stop the late charge, so the provider has none.)",
		Edits: []Edit{
			{storeFile, "t.lease_until <= clock_timestamp() AS lease_over,\n", "t.lease_until <= $6::timestamptz AS lease_over,\n"},
			{storeFile, "Raw(sqlRead, account, mode, nonce, asked.Kept(), asked.KeptByOther())", "Raw(sqlRead, account, mode, nonce, asked.Kept(), asked.KeptByOther(), processClock())"},
			{storeFile, "AND (t.lease_until <= clock_timestamp() OR", "AND (t.lease_until <= $12::timestamptz OR"},
			{storeFile, "string(by), t.travel().Microseconds())", "string(by), t.travel().Microseconds(), processClock())"},
			{settleFile, "return r.clock.earliest().Truncate(time.Microsecond)", "return processClock()"},
			{addedFile, "", `package transactions

import (
	"os"
	"time"
)

// ahead is how far this process's clock is ahead of the others'.
var ahead, _ = time.ParseDuration(os.Getenv("ONCEPAY_MUTANT_CLOCK"))

func processClock() time.Time { return time.Now().Add(ahead).UTC().Truncate(time.Microsecond) }
`},
		},
		Withhold: "can_void",
	}
}

func nonceAsReference() Mutant {
	return Mutant{
		Name: "nonce-as-reference",
		Defect: "The provider knows a charge by the merchant's nonce, which may live again; the provider takes the second life's charge for a repetition of the first's, " +
			"and the merchant is told of a payment that was never made.",
		Edits: []Edit{
			{serviceFile, "Reference: transaction.String(),", "Reference: c.Nonce,"},
			{settleFile, "Reference: r.tx.ID.String(),", "Reference: r.tx.Nonce,"},
		},
	}
}

func selectThenInsert() Mutant {
	return Mutant{
		Name:   "select-then-insert",
		Defect: "Whether a nonce is taken is looked up before it is claimed, and no constraint stands behind that; two requests that look at the same time both charge.",
		Edits: []Edit{
			{serviceFile, "\tstarted := time.Now()\n\tfaultpoint.Reach(faultpoint.BeginBefore, cmd.Nonce)\n",
				`	if _, found, err := s.store.readKey(ctx, cmd.AccountID, cmd.Mode, cmd.Nonce, cmd.Print); err != nil || found {
		return nil, err
	}
	started := time.Now()
	faultpoint.Reach(faultpoint.BeginBefore, cmd.Nonce)
`},
			{storeFile, "    ON CONFLICT (account_id, mode, key_id) DO NOTHING\n", ""},
			{onceFile, "\nON CONFLICT (account_id, mode, key_id) DO NOTHING`", "`"}, // there is nothing left that it could go by
		},
		Setup: `ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey;
CREATE INDEX idempotency_keys_key ON idempotency_keys (account_id, mode, key_id);`,
	}
}

func finishUnconditional() Mutant {
	return Mutant{
		Name: "finish-unconditional",
		Defect: "An outcome is saved on the transaction's id alone, on no fence, no holder, and even over another outcome; a late holder turns a charge that was told as a success " +
			"into an error, or gives its nonce back. (A second finish writes the payment's first event once more, so the key that would refuse that is gone.)",
		Edits: []Edit{
			{storeFile, "    WHERE ` + underTheFence + `\n    RETURNING t.account_id, t.id, t.payment_id,",
				"    WHERE t.account_id = $1::uuid AND t.id = $2::uuid AND $3::bigint IS NOT NULL AND $4::uuid IS NOT NULL\n    RETURNING t.account_id, t.id, t.payment_id,"},
		},
		Setup: `ALTER TABLE events DROP CONSTRAINT events_pkey;
ALTER TABLE transactions DROP CONSTRAINT transactions_released_has_no_effect;`,
	}
}

func purgeUnresolved() Mutant {
	return Mutant{
		Name: "purge-unresolved",
		Defect: "A nonce whose time is over is forgotten although nobody knows yet what became of its charge; " +
			"the next request charges again.",
		Edits: []Edit{
			{storeFile, "return k.Expired && k.LeaseOver == nil", "return k.Expired"},
			{storeFile, "\n  AND NOT EXISTS (SELECT 1 FROM transactions t WHERE t.account_id = k.account_id AND t.id = k.transaction_id AND t.lease_until IS NOT NULL)", ""},
			{purgeFile, "AND k.expires_at <= clock_timestamp() AND t.lease_until IS NULL", "AND k.expires_at <= clock_timestamp()"},
		},
	}
}

func requestContext() Mutant {
	return Mutant{
		Name: "request-context",
		Defect: "The work on a payment ends with the client's connection; a client that hangs up breaks a charge off half-way, " +
			"and what became of it is not saved.",
		Edits: []Edit{
			{
				serviceFile,
				"context.WithTimeout(context.WithoutCancel(ctx), s.lease)\n\tdefer cancel()\n\ta, err := s.execute(",
				"context.WithTimeout(ctx, s.lease)\n\tdefer cancel()\n\ta, err := s.execute(",
			},
			{settleFile, "context.WithTimeout(context.WithoutCancel(ctx), saveLimit)", "context.WithTimeout(ctx, saveLimit)"},
		},
	}
}

func transportResends() Mutant {
	return Mutant{
		Name: "transport-resends",
		Defect: "Go's transport may send a charge again when a reused connection breaks, and if it then cannot connect, the charge counts as never sent; " +
			"the first copy was booked, the nonce is given back, and the next request charges again.",
		Edits: []Edit{
			{wireFile, "body = onceReader{bytes.NewReader(r.Body)}", "body = bytes.NewReader(r.Body)"},
			{wireFile, "\tif ask {\n\t\ts.on = c\n\t}\n", "\ts.on = c\n"},
			{wireFile, "\tcase s.on != c:\n\t\treturn s.refuse(errSecondAttempt)\n", ""},
			{wireFile, "\tx.Wrote = s.seal()\n", `	x.Wrote = s.seal()
	if op, ok := errors.AsType[*net.OpError](x.Err); ok && op.Op == "dial" {
		x.Wrote = false
	}
`},
			{adapterFile, "import (\n\t\"context\"\n", "import (\n\t\"context\"\n\t\"crypto/sha256\"\n"},
			{adapterFile, `http.Header{"Content-Type": {"application/json"}}`,
				`http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {fmt.Sprintf("%x", sha256.Sum256(b))}}`},
		},
	}
}

func eventOutside() Mutant {
	return Mutant{
		Name: "event-outside",
		Defect: "The event is written by a statement of its own after the outcome is committed; a crash between the two loses it, " +
			"and nobody who lives on events ever hears of the payment.",
		Edits: []Edit{
			{storeFile, "    FROM payment, moved\n", "    FROM payment, moved WHERE false\n"},
			{settleFile, "\tfaultpoint.Reach(faultpoint.FinishAfter, r.tx.Nonce)\n", `	faultpoint.Reach(faultpoint.FinishAfter, r.tx.Nonce)
	if err == nil && matched && e.status != Pending {
		err = s.save(ctx, func() error { return s.store.event(ctx, r.tx, e) })
	}
`},
			{addedFile, "", `package transactions

import "context"

const sqlEvent = "/* transactions.event */\n" +
	"INSERT INTO events (account_id, payment_id, seq, transaction_id, type, status, sub_status, cause, created_at)\n" +
	"SELECT p.account_id, p.id, p.version, t.id, 'payment.' || lower(t.type), p.status, p.sub_status, $3::text, p.updated_at\n" +
	"FROM transactions t JOIN payments p ON p.account_id = t.account_id AND p.id = t.payment_id\n" +
	"WHERE t.account_id = $1::uuid AND t.id = $2::uuid\n" +
	"ON CONFLICT DO NOTHING"

// event says what has become of a payment.
func (s store) event(ctx context.Context, tx Transaction, e ending) error {
	return wrap("event", s.db.Conn(ctx).Exec(sqlEvent, tx.AccountID, tx.ID, e.cause).Error)
}
`},
		},
	}
}

func fenceAlone() Mutant {
	return Mutant{
		Name: "fence-alone",
		Defect: "A take-over compares the fence, which a finish leaves alone, and nothing else; somebody who has read the transaction while it was unresolved revives it " +
			"after its nonce was given back, and sends a charge beside the next life's. (A constraint would refuse a lease on a closed row, so it is gone.)",
		Edits: []Edit{
			{storeFile, "AND t.fence = $3::bigint AND t.lease_until IS NOT NULL\n" +
				"      AND (t.lease_until <= clock_timestamp() OR ` + holderGone + ` OR $10::text IN ('person', 'callback') AND t.status = 'PENDING')\n",
				"AND t.fence = $3::bigint AND $10::text IS NOT NULL\n"},
		},
		Setup: `ALTER TABLE transactions DROP CONSTRAINT transactions_unresolved_has_lease;`,
	}
}

func expiryFromClaim() Mutant {
	return Mutant{
		Name: "expiry-from-claim",
		Defect: "Storing the answer does not move the end of a nonce's life, which stays counted from the claim; an outcome that is settled late is forgotten at once, " +
			"and the merchant's retry charges again.",
		Edits: []Edit{
			{storeFile, "expires_at = greatest(k.expires_at,", "expires_at = least(k.expires_at,"},
		},
	}
}

func deleteByKey() Mutant {
	return Mutant{
		Name: "delete-by-key",
		Defect: "The end of a life, and a release, delete the nonce's row whichever life it belongs to by now; a slow reader of an expired life deletes the next one " +
			"while that is charging, and begins a third.",
		Edits: []Edit{
			{storeFile, `AND k.key_id = $3::text AND k.transaction_id IS NOT DISTINCT FROM $4::uuid
  AND k.expires_at <= clock_timestamp()
  AND NOT EXISTS (SELECT 1 FROM transactions t WHERE t.account_id = k.account_id AND t.id = k.transaction_id AND t.lease_until IS NOT NULL)`,
				`AND k.key_id = $3::text AND $4::uuid IS NOT NULL`},
			{storeFile, "AND k.transaction_id = moved.id AND k.response_status IS NULL AND $6::smallint IS NULL AND $12",
				"AND k.response_status IS NULL AND $6::smallint IS NULL AND $12"},
		},
	}
}

func proofIgnoresMaySendUntil() Mutant {
	return Mutant{
		Name: "proof-ignores-may-send-until",
		Defect: "The proof moment is counted from the claim, not from the last moment at which a holder may still send; a nonce is given back under a holder that sleeps within its time, " +
			"which then charges beside the next request. (A void would stop it, so the provider has none.)",
		Edits: []Edit{
			{serviceFile, "return t.MaySendUntil.Add(", "return t.CreatedAt.Add("},
		},
		Withhold: "can_void",
	}
}

func holderNotCompared() Mutant {
	return Mutant{
		Name: "holder-not-compared",
		Defect: "After a lost COMMIT only the fence is compared, not who holds the lease, and so it is in all later writes; a request whose take-over never took place works on beside " +
			"the one that did, and sends while that one proves that nobody will. (A void would stop it, so the provider has none.)",
		Edits: []Edit{
			{serviceFile, "tx.Fence != fence || tx.LeaseHolder != holder || tx.LeaseUntil == nil", "tx.Fence != fence || tx.LeaseUntil == nil"},
			{storeFile, "t.fence = $3::bigint AND t.lease_holder = $4::uuid\n", "t.fence = $3::bigint AND $4::uuid IS NOT NULL\n"},
		},
		Withhold: "can_void",
	}
}

func warningNotHeard() Mutant {
	return Mutant{
		Name: "warning-not-heard",
		Defect: "A commit that PostgreSQL calls a success counts as one, whatever it warns of beside it; a claim whose wait for the standby was cancelled is sent on, " +
			"the failover forgets it, and the next request charges again.",
		Edits: []Edit{
			{confirmFile, "doubtKey{}, d)))\n\tif err == nil && d.raised.Load() {", "doubtKey{}, d)))\n\tif err == nil && d == nil {"},
			{confirmFile, "d), f)\n\tif err == nil && d.raised.Load() {", "d), f)\n\tif err == nil && d == nil {"},
		},
	}
}

func readBackUnlocked() Mutant {
	return Mutant{
		Name: "read-back-unlocked",
		Defect: "After a lost COMMIT a claim is believed because it is visible, which one is whose wait for the standby was ended; it is sent on, " +
			"the failover forgets it, and the next request charges again.",
		Edits: []Edit{
			{storeFile, "const lockedRow = `\nFOR NO KEY UPDATE OF t`", "const lockedRow = ``"},
		},
	}
}

func reservationLeaked() Mutant {
	return Mutant{
		Name: "reservation-leaked",
		Defect: "A capture, cancellation or refund that had no effect ends without giving back what it had reserved on its payment; " +
			"that part of the money can never be moved again.",
		Edits: []Edit{
			{statesFile, "\tif !next.Terminal() {\n\t\treturn s\n\t}\n", "\tif !next.Terminal() || t.Type.acts() && next == Errored {\n\t\treturn s\n\t}\n"},
		},
	}
}

func refundNotReserved() Mutant {
	return Mutant{
		Name: "refund-not-reserved",
		Defect: "What is left to be refunded is looked up before a refund begins, and not by the statement that begins it, and no constraint stands behind that; " +
			"of two refunds that look at the same time, each is sent, and more goes back than was paid. (Our sandbox declines the second; not every provider does.)",
		Edits: []Edit{
			{actionFile, "      AND ($9 <> 'REFUND' OR p.refunded + p.refund_pending + p.charged_back + $10 <= p.settled)\n", ""},
		},
		Setup: `ALTER TABLE payments DROP CONSTRAINT payments_refunded_within_settled;
ALTER TABLE transactions DROP CONSTRAINT transactions_refunded_within_amount;`,
	}
}

func callbackUnchecked() Mutant {
	return Mutant{
		Name: "callback-unchecked",
		Defect: "A provider's callback is written straight to the transaction that it names, whether it was here before or not, and whoever is at work on it; " +
			"each copy of it is another event, and who lives on events counts the payment twice.",
		Edits: []Edit{
			{hearFile, "heard, err := s.hear(ctx, p, tx, message)", "heard, err := s.apply(ctx, tx, message.Result)"},
			{addedFile, "", `package transactions

import (
	"context"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/providers"
)

const sqlApply = "/* transactions.apply */\n" +
	"WITH moved AS (\n" +
	"    UPDATE transactions t SET status = $3::text, provider_reference = $4::text, response_code = $5::text, authorization_code = $6::text,\n" +
	"        lease_until = NULL, updated_at = clock_timestamp()\n" +
	"    WHERE t.account_id = $1::uuid AND t.id = $2::uuid RETURNING t.account_id, t.id, t.payment_id, t.type, t.amount\n" +
	"), payment AS (\n" +
	"    UPDATE payments p SET status = $7::text, sub_status = $8::text, version = p.version + 1, authorize_pending = 0, settle_pending = 0,\n" +
	"        authorized = CASE WHEN $3 = 'SUCCEEDED' THEN moved.amount ELSE 0 END,\n" +
	"        settled = CASE WHEN $3 = 'SUCCEEDED' AND moved.type = 'PURCHASE' THEN moved.amount ELSE 0 END\n" +
	"    FROM moved WHERE p.account_id = moved.account_id AND p.id = moved.payment_id RETURNING p.account_id, p.id, p.version\n" +
	")\n" +
	"INSERT INTO events (account_id, payment_id, seq, transaction_id, type, status, sub_status, cause, created_at)\n" +
	"SELECT payment.account_id, payment.id, payment.version, moved.id, 'payment.' || lower(moved.type), $7, $8, 'provider', clock_timestamp()\n" +
	"FROM payment, moved"

// apply does what a callback says about a payment's first transaction.
func (s *Service) apply(ctx context.Context, tx Transaction, r providers.Result) (Heard, error) {
	status := tx.Type.status(r)
	state := Payment{}.began(tx.Type, status, "")
	err := s.store.db.Conn(ctx).Exec(sqlApply, tx.AccountID, tx.ID, string(status), r.ProviderReference, r.ResponseCode, r.AuthorizationCode,
		state.Status, state.Sub).Error
	faultpoint.Reach(faultpoint.CallbackKept, tx.Nonce)
	if err != nil {
		return "", unavailable(err)
	}
	return HeardApplied, nil
}
`},
		},
	}
}

func paymentNotLocked() Mutant {
	return Mutant{
		Name: "payment-not-locked",
		Defect: "The end of a capture, cancellation or refund works its payment's sums out from a row that it has not locked; what another one reserves meanwhile is overwritten, " +
			"and that one can never end.",
		Edits: []Edit{
			{storeFile, "FROM payments p WHERE p.account_id = $1::uuid AND p.id = $2::uuid FOR NO KEY UPDATE OF p`", "FROM payments p WHERE p.account_id = $1::uuid AND p.id = $2::uuid`"},
		},
	}
}

func answeredNotRecovered() Mutant {
	return Mutant{
		Name: "answered-not-recovered",
		Defect: "Recovery takes a transaction whose nonce has an answer for settled; under a policy that keeps errors nobody ever finds out what became " +
			"of the charge behind one, and the merchant, who was told that it failed, sees money that no payment of theirs accounts for.",
		Edits: []Edit{
			{storeFile, "WHERE t.lease_until IS NOT NULL AND t.provider = ANY($2::text[])\n", `WHERE t.lease_until IS NOT NULL AND t.provider = ANY($2::text[])
  AND NOT EXISTS (SELECT 1 FROM idempotency_keys k WHERE k.account_id = t.account_id AND k.transaction_id = t.id AND k.response_status IS NOT NULL)
`},
		},
	}
}

func sessionNotClaimed() Mutant {
	return Mutant{
		Name: "session-not-claimed",
		Defect: "Whether a checkout session is free is looked up before a payment begins, and not by the statement that begins it; " +
			"of two tabs that look at the same time each is charged, under a nonce of its own.",
		Edits: []Edit{
			{sourceFile, "AND s.version = $27::bigint AND s.payment_id IS NULL\n", "AND s.version = $27::bigint\n"},
		},
	}
}

func sessionFreedWhenUnclear() Mutant {
	return Mutant{
		Name: "session-freed-when-unclear",
		Defect: "An attempt that ends without an outcome gives the checkout session back, so that the shopper may try again; " +
			"the first charge was booked, and the second try makes another.",
		Edits: []Edit{
			{storeFile, "    RETURNING t.account_id, t.id, t.mode, t.nonce, t.fence\n), parking AS (", `    RETURNING t.account_id, t.id, t.payment_id, t.mode, t.nonce, t.fence
), session AS (
    UPDATE checkout_sessions s SET payment_id = NULL, updated_at = clock_timestamp()
    FROM payment_sources o, moved
    WHERE o.account_id = moved.account_id AND o.payment_id = moved.payment_id
      AND s.account_id = o.account_id AND s.id = o.checkout_session_id AND s.payment_id = o.payment_id
), parking AS (`},
		},
	}
}

func sessionNotGivenBack() Mutant {
	return Mutant{
		Name: "session-not-given-back",
		Defect: "A payment that was declined gives its checkout session back, and one that reached nobody does not; " +
			"the shopper, whose card nobody has charged, is told that the session has its payment, and the shop loses the sale.",
		Edits: []Edit{
			{sourceFile, "AND $15 IN ('DECLINED', 'REJECTED', 'ERROR')\n", "AND $15 IN ('DECLINED', 'REJECTED')\n"},
		},
	}
}

func sessionVersionIgnored() Mutant {
	return Mutant{
		Name: "session-version-ignored",
		Defect: "A payment takes its checkout session whatever has become of that since it was read; the merchant, who was told that the amount is changed, " +
			"gets what it was before.",
		Edits: []Edit{
			{sourceFile, "AND s.version = $27::bigint AND s.payment_id IS NULL\n", "AND $27::bigint IS NOT NULL AND s.payment_id IS NULL\n"},
		},
	}
}

func tokenNotConsumed() Mutant {
	return Mutant{
		Name: "token-not-consumed",
		Defect: "Whether a one-time token was used is looked up before a payment begins, and not by the statement that begins it; " +
			"two orders that are paid with it at the same time are both charged to one card that was handed in for one.",
		Edits: []Edit{
			{sourceFile, "AND k.mode = $2 AND k.payment_id IS NULL AND k.expires_at", "AND k.mode = $2 AND k.expires_at"},
		},
	}
}
