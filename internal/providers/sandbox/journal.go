package sandbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// fileName is the journal within the ledger's directory.
	fileName = "ledger.jsonl"
	// header is the journal's first line. A file that begins otherwise is somebody
	// else's, and is left alone.
	header = `{"kind":"oncepay sandbox ledger","version":1}` + "\n"
	// maxLineBytes bounds one record. The longest one that the server lets in has two
	// URLs of 526 characters and an order id of 255, each of them escaped by JSON to
	// six bytes, and needs 11 KiB.
	maxLineBytes = 16 << 10
)

// ErrClosed is returned by a ledger that was closed.
var ErrClosed = errors.New("sandbox: the ledger is closed")

// kind is what one line of the journal tells.
type kind string

const (
	kindBooking kind = "booking" // money moved, or is held
	kindDecline kind = "decline" // a final no
	kindRefusal kind = "refusal" // the reference was refused as invalid, as the order asked for
	kindVoid    kind = "void"    // the reference is refused from now on
	kindFault   kind = "fault"   // the order's first send met this fault, and nothing was booked (yet)
	kindToken   kind = "token"   // a token, and the response code of its card

	kindPending      kind = "pending"      // accepted; decided when it is due, or by its challenge
	kindVerified     kind = "verified"     // a card could be charged; nothing moved
	kindDispute      kind = "dispute"      // a dispute has come to a stage
	kindAcknowledged kind = "acknowledged" // a callback was received
)

// record is one line of the journal: a fact that has to outlive the process. It
// has no field for a card, a holder or a security code.
//
// The version is still 1: a record only ever gained kinds and fields, so every older
// journal loads, with what it does not say left empty. An older sandbox refuses a
// journal that has newer records, by its line.
type record struct {
	Kind              kind      `json:"kind"`
	At                time.Time `json:"at"`
	AccountID         string    `json:"account_id,omitempty"`
	Mode              string    `json:"mode,omitempty"`
	Reference         string    `json:"reference,omitempty"`
	MerchantOrderID   string    `json:"merchant_order_id,omitempty"`
	Type              string    `json:"type,omitempty"`
	Amount            string    `json:"amount,omitempty"`
	Currency          string    `json:"currency,omitempty"`
	ID                string    `json:"id,omitempty"`
	ResponseCode      string    `json:"response_code,omitempty"`
	AuthorizationCode string    `json:"authorization_code,omitempty"`
	Fault             string    `json:"fault,omitempty"`
	Token             string    `json:"token,omitempty"`

	Target      string    `json:"target,omitempty"` // the reference of what an operation acts on
	CallbackURL string    `json:"callback_url,omitempty"`
	ReturnURL   string    `json:"return_url,omitempty"`
	Then        verdict   `json:"then,omitempty"`      // of what is pending
	Due         time.Time `json:"due,omitzero"`        // when that comes true, unless a challenge decides
	Challenge   string    `json:"challenge,omitempty"` // the secret part of its page's URL
	Message     string    `json:"message,omitempty"`   // a callback's id
	Copies      int       `json:"copies,omitempty"`    // how often it is to be sent
	Copy        int       `json:"copy,omitempty"`      // which one was acknowledged, from 1
	Dispute     string    `json:"dispute,omitempty"`   // its id
	Stage       string    `json:"stage,omitempty"`
}

