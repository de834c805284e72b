package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgbouncer"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/test/faults/oracle"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/harness"
)

// The times of every process in the campaign: short enough that everything which
// usually takes minutes happens.
const (
	providerTimeout = time.Second
	settling        = 2 * time.Second
	lease           = 6 * time.Second
	recoveryEvery   = 200 * time.Millisecond
	// sendWindow is how long after its claim a holder may send: the lease less the
	// time-out and the engine's margin of one second.
	sendWindow = lease - providerTimeout - time.Second
	// proofAfter is how long after a claim an inquiry proves something.
	proofAfter = sendWindow + providerTimeout + settling
	// healLimit is how long after the last fault something may still be unresolved.
	healLimit = lease + settling + 10*time.Second
)

// pgSettings trade durability for speed, on the server of the stages whose PostgreSQL
// does not end.
var pgSettings = map[string]string{
	"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "400", "max_wal_size": "256MB",
}

// ground is what stages stand on: one PostgreSQL, and a migrated database to copy. It
// is everybody's, or one stage's own, where the server may end.
type ground struct {
	server    *localpg.Server
	mortal    *mortal // instead of server
	dir       string
	pgBouncer bool // instances reach it through one each, as a role that can do no more than it must

	mu     sync.Mutex // nobody may be connected to a template that is being copied
	copies int
}

// Instances are called api-1, api-2.
const (
	instancePrefix = "api-"
	firstInstance  = instancePrefix + "1"
)

const templateName = "campaign_template"

func newGround(ctx context.Context, dir string, pgBouncer bool) (*ground, error) {
	server, err := localpg.Start(ctx, localpg.Options{TempDir: pgtest.TempDir(), Settings: pgSettings})
	if err != nil {
		return nil, err
	}
	g := &ground{server: server, dir: dir, pgBouncer: pgBouncer}
	if err := g.makeTemplate(ctx); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// newMortalGround is the ground of one stage whose PostgreSQL ends now and then.
func newMortalGround(ctx context.Context, dir string, pgBouncer bool, o set) (*ground, error) {
	m, err := startMortal(ctx, o)
	if err != nil {
		return nil, err
	}
	g := &ground{mortal: m, dir: dir, pgBouncer: pgBouncer}
	if err = g.makeTemplate(ctx); err == nil && o.standby != alone {
		err = m.pairUp(ctx, o.standby)
	}
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// address is the server's URL.
func (g *ground) address() string {
	if g.mortal != nil {
		return g.mortal.url()
	}
	return g.server.URL()
}

func (g *ground) makeTemplate(ctx context.Context) error {
	if err := g.exec(ctx, "CREATE DATABASE "+templateName); err != nil {
		return err
	}
	if err := postgres.Migrate(ctx, g.url(templateName), nil); err != nil {
		return err
	}
	if g.pgBouncer {
		if err := g.exec(ctx, "CREATE ROLE "+pgtest.AppRole+" LOGIN"); err != nil {
			return err
		}
	}
	conn, err := pgx.Connect(ctx, g.url(templateName))
	if err != nil {
		return err
	}
	return errors.Join(oracle.Watch(ctx, conn), conn.Close(ctx))
}

func (g *ground) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, g.address())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// database makes a new, migrated database and returns its URL.
func (g *ground) database(ctx context.Context) (name, dbURL string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.copies++
	name = fmt.Sprintf("campaign_%d", g.copies)
	return name, g.url(name), g.exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+templateName)
}

func (g *ground) drop(ctx context.Context, name string) error {
	return g.exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
}

func (g *ground) url(database string) string {
	u, err := url.Parse(g.address())
	if err != nil {
		panic("localpg gave a URL that cannot be read")
	}
	u.Path = "/" + database
	return u.String()
}

