package merchants

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
)

const (
	// refreshTimeout bounds one refresh, but the first: it takes milliseconds, and one
	// that hangs must leave time for the next before the directory is too old.
	refreshTimeout = time.Second
	// completeEvery is how often everything is read again. What changed is read each
	// time, going by its date; this finds what was dated wrongly: by a database whose
	// clock was set, by a commit that hung, or by a backup that was restored.
	completeEvery = time.Minute
	// useGrain is how exactly a key's last use is noted. Within it a request that uses
	// the key writes nothing, not even to memory that other processors have cached.
	useGrain = time.Minute
	// retryStale is Retry-After, in seconds, while the directory is too old.
	retryStale = 1
)

// directory is every key that may be taken.
type directory struct {
	keys     map[string]*entry      // by public key
	expiring map[string]*entry      // those of them that end by themselves
	accounts map[uuid.UUID][]*entry // all of them, by whose they are
	origins  map[string]int         // how many of them have an origin
}

func newDirectory() directory {
	return directory{keys: map[string]*entry{}, expiring: map[string]*entry{}, accounts: map[uuid.UUID][]*entry{}, origins: map[string]int{}}
}

func (d directory) add(e *entry) {
	d.keys[e.publicKey] = e
	if !e.expires.IsZero() {
		d.expiring[e.publicKey] = e
	}
	account := e.caller.AccountID
	d.accounts[account] = append(d.accounts[account], e)
	for _, o := range e.origins {
		d.origins[o]++
	}
}

// remove takes the key out, if it is in.
func (d directory) remove(publicKey string) {
	e, known := d.keys[publicKey]
	if !known {
		return
	}
	delete(d.keys, publicKey)
	delete(d.expiring, publicKey)
	account := e.caller.AccountID
	d.accounts[account] = slices.DeleteFunc(d.accounts[account], func(other *entry) bool { return other == e })
	if len(d.accounts[account]) == 0 {
		delete(d.accounts, account)
	}
	for _, o := range e.origins {
		if d.origins[o]--; d.origins[o] == 0 {
			delete(d.origins, o)
		}
	}
}

// entry is one key, with what it has of its merchant. It never changes, but for its use.
type entry struct {
	id           uuid.UUID
	publicKey    string
	caller       Caller
	merchantName string
	origins      []string
	hash         [sha256.Size]byte
	expires      time.Time      // by the database's clock; zero: never
	networks     []netip.Prefix // that may use it; nil: all
	use          *use           // the same for all entries that a key has one after another
}

// public is whom the key alone speaks for.
func (e *entry) public() PublicCaller { return PublicCaller{e.caller, e.merchantName, e.origins} }

// nobody stands for a key that there is not: no secret has a hash of zeros.
var nobody = &entry{use: &use{}}

// ended reports whether the key's time is over.
func (e *entry) ended(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

// use is when a key was used last, in microseconds of the database's clock, and what
// the database knows of that.
type use struct{ at, written atomic.Int64 }

func (u *use) note(now time.Time) {
	if at := now.UnixMicro(); at-u.at.Load() >= useGrain.Microseconds() {
		u.at.Store(at)
	}
}

func (u *use) pending() bool { return u.at.Load() > u.written.Load() }

// asOf is how old the directory is. asked and answered are this process's, and only
// their distance to now counts; database is what its clock showed between the two.
type asOf struct{ asked, answered, database time.Time }

// databaseTime is the database's clock carried on to now. It is late by as much as
// the answer took at most, so a key is never refused before its time is over.
func (a asOf) databaseTime(now time.Time) time.Time { return a.database.Add(now.Sub(a.answered)) }

// RefuseAfter lets Authenticate refuse everybody while the last refresh that worked
// was begun longer ago than maxAge. That is what bounds a revocation: a refresh reads
// everything that was committed before it began, so whatever was revoked maxAge ago
// is revoked here, or nobody gets in. Call it before serving.
func (s *Service) RefuseAfter(maxAge time.Duration) { s.maxAge = maxAge }

// Fresh reports whether the directory is young enough to be believed: if not,
// Authenticate refuses everybody.
func (s *Service) Fresh() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.believes(s.asOf, s.now())
}

