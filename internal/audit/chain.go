package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/google/uuid"
)

// hashVersion is the first text of what is hashed. A list of other texts needs another.
const hashVersion = "oncepay.audit.1"

// row is an entry as the table has it.
type row struct {
	Seq                                           int64
	At                                            string // microseconds since 1970, unless somebody has altered it
	ActorKind, ActorID, Actor, Address, RequestID string
	Action                                        string
	AccountID                                     uuid.NullUUID
	Target, Details                               string
	PreviousHash, Hash                            []byte
}

// sum is the hash that r should have, behind its previous hash.
func (r row) sum() []byte {
	account := ""
	if r.AccountID.Valid {
		account = r.AccountID.UUID.String()
	}
	var b []byte
	for _, text := range []string{
		hashVersion, hex.EncodeToString(r.PreviousHash), strconv.FormatInt(r.Seq, 10), r.At,
		r.ActorKind, r.ActorID, r.Actor, r.Address, r.RequestID, r.Action, account, r.Target, r.Details,
	} {
		b = strconv.AppendInt(b, int64(len(text)), 10)
		b = append(b, ':')
		b = append(b, text...)
		b = append(b, ',')
	}
	sum := sha256.Sum256(b)
	return sum[:]
}
