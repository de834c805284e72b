package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/test/harness"
)

// Not in parallel with other tests, so that the time it tells is the program's.
func TestTheFirstStartInAnEmptyFolderIsReadyWithinAMinuteAndItsThreeLinesCanBePasted(t *testing.T) {
	folder := harness.Folder(t)
	process := harness.Start(t, harness.Command{
		Args: []string{"dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, Dir: folder,
	})
	dataDir := filepath.Join(folder, ".data")
	dev := harness.AwaitDev(t, process, dataDir)
	t.Logf("ready after %s", dev.Took.Round(time.Millisecond))
	if dev.Took > time.Minute {
		t.Errorf("it took %s", dev.Took)
	}
	checkDevFiles(t, dataDir)

	lines := regexp.MustCompile(`(?m)^curl .*$`).FindAllString(process.Stdout(), -1)
	if len(lines) != 3 {
		t.Fatalf("the banner has %d curl lines", len(lines))
	}
	created := paste(t, lines[0])
	if created.status != http.StatusCreated || created.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("the first line does not create a payment: %+v", created)
	}
	replayed := paste(t, lines[1])
	if replayed.status != http.StatusCreated || replayed.header.Get("Idempotent-Replayed") != "true" || !bytes.Equal(replayed.body, created.body) {
		t.Errorf("the second line does not replay the first: %+v", replayed)
	}
	// The banner also says what happens if the amount is changed.
	changed := paste(t, strings.Replace(lines[1], "45.67", "99.99", 1))
	if !bytes.Equal(changed.body, created.body) || changed.header.Get("Idempotency-Body-Mismatch") != "true" {
		t.Errorf("another amount is not ignored: %+v", changed)
	}
	var found harness.Lives
	if err := json.Unmarshal(paste(t, lines[2]).body, &found); err != nil || len(found.Lives) != 1 {
		t.Fatalf("the third line finds %+v (%v)", found, err)
	}
	const verdict = "Charged once: 45.67 USD on "
	if l := found.Lives[0]; l.Charges != 1 || l.KeyState != "answered" || !strings.HasPrefix(l.Verdict, verdict) {
		t.Errorf("the third line says %+v", l)
	}
	harness.Call(t, harness.Command{Args: []string{"lookup", "my-first-key"}, Dir: folder}).
		Must(t, 0, verdict, "Replayed twice, once with a different amount, which was ignored.", "key          answered")
	if all := dev.Info.Ledger().All(t); len(all) != 1 || all[0].Amount != "45.67" {
		t.Errorf("the ledger has %v", all)
	}
}

// checkDevFiles checks what dev.json holds, and that neither it nor the secrets
// can be read by anybody else.
func checkDevFiles(t *testing.T, dataDir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dataDir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	want := []string{"account_id", "admin_token", "admin_url", "base_url", "database_url", "pid", "private_secret_key", "public_api_key", "sandbox_url"}
	if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
		t.Errorf("dev.json has the fields %v", got)
	}
	for name, form := range map[string]string{
		"account_id":         `^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$`,
		"base_url":           `^http://127\.0\.0\.1:[1-9][0-9]*$`, // no /v1
		"admin_url":          `^http://127\.0\.0\.1:[1-9][0-9]*$`,
		"sandbox_url":        `^http://127\.0\.0\.1:[1-9][0-9]*$`,
		"public_api_key":     `^sandbox_.{32,}$`,
		"private_secret_key": `^.{43,}$`, // 256 bits, six to a character
		"admin_token":        `^.{32,}$`,
		"database_url":       `^postgres://`,
	} {
		if value, _ := fields[name].(string); !regexp.MustCompile(form).MatchString(value) {
			t.Errorf("%s does not look as it should", name)
		}
	}
	for _, name := range []string{"dev.json", "secrets.json"} {
		info, err := os.Stat(filepath.Join(dataDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %s", name, info.Mode())
		}
	}
}

// pasted is what somebody sees who pasted a line into a terminal.
type pasted struct {
	status int
	header http.Header
	body   []byte
}

// paste runs a line in a shell. Where there is no curl, the shell still takes the
// line apart, and the test does what it asks for.
func paste(t *testing.T, line string) pasted {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		return doAsCurl(t, line)
	}
	out, err := exec.CommandContext(within(t, harness.Patience), "sh", "-c", line).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if !strings.HasPrefix(line, "curl -si ") {
		return pasted{body: out}
	}
	r := bufio.NewReader(bytes.NewReader(out))
	first, err1 := r.ReadString('\n')
	header, err2 := textproto.NewReader(r).ReadMIMEHeader()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	var body bytes.Buffer
	_, _ = body.ReadFrom(r) // from memory
	status, _ := strconv.Atoi(strings.Fields(first)[1])
	return pasted{status: status, header: http.Header(header), body: body.Bytes()}
}