func (s *Service) believes(as asOf, now time.Time) bool {
	return s.maxAge == 0 || now.Sub(as.asked) <= s.maxAge
}

// Refresh brings the directory up to date with what changed since the last time,
// on whatever instance, and revokes the keys whose time is over, if there are any.
// It returns the number of new keys. An error after the directory was brought up to
// date is about the latter; such keys are refused all the same.
func (s *Service) Refresh(ctx context.Context) (int, error) {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	asked := s.now()
	first, since := s.readUntil.IsZero(), s.readUntil
	complete := first || asked.Sub(s.completed) >= completeEvery
	if complete {
		// Also if it fails: one that is too slow must not keep the news out.
		s.completed, since = asked, time.Time{}
	}
	r, err := s.read(ctx, since, !first)
	if err != nil {
		return 0, err
	}
	s.readUntil = r.at
	fresh, due := s.apply(r, complete, asOf{asked: asked, answered: s.now(), database: r.at})
	if len(due) == 0 {
		return fresh, nil
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	return fresh, s.store.revokeDue(ctx, due)
}

func (s *Service) read(ctx context.Context, since time.Time, hurry bool) (reading, error) {
	if hurry {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, refreshTimeout)
		defer cancel()
	}
	return s.store.changes(ctx, since)
}

// apply takes a reading over, and returns the number of new keys and those whose time
// is over.
func (s *Service) apply(r reading, complete bool, as asOf) (fresh int, due []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.dir.keys
	if complete {
		s.dir = newDirectory()
	}
	for _, c := range r.changes {
		if c.PublicAPIKey == nil {
			continue // the one row of a reading that found nothing
		}
		was := before[*c.PublicAPIKey]
		s.dir.remove(*c.PublicAPIKey)
		if c.Revoked || c.Disabled {
			s.part(was)
			continue
		}
		e := c.entry()
		if was == nil {
			fresh++
		} else {
			e.use = was.use
		}
		s.dir.add(e)
	}
	if complete {
		for public, e := range before {
			if s.dir.keys[public] == nil {
				s.part(e)
			}
		}
	}
	s.asOf = as
	for _, e := range s.dir.expiring {
		if e.ended(as.database) {
			due = append(due, e)
		}
	}
	return fresh, due
}

// part keeps an entry that leaves the directory until its use is written. s.mu is held.
func (s *Service) part(e *entry) {
	if e != nil && e.use.pending() && !slices.Contains(s.parted, e) {
		s.parted = append(s.parted, e)
	}
}

// Authenticate says whom a pair of keys speaks for. An unknown key, a revoked one and
// a wrong secret take the same path and get the same answer, INVALID_CREDENTIALS. A
// key with a list of networks is only taken from an address in one of them; from
// another it is UNKNOWN_IP_ADDRESS. While the directory is too old (see RefuseAfter)
// everybody gets SERVICE_UNAVAILABLE.
func (s *Service) Authenticate(publicKey, secret string, from netip.Addr) (Caller, error) {
	e, known, at, err := s.find(publicKey)
	if err != nil {
		return Caller{}, err
	}
	hash := hashSecret(secret)
	if subtle.ConstantTimeCompare(hash[:], e.hash[:]) != 1 || !known || e.ended(at) {
		return Caller{}, apierr.New(apierr.InvalidCredentials, "public-api-key and private-secret-key must be a valid pair")
	}
	if !allows(e.networks, from) {
		return Caller{}, apierr.New(apierr.UnknownIPAddress, "the request's address is not on the key's list")
	}
	e.use.note(at)
	return e.caller, nil
}

// AuthenticatePublic says whom a public key speaks for by itself. Whoever has seen a page
// of the merchant has that key, so it must allow no more than a payer may do. An unknown
// key, a revoked one, one whose time is over and one of a disabled merchant get the same
// answer, INVALID_CREDENTIALS. A key's networks do not count: they are those of the
// merchant's backend, and a payer may be anywhere. While the directory is too old (see
// RefuseAfter) everybody gets SERVICE_UNAVAILABLE.
func (s *Service) AuthenticatePublic(publicKey string) (PublicCaller, error) {
	e, known, at, err := s.find(publicKey)
	if err != nil {
		return PublicCaller{}, err
	}
	if !known || e.ended(at) {
		return PublicCaller{}, apierr.New(apierr.InvalidCredentials, "public-api-key must be a valid key")
	}
	e.use.note(at) // who rotates a key learns from it that pages still have the old one
	return e.public(), nil
}

