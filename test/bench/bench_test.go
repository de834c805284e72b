package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asBench makes the test's binary the program itself, which starts itself once more.
const asBench = "BENCH_TEST_RUNS_IT"

func TestMain(m *testing.M) {
	if os.Getenv(asBench) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// What is tested here is that the figures are read and put together rightly. What they
// are is nobody's test.

func TestScriptHasTheStatementsWithFreshIDs(t *testing.T) {
	t.Parallel()
	recorded := map[string]statement{
		hot[0]: {hot[0] + ` INSERT INTO a SELECT $1::uuid, $2::text, $3::text, $4::text, $1`, []any{"tx", "the nonce", "", nil}},
		hot[1]: {hot[1] + ` UPDATE a SET x = $2::numeric, y = $3::bytea WHERE id = $1::uuid AND $2 > 0`, []any{"tx", "45.67", []byte{1, 255}}},
	}
	s, err := newScript(recorded, map[string]string{"tx": ":id", "the nonce": ":nonce"})
	if err != nil {
		t.Fatal(err)
	}
	want := scriptHead + hot[0] + ` INSERT INTO a SELECT :id::uuid, :nonce::text, ''::text, NULL::text, :id::uuid;` + "\n" +
		hot[1] + ` UPDATE a SET x = :p1_2::numeric, y = :p1_3::bytea WHERE id = :id::uuid AND :p1_2::numeric > 0;` + "\n"
	if s.text != want {
		t.Errorf("the script is\n%s\nwant\n%s", s.text, want)
	}
	if got, want := strings.Join(s.arguments(), " "), `-D p1_2=45.67 -D p1_3=\x01ff`; got != want {
		t.Errorf("the variables are %s, want %s", got, want)
	}
}

func TestScriptNeedsBothStatementsAndEveryFreshValue(t *testing.T) {
	t.Parallel()
	begin := statement{hot[0] + ` SELECT $1::uuid`, []any{"tx"}}
	both := map[string]statement{hot[0]: begin, hot[1]: begin}
	for name, c := range map[string]struct {
		recorded map[string]statement
		fresh    map[string]string
	}{
		"no finish":                   {map[string]statement{hot[0]: begin}, map[string]string{"tx": ":id"}},
		"a value that is not met":     {both, map[string]string{"tx": ":id", "another": ":id"}},
		"a parameter without a type":  {map[string]statement{hot[0]: {hot[0] + ` SELECT $1`, []any{"tx"}}, hot[1]: begin}, map[string]string{"tx": ":id"}},
		"a parameter without a value": {map[string]statement{hot[0]: {hot[0] + ` SELECT $2::text`, []any{"tx"}}, hot[1]: begin}, map[string]string{"tx": ":id"}},
	} {
		if _, err := newScript(c.recorded, c.fresh); err == nil {
			t.Errorf("%s: there is a script", name)
		}
	}
}

func TestFloorReadsWhatPgbenchSays(t *testing.T) {
	t.Parallel()
	const good = "number of transactions actually processed: 1000\nnumber of failed transactions: 0 (0.000%)\n" +
		"tps = 500.000000 (without initial connection time)\n"
	f, err := parseFloor(good)
	if err != nil || f.created != 1000 || f.took != 2*time.Second {
		t.Errorf("%+v, %v", f, err)
	}
	for name, out := range map[string]string{
		"failed transactions": strings.Replace(good, "transactions: 0", "transactions: 3", 1),
		"none at all":         strings.Replace(good, "processed: 1000", "processed: 0", 1),
		"nothing":             "",
	} {
		if _, err := parseFloor(out); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFloorReadsLatenciesOfEveryThread(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, lines := range map[string]string{"pgbench.1": "0 1 3000 0 1 1\n0 2 1000 0 1 1\n", "pgbench.1.1": "1 1 2000 0 1 1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := latenciesIn(dir)
	if err != nil || len(all) != 3 || percentile(all, 50) != 2*time.Millisecond || percentile(all, 99) != 3*time.Millisecond {
		t.Errorf("%v, %v", all, err)
	}
}

func TestMedianIsTheMiddleOne(t *testing.T) {
	t.Parallel()
	took := func(seconds ...int) []round {
		rounds := make([]round, len(seconds))
		for i, s := range seconds {
			rounds[i].create.done = s
		}
		return rounds
	}
	done := func(r round) float64 { return float64(r.create.done) }
	if got := median(took(9, 1, 2), done); got != 2 {
		t.Errorf("of 9, 1 and 2 it is %g", got)
	}
	if got := median(took(4, 1, 2, 9), done); got != 3 {
		t.Errorf("of 4, 1, 2 and 9 it is %g", got)
	}
}

// With many sessions on few processors the floor may be slower than with the API's few:
// the ratio is to the better one.
func TestRatioIsToTheBetterFloor(t *testing.T) {
	t.Parallel()
	figure := func(sessions, done int) figures {
		return figures{done: done, created: done, sessions: sessions, took: time.Second, p99: time.Duration(done) * time.Millisecond}
	}
	rounds := []round{
		{create: figure(0, 500), floor: figure(64, 400), pooled: figure(20, 1000)},
		{create: figure(0, 600), floor: figure(64, 2000), pooled: figure(20, 1000)},
		{create: figure(0, 700), floor: figure(64, 300), pooled: figure(20, 1000)},
	}
	r := summary(0, 64, rounds)
	if r.CreateRatio != 0.6 || r.FloorPerSecond != 1000 || r.FloorSessions != 20 || r.FloorP99 != 1000 || r.OtherFloorPerSecond != 400 || r.OtherFloorSessions != 64 {
		t.Errorf("the pool is better: %+v", r)
	}
	for i := range rounds {
		rounds[i].floor = figure(64, 1400)
	}
	if r := summary(0, 64, rounds); r.FloorPerSecond != 1400 || r.FloorSessions != 64 || r.OtherFloorSessions != 20 {
		t.Errorf("a session for each connection is better: %+v", r)
	}
	if r := summary(0, 1, []round{{create: figure(0, 500), floor: figure(1, 1000)}}); r.CreateRatio != 0.5 || r.OtherFloorPerSecond != 0 || r.OtherFloorSessions != 0 {
		t.Errorf("there is only one floor: %+v", r)
	}
}

// program puts an executable file into a folder.
func program(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMissingPgbenchIsNamedWithItsPackage(t *testing.T) {
	t.Parallel()
	server, empty, other := t.TempDir(), t.TempDir(), t.TempDir()
	program(t, server, "postgres")
	program(t, server, "initdb")
	env := map[string]string{"PG_BIN_DIR": server, "PATH": empty}
	get := func(name string) string { return env[name] }
	_, err := findPgbench(get)
	if err == nil || !strings.Contains(err.Error(), "no pgbench in "+server) || !strings.Contains(err.Error(), "postgresql-contrib") {
		t.Errorf("there is none: %v", err)
	}
	env["PATH"] = empty + string(os.PathListSeparator) + other
	inPath := program(t, other, "pgbench")
	if got, err := findPgbench(get); err != nil || got != inPath {
		t.Errorf("in PATH: %q, %v", got, err)
	}
	beside := program(t, server, "pgbench")
	if got, err := findPgbench(get); err != nil || got != beside {
		t.Errorf("beside the server: %q, %v", got, err)
	}
	env["PG_BIN_DIR"] = empty
	if _, err := findPgbench(get); err == nil || !strings.Contains(err.Error(), "PG_BIN_DIR") {
		t.Errorf("without a server: %v", err)
	}
}

func TestFlagsOutOfBoundsAreRefusedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	for flag, values := range map[string][]string{
		"--connections": {"0", "8,513"}, "--stored": {"-1", "10000001"}, "--duration": {"0s", "1500ms", "21s"}, "--rounds": {"0", "101"},
	} {
		for _, v := range values {
			err := run(t.Context(), []string{flag + "=" + v}, strings.NewReader(""), io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), flag) {
				t.Errorf("%s=%s: %v", flag, v, err)
			}
		}
	}
}