// doAsCurl does what a line asks of curl.
func doAsCurl(t *testing.T, line string) pasted {
	t.Helper()
	words, err := exec.CommandContext(t.Context(), "sh", "-c", `curl() { printf '%s\0' "$@"; }; eval "$1"`, "sh", line).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	args := strings.Split(strings.TrimSuffix(string(words), "\x00"), "\x00")
	method, url, header, data := http.MethodGet, "", http.Header{}, ""
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-si" || args[i] == "-s":
		case args[i] == "-H":
			i++
			name, value, _ := strings.Cut(args[i], ": ")
			header.Add(name, value)
		case args[i] == "-d":
			i++
			method, data = http.MethodPost, args[i]
		case strings.HasPrefix(args[i], "http://"):
			url = args[i]
		default:
			t.Fatalf("an argument that this test does not know: %q", args[i])
		}
	}
	req, err := http.NewRequestWithContext(within(t, harness.Patience), method, url, strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	apitest.Check(t, req, []byte(data), res, body.Bytes())
	return pasted{status: res.StatusCode, header: res.Header, body: body.Bytes()}
}

func TestARestartKeepsKeysAndDataAndBothSignalsStopDevCleanly(t *testing.T) {
	t.Parallel()
	dataDir := harness.Folder(t)
	first := harness.StartDev(t, dataDir)
	client := harness.NewClient(first.Info.BaseURL, first.Info.Keys())
	payment := harness.NewPayment("paid before the restart")
	answer := pay(t, client, payment)

	first.Signal(syscall.SIGTERM)
	if code := first.Wait(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	harness.AwaitNobodyIn(t, dataDir)

	second := harness.StartDev(t, dataDir)
	if second.Info.Keys() != first.Info.Keys() || second.Info.AdminToken != first.Info.AdminToken {
		t.Error("the restart changed the keys")
	}
	client.MoveTo(second.Info.BaseURL)
	mustReplay(t, client, payment, answer)
	second.Info.Ledger().MustHave(t, payment, 1)

	// Ctrl-C reaches the whole group. PostgreSQL must be stopped in order all the
	// same, not by the terminal.
	second.SignalGroup(syscall.SIGINT)
	if code := second.Wait(); code != 0 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
	harness.AwaitNobodyIn(t, dataDir)
	log, err := os.ReadFile(filepath.Join(dataDir, "postgres.log"))
	if err != nil {
		t.Fatal(err)
	}
	if clean := strings.Count(string(log), "database system is shut down"); clean != 2 {
		t.Errorf("PostgreSQL's log has %d orderly stops:\n%s", clean, log)
	}
}

func TestAStopLetsThePaymentInFlightFinish(t *testing.T) {
	t.Parallel()
	dev := harness.StartDev(t, harness.Folder(t))
	client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
	payment := harness.NewPayment("sandbox:slow=1s")
	answered := make(chan harness.Answer, 1)
	go func() { answered <- client.Pay(t.Context(), payment) }()
	harness.Eventually(t, harness.Patience, "the payment has begun", func() bool { return len(lives(t, client, payment.Nonce)) > 0 })
	dev.Signal(syscall.SIGTERM)
	mustBe(t, <-answered, http.StatusCreated)
	if code := dev.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestASecondDevOnTheSameFolderSaysSoAndExitsWith4(t *testing.T) {
	t.Parallel()
	dataDir := harness.Folder(t)
	dev := harness.StartDev(t, dataDir)
	harness.Call(t, harness.DevCommand(dataDir)).Must(t, 4, "another `payments dev`", strconv.Itoa(dev.PID()), "--data-dir")
	if info, err := harness.ReadDevInfo(dataDir); err != nil || info != dev.Info {
		t.Errorf("dev.json is not the first one's any more: %+v (%v)", info, err)
	}
	pay(t, harness.NewClient(dev.Info.BaseURL, dev.Info.Keys()), harness.NewPayment("paid beside a second dev"))
}

func TestDevJSONIsRemovedAtStartAndReappearsWhenReady(t *testing.T) {
	t.Parallel()
	dataDir := harness.Folder(t)
	dev := harness.StartDev(t, dataDir)
	dev.Kill() // which leaves its dev.json
	if _, err := harness.ReadDevInfo(dataDir); err != nil {
		t.Fatal(err)
	}
	// A start that fails never becomes ready, so what it removed stays away.
	taken := listen(t)
	harness.Call(t, harness.DevCommand(dataDir, "--listen", taken)).Must(t, 4)
	if _, err := os.Stat(filepath.Join(dataDir, "dev.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dev.json after a start that failed: %v", err)
	}
	harness.StartDev(t, dataDir)
	checkDevFiles(t, dataDir)
}

func TestAKilledDevLeavesNoPostgresAndStartsAgain(t *testing.T) {
	t.Parallel()
	dataDir := harness.Folder(t)
	dev := harness.StartDev(t, dataDir)
	client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
	payment := harness.NewPayment("paid before the kill")
	answer := pay(t, client, payment)
	dev.Kill()
	harness.AwaitNobodyIn(t, dataDir)
	again := harness.StartDev(t, dataDir)
	client.MoveTo(again.Info.BaseURL)
	mustReplay(t, client, payment, answer)
	again.Info.Ledger().MustHave(t, payment, 1)
}

// The first start draws secrets, makes a cluster and migrates it. Killed anywhere
// in that, it leaves a folder on which the next one starts.
func TestADevThatWasKilledDuringItsFirstStartStartsAgain(t *testing.T) {
	t.Parallel()
	const rounds = 6
	dice := newDice(t, "first start")
	dataDir := harness.Folder(t)
	for range rounds {
		p := harness.Start(t, harness.DevCommand(dataDir))
		<-time.After(dice.upTo(1200 * time.Millisecond)) // the moment is the subject
		p.Kill()
		harness.AwaitNobodyIn(t, dataDir)
	}
	dev := harness.StartDev(t, dataDir)
	pay(t, harness.NewClient(dev.Info.BaseURL, dev.Info.Keys()), harness.NewPayment("paid after all"))
	checkDevFiles(t, dataDir)
}

func TestATakenPortIsNamedWithTheFlagThatChoosesAnother(t *testing.T) {
	t.Parallel()
	taken := listen(t)
	for _, flag := range []string{"--listen", "--admin-listen"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			dataDir := harness.Folder(t)
			harness.Call(t, harness.DevCommand(dataDir, flag, taken)).Must(t, 4, taken, "address already in use", flag)
			harness.AwaitNobodyIn(t, dataDir)
		})
	}
	t.Run("sandbox", func(t *testing.T) {
		t.Parallel()
		harness.Call(t, harness.Command{Args: []string{"sandbox", "--listen", taken, "--data-dir", harness.Folder(t)}}).
			Must(t, 4, taken, "address already in use", "--listen")
	})
}

