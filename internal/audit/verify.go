package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// batchSize is how many entries Verify holds at a time: some megabytes at most.
const batchSize = 1000

// Anchor is an entry's number with its hash, to be kept where nobody who can write to the
// database can: what is before it cannot be rebuilt without being found out. It is written
// as "1234:" and 64 hexadecimal digits.
type Anchor struct {
	Seq  int64
	Hash []byte
}

// String is the anchor as it is written down.
func (a Anchor) String() string {
	return strconv.FormatInt(a.Seq, 10) + ":" + hex.EncodeToString(a.Hash)
}

// MarshalText is String.
func (a Anchor) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what String has written.
func (a *Anchor) UnmarshalText(text []byte) error {
	number, digits, _ := strings.Cut(string(text), ":")
	seq, err := strconv.ParseInt(number, 10, 64)
	hash, hexErr := hex.DecodeString(digits)
	if err != nil || hexErr != nil || seq < 0 || len(hash) != sha256.Size {
		return errors.New(`an anchor is an entry's number, a colon and its hash in 64 hexadecimal digits, as "payments audit verify" prints it`)
	}
	a.Seq, a.Hash = seq, hash
	return nil
}

// Fault is what kind of break there is in a chain.
type Fault string

// The closed set of faults.
const (
	FaultMissing   Fault = "missing"   // the entry is not there
	FaultAltered   Fault = "altered"   // its contents do not fit its hash
	FaultRewritten Fault = "rewritten" // its contents fit its hash, but it is not the one that was chained
	FaultExtra     Fault = "extra"     // an entry that nobody appended
	FaultHead      Fault = "head"      // the head is not the last entry's
	FaultAnchor    Fault = "anchor"    // the chain is whole, but not the one that the anchor was taken from
)

// Break is the first place at which a log is not as it was written.
type Break struct {
	Seq   int64  `json:"seq"`
	Fault Fault  `json:"fault"`
	Says  string `json:"says"` // a sentence without the number
}

// Report is what Verify found.
type Report struct {
	// Entries is how many were found to be as they were written, from the first on.
	Entries int64 `json:"entries"`
	// Head is the end of the chain by what the database says, to be noted as an anchor
	// if nothing is broken.
	Head Anchor `json:"head"`
	// Broken is nil where everything is as it was written.
	Broken *Break `json:"broken"`
}

// VerifyOptions are all optional.
type VerifyOptions struct {
	// Anchor is an end of the chain that was noted earlier.
	Anchor *Anchor
	// Progress hears now and then how many entries were looked at, and of how many.
	Progress func(done, of int64)
}

// Verify computes every hash anew, from the first entry up to the head as it is at the
// beginning, and stops at the first that is not as it was written. It only reads, some
// thousand entries at a time, and appending goes on beside it. An error says that it
// could not find out.
//
// A log that was rebuilt as a whole, or cut off together with its head, is only told by
// an anchor.
func (l Log) Verify(ctx context.Context, o VerifyOptions) (Report, error) {
	e, err := l.ends(ctx)
	if err != nil {
		return Report{}, err
	}
	r := Report{Head: Anchor(e.Head)}
	v := verifier{log: l, head: e.Head, anchor: o.Anchor, last: head{Hash: make([]byte, sha256.Size)}}
	if e.First < 1 {
		r.Broken = &Break{e.First, FaultExtra, "it stands before the first entry"}
		return r, nil
	}
	for r.Broken == nil && v.last.Seq < e.Head.Seq {
		if r.Broken, err = v.batch(ctx); err != nil {
			return Report{}, err
		}
		if o.Progress != nil {
			o.Progress(v.last.Seq, e.Head.Seq)
		}
	}
	r.Entries = v.last.Seq
	if r.Broken == nil {
		r.Broken = v.end(e.Beyond)
	}
	return r, nil
}

// Head is the end of the chain by what the database says.
func (l Log) Head(ctx context.Context) (Anchor, error) {
	e, err := l.ends(ctx)
	return Anchor(e.Head), err
}

// verifier goes from one entry to the next.
type verifier struct {
	log    Log
	head   head
	anchor *Anchor
	last   head // the last entry that is as it was written
}

// batch goes on by some entries, up to the first that is not as it was written.
func (v *verifier) batch(ctx context.Context) (*Break, error) {
	upTo := min(v.last.Seq+batchSize, v.head.Seq)
	rows, err := v.log.batch(ctx, v.last.Seq, upTo)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if b, err := v.entry(ctx, r); b != nil || err != nil {
			return b, err
		}
	}
	if v.last.Seq < upTo {
		return v.missing(), nil
	}
	return nil, nil
}

func (v *verifier) missing() *Break {
	return &Break{v.last.Seq + 1, FaultMissing, "it is missing"}
}

// entry judges the one behind the last.
func (v *verifier) entry(ctx context.Context, r row) (*Break, error) {
	switch {
	case r.Seq > v.last.Seq+1:
		return v.missing(), nil
	case r.Seq <= v.last.Seq:
		return &Break{r.Seq, FaultExtra, "there are two with this number"}, nil
	case !bytes.Equal(r.sum(), r.Hash):
		return &Break{r.Seq, FaultAltered, "its contents do not fit its hash"}, nil
	case !bytes.Equal(r.PreviousHash, v.last.Hash):
		return v.unlinked(ctx, r)
	}
	v.last = head{Seq: r.Seq, Hash: r.Hash}
	if a := v.anchor; a != nil && a.Seq == r.Seq && !bytes.Equal(a.Hash, r.Hash) {
		v.last.Seq--
		return &Break{r.Seq, FaultAnchor, "it is not the entry that the anchor was taken from: the log was rebuilt, here or before"}, nil
	}
	return nil, nil
}

// unlinked finds out which of two neighbours is not the one that was chained. Each fits its
// own hash; so the one before was rewritten if what comes behind r vouches for r.
func (v *verifier) unlinked(ctx context.Context, r row) (*Break, error) {
	const says = "its contents fit its hash, but it is not the entry that was chained here: it was rewritten, its hash included"
	vouching := v.head.Hash
	if r.Seq < v.head.Seq {
		behind, err := v.log.batch(ctx, r.Seq, r.Seq+1)
		if err != nil {
			return nil, err
		}
		vouching = nil
		if len(behind) > 0 {
			vouching = behind[0].PreviousHash
		}
	}
	if v.last.Seq > 0 && bytes.Equal(vouching, r.Hash) {
		v.last.Seq--
		return &Break{r.Seq - 1, FaultRewritten, says}, nil
	}
	return &Break{r.Seq, FaultRewritten, says}, nil
}

// end judges what stands behind the last entry; beyond is an entry behind the head, or 0.
func (v *verifier) end(beyond int64) *Break {
	switch {
	case !bytes.Equal(v.last.Hash, v.head.Hash):
		return &Break{v.head.Seq, FaultHead, "the head of the log has another hash than this, its last entry: one of the two was altered"}
	case beyond != 0:
		return &Break{beyond, FaultExtra, fmt.Sprintf("it stands behind entry %d, which is the last by the head of the log", v.head.Seq)}
	case v.anchor != nil && v.anchor.Seq > v.head.Seq:
		return &Break{v.head.Seq + 1, FaultAnchor, "it is missing, and so is the anchor's: the log was cut off, its head included"}
	}
	return nil
}
