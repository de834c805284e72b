package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// lookLimit bounds one look: what takes longer is an answer, too.
	lookLimit = 5 * time.Second
	// examLimit bounds all of them, where each takes its limit.
	examLimit = time.Minute
	// neighbourLimit bounds the question to who has our address.
	neighbourLimit = time.Second
	// poolSize is enough: looks come one after another.
	poolSize = 1
	// livez begins what an instance of ours answers to whoever asks whether it lives.
	livez = `{"status":`
)

var (
	errRefused    = errors.New("a flag is refused")
	errUnreached  = errors.New("the database is not reached")
	errMisfit     = errors.New("the schema does not fit")
	errNoProvider = errors.New("no provider is configured")
	errPooled     = errors.New("PgBouncer is in between")
)

// seen is what one look found, or why it found nothing.
type seen[T any] struct {
	got T
	err error
}

// facts are all that the checks judge by.
type facts struct {
	set       Settings
	now       time.Time
	openFiles seen[uint64]
	taken     map[string]error // by address: why it cannot be listened on
	ours      map[string]bool  // by address: what listens there answers as we do

	reach    error // why the database cannot be reached
	refused  error // what it says to our session's settings
	pooled   bool
	skew     seen[skew]
	server   seen[server]
	misfit   error // the schema's
	tables   seen[[]string]
	lacking  seen[[]string]
	identity seen[postgres.Noted]
	keys     seen[keys]
	work     seen[work]

	answers map[string]answer // by mode
}

// skew is how far our clock is ahead of the database's.
type skew struct {
	ahead  time.Duration
	within time.Duration // half the round trip: what is not known of it
}

// answer is what a provider says to an inquiry.
type answer struct {
	result providers.Result
	took   time.Duration
	mute   bool // it cannot be asked
}

// look gathers the facts. Whatever fails is a fact, too.
func look(ctx context.Context, s Settings) *facts {
	ctx, cancel := context.WithTimeout(ctx, examLimit)
	defer cancel()
	f := &facts{set: s, now: time.Now(), taken: map[string]error{}, ours: map[string]bool{}, answers: map[string]answer{}}
	f.openFiles = lookAtOpenFiles()
	if onAddresses(f) == nil {
		f.lookAtAddress(ctx, s.API)
		if !s.Operator.exposed() { // else nobody will serve on it
			f.lookAtAddress(ctx, s.Operator)
		}
	}
	f.lookAtDatabase(ctx)
	for mode, p := range s.Providers {
		f.answers[mode] = ask(ctx, mode, p)
	}
	return f
}

func lookAtOpenFiles() seen[uint64] {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return seen[uint64]{err: errors.New("the system does not tell the limit of open files")}
	}
	return seen[uint64]{got: uint64(r.Cur)} //nolint:unconvert // signed on some systems
}

// lookAtAddress takes the address for a moment. What has it is asked whether it is
// an instance of ours.
func (f *facts) lookAtAddress(ctx context.Context, l Listener) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", l.Address)
	if err == nil {
		_ = listener.Close() // nothing has been served on it
		return
	}
	f.taken[l.Address] = err
	if errors.Is(err, syscall.EADDRINUSE) {
		f.ours[l.Address] = isOurs(ctx, l)
	}
}

// isOurs asks who listens there whether it lives, and looks whether it answers as we
// do. With TLS, it must have the certificate that we would have.
func isOurs(ctx context.Context, l Listener) bool {
	scheme, transport := "http://", &http.Transport{DisableKeepAlives: true}
	if l.TLS {
		if l.Err != nil {
			return false
		}
		scheme = "https://"
		transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		transport.TLSClientConfig.RootCAs.AddCert(l.Certificate.Leaf)
		switch leaf := l.Certificate.Leaf; {
		case len(leaf.DNSNames) > 0:
			transport.TLSClientConfig.ServerName = strings.Replace(leaf.DNSNames[0], "*", "any", 1)
		case len(leaf.IPAddresses) > 0:
			transport.TLSClientConfig.ServerName = leaf.IPAddresses[0].String()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, neighbourLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+l.Address+httpapi.LivezPath, nil)
	if err != nil {
		return false
	}
	client := http.Client{Transport: transport}
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(len(livez))))
	return err == nil && string(body) == livez
}

func (f *facts) lookAtDatabase(ctx context.Context) {
	db, err := f.open(ctx)
	if err != nil {
		f.reach = err
		f.skew.err, f.server.err, f.tables.err, f.lacking.err = errUnreached, errUnreached, errUnreached, errUnreached
		f.identity.err, f.keys.err, f.work.err = errUnreached, errUnreached, errUnreached
		return
	}
	defer db.Close()
	s := store{db}
	f.skew = within(ctx, s.skew)
	f.server = within(ctx, s.server)
	f.misfit = within(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, db.CheckSchema(ctx) }).err
	f.tables = within(ctx, db.Unfit)
	f.lacking = within(ctx, db.Lacking)
	f.identity = within(ctx, db.Identity)
	f.keys = within(ctx, s.keys)
	f.work = within(ctx, s.work)
}

// open connects as an instance would. Where its sessions are refused, or are not as
// ours must be, it takes them as they are, so that the rest can be looked at.
func (f *facts) open(ctx context.Context) (*postgres.DB, error) {
	if f.set.Database.Err != nil || f.set.Database.Value == "" {
		return nil, errUnreached
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	o := postgres.Options{MaxConns: poolSize, PgBouncer: f.set.PgBouncer}
	db, err := postgres.Open(ctx, f.set.Database.Value, o)
	if !errors.Is(err, postgres.ErrSession) {
		f.pooled = f.set.PgBouncer
		return db, err
	}
	f.refused, f.pooled = err, true
	o.PgBouncer, o.AnySession = true, true
	return postgres.Open(ctx, f.set.Database.Value, o)
}

// within runs one look within its limit. Of what fails, only the kind is told: texts
// of the server's, and of the network's, quote names.
func within[T any](ctx context.Context, look func(context.Context) (T, error)) seen[T] {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	got, err := look(ctx)
	switch code := state(err); {
	case err == nil, errors.Is(err, postgres.ErrSchema):
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("the database did not answer within %s", plain(lookLimit))
	case strings.HasPrefix(code, "42"): // a table, a column or a privilege is missing
		err = fmt.Errorf("the schema or the role's privileges do not fit (SQLSTATE %s)", code)
	case code != "":
		err = fmt.Errorf("the database refused to tell (SQLSTATE %s)", code)
	default:
		err = errors.New("the connection to the database was lost")
	}
	return seen[T]{got, err}
}

// state is the SQLSTATE of what the server refused, or "".
func state(err error) string {
	if e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return e.SQLState()
	}
	return ""
}

// ask asks a provider about a reference that nobody has ever used: whoever answers
// that it does not know it can be reached, takes our credentials, and is sane.
func ask(ctx context.Context, mode string, p providers.Provider) answer {
	if !p.Traits().Queryable {
		return answer{mute: true}
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	reference, account := uuid.Must(uuid.NewV7()).String(), uuid.Must(uuid.NewV7()).String()
	began := time.Now()
	r := p.Inquire(ctx, providers.Order{Reference: reference, AccountID: account, Mode: mode, MerchantOrderID: "payments doctor"})
	return answer{result: r, took: time.Since(began)}
}