// amountForm is a positive or zero decimal without an exponent: ten digits and
// four places are the contract's limits.
var amountForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,9})(\.[0-9]{1,4})?$`)

// check says what is wrong with a record, without quoting it.
func (r *record) check() error {
	class, known := providers.ClassOf(r.ResponseCode)
	scoped := r.AccountID != "" && (r.Mode == "test" || r.Mode == "live")
	named := scoped && r.Reference != ""
	ordered := scoped && r.MerchantOrderID != ""
	good := known && class == providers.ClassSucceeded
	var ok bool
	switch r.Kind {
	case kindBooking:
		ok = named && ordered && r.ID != "" && good && r.AuthorizationCode != "" && r.Type != typeVerify && r.deedFits()
	case kindVerified:
		ok = named && ordered && r.ID != "" && good && r.AuthorizationCode != "" && r.Type == typeVerify && r.deedFits()
	case kindPending:
		ok = named && ordered && r.ID != "" && r.deedFits() && r.pendingFits()
	case kindDecline:
		ok = named && ordered && r.ID != "" && known && !good
	case kindRefusal:
		ok = named && ordered
	case kindVoid:
		ok = named
	case kindFault:
		ok = ordered && r.Fault != ""
	case kindToken:
		ok = r.Token != "" && (r.ResponseCode == "" || known || r.ResponseCode == codeChallenge)
	case kindDispute:
		_, stage := stages[providers.DisputeStage(r.Stage)]
		ok = named && ordered && r.Dispute != "" && stage && amountForm.MatchString(r.Amount) && len(r.Currency) == 3 &&
			(r.CallbackURL == "" || r.Message != "")
	case kindAcknowledged:
		ok = r.Message != "" && r.Copy > 0
	default:
		return errors.New("a kind of record that this version does not know")
	}
	if !ok || r.At.IsZero() {
		return fmt.Errorf("an incomplete record of kind %s", r.Kind)
	}
	return nil
}

// deedFits says whether the record tells wholly what was, or is to be, done.
func (r *record) deedFits() bool {
	if !amountForm.MatchString(r.Amount) || len(r.Currency) != 3 {
		return false
	}
	switch r.Type {
	case typePurchase, typeAuthorize, typeVerify:
		return r.Target == ""
	case typeCapture, typeCancel, typeRefund:
		return r.Target != ""
	}
	return false
}

// pendingFits says whether it is known how the record's waiting ends, and how often
// that is told.
func (r *record) pendingFits() bool {
	told := r.CallbackURL == "" && r.Copies == 0 || r.CallbackURL != "" && r.Message != "" && (r.Copies == 1 || r.Copies == 2)
	switch r.Then {
	case thenApprove, thenDecline:
		return told && !r.Due.IsZero() && r.Challenge == ""
	case thenChallenge:
		return told && r.Due.IsZero() && r.Challenge != ""
	}
	return false
}

// parseRecord reads one line without its newline.
func parseRecord(line []byte) (record, error) {
	var r record
	if json.Unmarshal(line, &r) == nil {
		// A line that this version would write in the same way hides nothing. That is
		// nearly every line, and found out in half the time.
		if b, err := json.Marshal(&r); err == nil && bytes.Equal(b, line) {
			return r, r.check()
		}
	}
	r = record{}
	if err := decodeStrict(line, &r); err != nil {
		return record{}, fmt.Errorf("the line %w", err)
	}
	return r, r.check()
}

// line is the record as the journal keeps it.
func (r *record) line() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(b)+1 > maxLineBytes {
		return nil, errors.New("a record longer than a line may be")
	}
	return append(b, '\n'), nil
}

// journal is an append-only file. append returns when the record is on the disk;
// records that arrive while the disk is busy share the next fsync.
//
// A write or fsync that fails leaves the file in a state nobody knows, so it is
// the last one: from then on everything fails, until a new process reads what is
// really there.
type journal struct {
	path string
	file *os.File
	sync func() error // file.Sync, or a test's failure
	// apply takes over a record that is on the disk, in the file's order.
	apply func(record) error

	mu      sync.Mutex
	last    time.Time // the newest record's
	queue   []*writing
	wake    chan struct{}
	closed  bool
	broken  error
	stopped chan struct{}
}

// writing is a record on its way to the disk.
type writing struct {
	record record
	line   []byte
	done   chan error
}

// openJournal locks the file, feeds its records to apply, cuts off a torn last
// line, and starts the writer. If anything else is wrong with the file it is
// closed unchanged.
func openJournal(dir string, apply func(record) error) (*journal, error) {
	_, err := os.Stat(dir)
	newDir := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("sandbox: ledger: %w", err)
	}
	path := filepath.Join(dir, fileName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600) // #nosec G304 -- the operator's directory
	if err != nil {
		return nil, fmt.Errorf("sandbox: ledger: %w", err)
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("sandbox: ledger %s: %w", path, err)
	}
	var last time.Time
	good, err := replay(f, path, func(r record) error {
		last = later(r.At, last)
		return apply(r)
	})
	if err == nil {
		err = mend(f, good)
	}
	if err == nil {
		err = syncDir(dir) // the file's name has to be there after a power cut, too
	}
	if err == nil && newDir {
		err = syncDir(filepath.Dir(dir))
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("sandbox: ledger %w", err)
	}
	j := &journal{path: path, file: f, sync: f.Sync, apply: apply, last: last, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	go j.write()
	return j, nil
}

// replay reads the whole file and returns the length of its complete lines.
//
// Whoever is killed in the middle of a write leaves the beginning of a line
// without its newline. Nobody was told of that record, because its fsync had not
// returned. Every complete line was meant, and must be readable.
func replay(f *os.File, path string, apply func(record) error) (good int64, err error) {
	in := bufio.NewReaderSize(f, maxLineBytes)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		torn := errors.Is(err, io.EOF)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return 0, fmt.Errorf("%s, line %d: longer than a line may be", path, n)
		case err != nil && !torn:
			return 0, fmt.Errorf("%s, line %d: %w", path, n, err)
		case n == 1 && torn && bytes.HasPrefix([]byte(header), line):
			return 0, nil // new, or torn in its very first write
		case n == 1 && string(line) != header:
			return 0, fmt.Errorf("%s, line 1: not a sandbox ledger of this version", path)
		case torn:
			return good, nil
		case n > 1:
			r, err := parseRecord(line[:len(line)-1])
			if err == nil {
				err = apply(r)
			}
			if err != nil {
				return 0, fmt.Errorf("%s, line %d: %w", path, n, err)
			}
		}
		good += int64(len(line))
	}
}

// mend cuts the file to its complete lines, and gives a new one its header.
func mend(f *os.File, good int64) error {
	if err := f.Truncate(good); err != nil {
		return err
	}
	if good == 0 {
		if _, err := f.WriteString(header); err != nil {
			return err
		}
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir) // #nosec G304 -- the operator's directory
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// append dates the record, writes it, applies it, and only then returns. After an
// error the record may be in the file or not; the journal is broken.
//
// In the file time never runs backwards, whatever the machine's clock does: whoever
// reads the books by time, a page after the other, must not miss a line.
func (j *journal) append(r record) error {
	j.mu.Lock()
	if err := j.errLocked(); err != nil {
		j.mu.Unlock()
		return err
	}
	r.At = later(now(), j.last)
	line, err := r.line()
	if err != nil {
		j.mu.Unlock()
		return fmt.Errorf("sandbox: ledger: %w", err)
	}
	j.last = r.At
	p := &writing{record: r, line: line, done: make(chan error, 1)}
	j.queue = append(j.queue, p)
	select {
	case j.wake <- struct{}{}:
	default: // the writer has been woken already, and will see this one too
	}
	j.mu.Unlock()
	return <-p.done
}

// now is the time as records have it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// write is the writer: each round takes all that wait.
func (j *journal) write() {
	defer close(j.stopped)
	for range j.wake {
		j.mu.Lock()
		batch := j.queue
		j.queue = nil
		err := j.broken
		j.mu.Unlock()
		if err == nil {
			err = j.commit(batch)
		}
		for _, p := range batch {
			p.done <- err
		}
	}
}

// commit puts a batch on the disk, then applies it.
func (j *journal) commit(batch []*writing) error {
	var lines []byte
	for _, p := range batch {
		lines = append(lines, p.line...)
	}
	_, err := j.file.Write(lines)
	if err == nil {
		err = j.sync()
	}
	for i := 0; err == nil && i < len(batch); i++ {
		err = j.apply(batch[i].record)
	}
	if err != nil {
		err = fmt.Errorf("sandbox: ledger %s cannot be written: %w", j.path, err)
		j.mu.Lock()
		j.broken = err
		j.mu.Unlock()
	}
	return err
}

// err says why the journal no longer works.
func (j *journal) err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.errLocked()
}

func (j *journal) errLocked() error {
	if j.broken == nil && j.closed {
		return ErrClosed
	}
	return j.broken
}

// close lets what waits reach the disk, then gives the file up.
func (j *journal) close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	close(j.wake) // nobody sends on it any more: append looks at closed first
	j.mu.Unlock()
	<-j.stopped
	return j.file.Close()
}