func (g *ground) close() error {
	if g.mortal != nil {
		return g.mortal.close()
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel() // nothing is worth an orderly shutdown
	return g.server.Stop(ended)
}

// set says what a stage is to be.
type set struct {
	seed      int64
	policy    record.Policy // of both merchants; the default one, if it has no name
	binary    string
	instances int
	wild      bool        // processes die all the time; otherwise they sleep
	mortal    bool        // PostgreSQL is the stage's own, and ends now and then
	forgetful bool        // and does not keep what it has acknowledged
	standby   standbyKind // what takes its place when it fails over; its disk then fills never
	ownDisk   bool        // and has a disk of its own, which can be filled
	// serializable says that sessions which set nothing themselves are SERIALIZABLE.
	serializable bool
	withhold     string
	setup        string              // SQL, before anything is started
	env          map[string][]string // more variables, by instance
	progress     func(format string, args ...any)
}

// stage is one run: its own database, provider, instances, merchants and faults.
type stage struct {
	set
	ground    *ground
	dir       string
	dbName    string
	pool      *pgxpool.Pool // the campaign's own way to the database
	sandbox   *daemon
	bankURL   string
	instances []*instance
	ctl       *controller
	merchants []harness.Keys
	rec       *record.Log
	faults    *faults
	scripts   *scripts
	postman   *postman
	secret    string        // with which the provider signs its callbacks
	token     string        // the operator's
	behind    time.Duration // since when the standby is
	doubts    []doubt       // of the failovers to one that was
	clients   clients
	sdk       sdkClients
	shops     shops
	early     []record.Violation // seen while faults went on, by one goroutine, which has ended before anybody judges
}

// newStage sets everything up and returns once all instances answer.
func newStage(ctx context.Context, g *ground, o set) (_ *stage, err error) {
	if o.policy.Name == "" {
		o.policy = record.Policies[0]
	}
	s := &stage{set: o, ground: g, rec: record.NewLog(), faults: newFaults(), scripts: newScripts()}
	if o.mortal {
		if s.ground, err = newMortalGround(ctx, g.dir, g.pgBouncer, o); err != nil {
			return nil, err
		}
	}
	if s.dir, err = os.MkdirTemp(g.dir, "stage-"); err != nil {
		return nil, errors.Join(err, s.leaveGround())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	var dbURL string
	if s.dbName, dbURL, err = s.ground.database(ctx); err != nil {
		return nil, err
	}
	if s.pool, err = openPool(ctx, dbURL); err != nil {
		return nil, err
	}
	if err = s.strictByDefault(ctx); err != nil {
		return nil, err
	}
	if o.setup != "" {
		if _, err = s.pool.Exec(ctx, o.setup); err != nil {
			return nil, fmt.Errorf("set up the mutant's database: %w", err)
		}
	}
	if s.ctl, err = startController(ctx, s.dir); err != nil {
		return nil, err
	}
	s.ctl.told = s.noteStep
	s.secret = harness.Unguessable("callbacks")
	if s.postman, err = startPostman(ctx, s); err != nil {
		return nil, err
	}
	s.ctl.died = func(name string) {
		for _, i := range s.instances {
			if i.name == name {
				i.hit()
			}
		}
	}
	if err = s.startSandbox(ctx); err != nil {
		return nil, err
	}
	installation := harness.NewInstallation("", "")
	for n := range o.instances {
		if err = s.startInstance(ctx, fmt.Sprintf("%s%d", instancePrefix, n+1), dbURL, installation); err != nil {
			return nil, err
		}
	}
	return s, s.makeMerchants(ctx, installation)
}

func (s *stage) startSandbox(ctx context.Context) error {
	s.sandbox = &daemon{name: "sandbox", binary: s.binary, dir: s.dir, command: harness.Command{
		Args: []string{"sandbox", "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(s.dir, "bank")},
		Env:  []string{"PAYMENTS_CALLBACK_SECRET=" + s.secret},
	}}
	ready := make(chan string, 1)
	s.sandbox.ready = func(out string) bool {
		u, ok := harness.Told(out, "Sandbox")
		if ok {
			select {
			case ready <- u:
			default:
			}
		}
		return ok
	}
	if err := s.sandbox.start(ctx); err != nil {
		return err
	}
	select {
	case s.bankURL = <-ready:
		// Started again, it must be where the proxies look for it.
		s.sandbox.command.Args[2] = strings.TrimPrefix(s.bankURL, "http://")
		return nil
	default:
		return errors.New("the sandbox did not start")
	}
}

func (s *stage) startInstance(ctx context.Context, name, dbURL string, shared harness.Installation) error {
	i := &instance{}
	s.instances = append(s.instances, i)
	var err error
	if i.psp, err = pspproxy.Start(ctx, name, s.bankURL, s.judge, s.brokenOff); err != nil {
		return err
	}
	if err = s.openDatabase(ctx, i, dbURL); err != nil {
		return err
	}
	shared.DatabaseURL, shared.ProviderURL = i.db.URL(), i.psp.URL()
	if i.bouncer != nil {
		shared.DatabaseURL = i.bouncer.URL(s.dbName, pgtest.AppRole)
	}
	command := shared.ServeCommand("--provider-timeout", providerTimeout.String(), "--settle", settling.String(),
		"--lease", lease.String(), "--recovery-interval", recoveryEvery.String(), "--shutdown-timeout", "5s",
		"--public-url", s.postman.url())
	command.Env = append(command.Env, "PAYMENTS_CALLBACK_SECRET="+s.secret)
	command.Env = append(command.Env, faultEnv(s.ctl.socket, name, s.withhold)...)
	command.Env = append(command.Env, s.env[name]...)
	i.daemon = daemon{name: name, binary: s.binary, dir: s.dir, command: command, ready: i.isReady}
	if err := i.start(ctx); err != nil {
		return err
	}
	if u, _ := i.addresses(); u == "" {
		return fmt.Errorf("%s did not start: %s", name, lastLine(i.logs()))
	}
	return nil
}

// openDatabase makes an instance's way to the database. A PgBouncer stands before the
// proxy, so that it is PgBouncer who loses the server, and says so in its own words.
func (s *stage) openDatabase(ctx context.Context, i *instance, dbURL string) (err error) {
	if !s.ground.pgBouncer {
		i.db, err = pgproxy.Start(ctx, dbURL)
		return err
	}
	if left, err := postgres.Grant(ctx, dbURL, pgtest.AppRole); err != nil || len(left) > 0 {
		return fmt.Errorf("grant what the product needs, and %q: %w", left, err)
	}
	if i.db, err = pgproxy.Start(ctx, dbURL); err != nil {
		return err
	}
	i.bouncer, err = pgbouncer.Start(ctx, s.dir, i.db.URL(), pgtest.AppRole)
	return err
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// live is the mode in which a policy may count nonces alone.
const live = "live"

// merchantCount: two that use the same nonces must never meet.
const merchantCount = 2

func (s *stage) makeMerchants(ctx context.Context, shared harness.Installation) error {
	_, admin := s.instances[0].addresses()
	operator := harness.Operator{URL: admin, Token: shared.AdminToken}
	for n := range merchantCount {
		keys, err := operator.NewMerchantWith(ctx, fmt.Sprintf("merchant %d", n+1), s.policy.Name)
		if err == nil && s.policy.Live {
			keys, err = operator.NewKey(ctx, keys.AccountID, live)
		}
		if err != nil {
			return err
		}
		s.merchants = append(s.merchants, keys)
	}
	s.token = shared.AdminToken
	return s.awaitDirectory(ctx)
}

// awaitDirectory waits until every instance knows the merchants: a key made on one
// is known on the others within seconds.
func (s *stage) awaitDirectory(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for _, i := range s.instances {
		for n := range s.merchants {
			for !s.knows(ctx, i, n) {
				if ctx.Err() != nil {
					return fmt.Errorf("%s never came to know its merchants: %s", i.name, lastLine(i.logs()))
				}
				rest(ctx, 2*restPause)
			}
		}
	}
	return nil
}

// knows says whether an instance answers a merchant.
func (s *stage) knows(ctx context.Context, i *instance, merchant int) bool {
	c := s.client(i, merchant)
	if c == nil {
		return false
	}
	a := c.Get(ctx, "/v1/idempotency-keys/none")
	return a.Err == nil && a.Status == http.StatusNotFound
}

// close ends what belongs to the stage.
func (s *stage) close(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, i := range s.instances {
		wg.Go(i.stop)
	}
	if s.sandbox != nil {
		wg.Go(s.sandbox.stop)
	}
	wg.Wait()
	if s.postman != nil {
		s.postman.close()
	}
	for _, i := range s.instances {
		if i.psp != nil {
			i.psp.Close()
		}
		if i.bouncer != nil {
			_ = i.bouncer.Close() // its folder goes with the stage's
		}
		if i.db != nil {
			i.db.Close()
		}
	}
	if s.ctl != nil {
		s.ctl.close()
	}
	var err error
	if s.pool != nil {
		s.pool.Close()
		if !s.mortal { // else it goes with its server
			err = s.ground.drop(ctx, s.dbName)
		}
	}
	return errors.Join(err, s.leaveGround(), os.RemoveAll(s.dir))
}

// leaveGround ends a PostgreSQL that is the stage's own.
func (s *stage) leaveGround() error {
	if s.ground.mortal == nil {
		return nil
	}
	return s.ground.close()
}

// instance by its name.
func (s *stage) instance(name string) *instance {
	for _, i := range s.instances {
		if i.name == name {
			return i
		}
	}
	return nil
}