// listen takes a port for as long as the test runs.
func listen(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestDevUsesTheDatabaseThatItIsGiven(t *testing.T) {
	t.Parallel()
	dataDir, url := harness.Folder(t), emptyDatabase(t)
	command := harness.DevCommand(dataDir)
	command.Env = []string{"DATABASE_URL=" + url}
	dev := harness.AwaitDev(t, harness.Start(t, command), dataDir)
	pay(t, harness.NewClient(dev.Info.BaseURL, dev.Info.Keys()), harness.NewPayment("paid in a database of one's own"))
	if n := number(t, connect(t, url), `SELECT count(*) FROM payments`); n != 1 {
		t.Errorf("the database has %d payments", n)
	}
	if _, err := os.Stat(filepath.Join(dataDir, "postgres")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a private cluster as well: %v", err)
	}
}

func TestDevUsesTheSandboxThatItIsGiven(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	dev := harness.StartDev(t, harness.Folder(t), "--provider-url", sandbox.URL)
	if dev.Info.SandboxURL != sandbox.URL {
		t.Errorf("dev.json names the sandbox %s, not %s", dev.Info.SandboxURL, sandbox.URL)
	}
	payment := harness.NewPayment("paid at another process")
	pay(t, harness.NewClient(dev.Info.BaseURL, dev.Info.Keys()), payment)
	sandbox.Ledger().MustHave(t, payment, 1)
}

func TestFlagsCanBeVariables(t *testing.T) {
	t.Parallel()
	dataDir := harness.Folder(t)
	p := harness.Start(t, harness.Command{Args: []string{"dev"}, Env: []string{
		"PAYMENTS_LISTEN=127.0.0.1:0", "PAYMENTS_ADMIN_LISTEN=127.0.0.1:0", "PAYMENTS_DATA_DIR=" + dataDir,
		"PAYMENTS_PROVIDER_TIMEOUT=1s", "PAYMENTS_SETTLE=1s", "PAYMENTS_LEASE=4s", "PAYMENTS_RECOVERY_INTERVAL=1s",
		"PAYMENTS_RETENTION=1h", "PAYMENTS_SHUTDOWN_TIMEOUT=5s",
	}})
	dev := harness.AwaitDev(t, p, dataDir)
	answer := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys()).Pay(within(t, harness.Patience), harness.NewPayment("sandbox:timeout"))
	mustBe(t, answer, http.StatusGatewayTimeout) // by far sooner than after the default, 25 s
}

