package audit

import (
	"context"
	"encoding/hex"
	"log/slog"
)

// Witness tells the instance's own log how far the chain has come: where logs are sent away,
// they keep anchors that nobody who can write to the database can change. It tells what is
// committed, because it looks later, and it looks by itself, so that nobody who appends has
// to wait for it. RunOnce is for one goroutine.
type Witness struct {
	log  Log
	to   *slog.Logger
	told int64 // the last entry that it told of
}

// NewWitness returns a witness that has told nothing.
func NewWitness(log Log, to *slog.Logger) *Witness { return &Witness{log: log, to: to} }

// RunOnce tells of the end of the chain if there was anything appended since it last did, and
// of the one that there is when it begins. It is done in one go: n is always 0.
func (w *Witness) RunOnce(ctx context.Context) (n int, err error) {
	a, err := w.log.Head(ctx)
	if err != nil || a.Seq == w.told {
		return 0, err
	}
	w.told = a.Seq
	w.to.InfoContext(ctx, "audit log", "audit_seq", a.Seq, "audit_hash", hex.EncodeToString(a.Hash))
	return 0, nil
}