// find finds a key that may be taken, and tells the database's time. For one that there is
// not it returns nobody, so that whoever asks can go on as for any other. While the
// directory is too old it finds none, and returns an error.
func (s *Service) find(publicKey string) (e *entry, known bool, at time.Time, err error) {
	s.mu.RLock()
	e, known = s.dir.keys[publicKey]
	as := s.asOf
	s.mu.RUnlock()
	now := s.now()
	if !s.believes(as, now) {
		return nil, false, at, apierr.New(apierr.ServiceUnavailable, "the service cannot tell at the moment which keys are valid; retry with the same key").Retry(retryStale)
	}
	if !known {
		e = nobody
	}
	return e, known, as.databaseTime(now), nil
}

// PublicKey is a public key of an account in a mode, for a page of ours that calls for the
// merchant: the oldest that has no end, or else the oldest that has not ended; and whom it
// speaks for. It is not ok if there is none, because there is no such account, all of its
// keys are revoked, or it is disabled.
func (s *Service) PublicKey(account uuid.UUID, mode string) (caller PublicCaller, publicKey string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	at := s.asOf.databaseTime(s.now())
	var best *entry
	for _, e := range s.dir.accounts[account] {
		if e.caller.Mode == mode && !e.ended(at) && (best == nil || e.outlasts(best)) {
			best = e
		}
	}
	if best == nil {
		return PublicCaller{}, "", false
	}
	return best.public(), best.publicKey, true
}

// outlasts reports whether a page is better off with this key: it has no end where the
// other one has, or else it is the older one.
func (e *entry) outlasts(other *entry) bool {
	if e.expires.IsZero() != other.expires.IsZero() {
		return e.expires.IsZero()
	}
	return bytes.Compare(e.id[:], other.id[:]) < 0
}

// Origins are those that an account has registered; none if it has no key that is taken,
// or is disabled. They are not to be written to: all callers share them.
func (s *Service) Origins(account uuid.UUID) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if entries := s.dir.accounts[account]; len(entries) > 0 {
		return entries[0].origins
	}
	return nil
}

// KnownOrigin reports whether some merchant whose keys are taken has registered an origin,
// written as a browser sends it. A browser that asks in advance shows no key; that a merchant
// has the origin lets nobody do anything yet.
func (s *Service) KnownOrigin(origin string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.dir.origins[origin] > 0
}

// FlushUses writes down when keys were used last, all of them in one statement. It
// returns their number. What cannot be written is tried again the next time.
func (s *Service) FlushUses(ctx context.Context) (int, error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.RLock()
	pending := slices.Clone(s.parted)
	for _, e := range s.dir.keys {
		if e.use.pending() {
			pending = append(pending, e)
		}
	}
	s.mu.RUnlock()
	if len(pending) == 0 {
		return 0, nil
	}
	at := make([]int64, len(pending))
	for i, e := range pending {
		at[i] = e.use.at.Load()
	}
	if err := s.store.noteUses(ctx, pending, at); err != nil {
		return 0, err
	}
	for i, e := range pending {
		e.use.written.Store(at[i])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parted = slices.DeleteFunc(s.parted, func(e *entry) bool { return !e.use.pending() })
	return len(pending), nil
}

// PolicyOfKey is the name of the idempotency policy of a public key's merchant, whoever
// sends it: nobody is authenticated by that. Of a key that the directory does not hold,
// because it is unknown or revoked or its merchant is disabled, it is the default. It is
// for telling a client in words that it can read why it is refused.
func (s *Service) PolicyOfKey(publicKey string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e, known := s.dir.keys[publicKey]; known {
		return e.caller.Policy
	}
	return s.policies[0]
}