func TestWrongUsageExitsWith2AndSaysWhatIsRight(t *testing.T) {
	t.Parallel()
	const help = "payments --help"
	for _, c := range []struct {
		args string
		env  string
		says string
	}{
		{args: "dev --listen nowhere", says: "--listen must be an address"},
		{args: "dev", env: "PAYMENTS_ADMIN_LISTEN=", says: "--admin-listen must be an address"}, // not every interface
		{args: "dev --lease 27s", says: "--lease must be at least 28s"},
		{args: "dev --provider-timeout 1s --lease 3999ms", says: "--lease must be at least 4s"},
		{args: "dev --provider-timeout 0s", says: "--provider-timeout must be positive"},
		{args: "dev --provider-timeout=-1s", says: "--provider-timeout must be positive"},
		{args: "dev --settle=-1s", says: "--settle must not be negative"},
		{args: "dev --recovery-interval 0s", says: "--recovery-interval must be positive"},
		{args: "dev --retention 59s", says: "--retention must be at least 1m"},
		{args: "dev --shutdown-timeout 0s", says: "--shutdown-timeout must be positive"},
		{args: "dev --lease soon", says: "--lease"},
		{args: "dev --lease 45", says: "--lease"}, // 45 what?
		{args: "dev --lease 99999999h", says: "--lease"},
		{args: "dev", env: "PAYMENTS_SETTLE=a while", says: "PAYMENTS_SETTLE"},
		{args: "dev --provider-url nowhere", says: "--provider-url"},
		{args: "dev --colour blue", says: "--colour"},
		{args: "dev somewhere", says: help},
		{args: "pay", says: help},
		{args: "migrate", says: help},
		{args: "migrate sideways", says: help},
		{args: "migrate up", says: "DATABASE_URL"},
		{args: "migrate status", says: "DATABASE_URL"},
		{args: "serve", says: "DATABASE_URL"},
		{args: "lookup", says: "<nonce>"},
		{args: "lookup a b", says: help},
		{args: "resolve", says: help},
		{args: "resolve 0199 --outcome succeeded", says: "--reason"},
		{args: "resolve 0199 --reason because", says: "--outcome"},
		{args: "resolve 0199 --outcome perhaps --reason because", says: "--outcome"},
		{args: "lookup a --admin-url http://127.0.0.1:9", says: "PAYMENTS_ADMIN_TOKEN"},
	} {
		t.Run(strings.TrimSpace(c.env+" "+c.args), func(t *testing.T) {
			t.Parallel()
			command := harness.Command{Args: strings.Fields(c.args)}
			if c.env != "" {
				command.Env = []string{c.env}
			}
			harness.Call(t, command).Must(t, 2, "payments: ", c.says)
		})
	}
}

func TestHelpIsNoMistake(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"--help"}, {"dev", "--help"}, {"serve", "--help"}, {"lookup", "--help"}} {
		harness.Call(t, harness.Command{Args: args}).Must(t, 0, "Usage: payments")
	}
}

func TestTheVersionIsTold(t *testing.T) {
	t.Parallel()
	harness.Call(t, harness.Command{Args: []string{"version"}}).Must(t, 0, "payments "+harness.Version+" (go")
	r := harness.Call(t, harness.Command{Args: []string{"version", "--json"}})
	r.Must(t, 0)
	var told map[string]string
	if err := json.Unmarshal([]byte(r.Stdout), &told); err != nil || told["version"] != harness.Version || !strings.HasPrefix(told["go"], "go1.") {
		t.Errorf("%s (%v)", r.Stdout, err)
	}
}
