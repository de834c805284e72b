package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/oncepay/oncepay/internal/localpg"
)

// floor runs pgbench on a database that has the product's schema and as many rows.
type floor struct {
	program string
	url     string
	dir     string // for the script and the logs
	script  script
	base    int64 // of the ids of the next run
}

// findPgbench says where pgbench is, or how to get it: beside the server that is
// measured, else in PATH.
func findPgbench(env func(string) string) (string, error) {
	dir, err := localpg.FindBinaries(env)
	if err != nil {
		return "", err
	}
	for _, dir := range append([]string{dir}, filepath.SplitList(env("PATH"))...) {
		path := filepath.Join(dir, "pgbench")
		if info, err := os.Stat(path); err == nil && filepath.IsAbs(path) && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no pgbench in %s, where this machine's PostgreSQL is, nor in PATH. Most systems have it in the server's package; "+
		"Fedora, Red Hat and openSUSE in another, postgresql-contrib", dir)
}

var (
	processed = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	failures  = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
	rate      = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)
)

// run is one round of the floor.
func (f *floor) run(ctx context.Context, sessions int, duration time.Duration) (figures, error) {
	file := filepath.Join(f.dir, "payment.pgbench")
	if err := os.WriteFile(file, []byte(f.script.text), 0o600); err != nil {
		return figures{}, err
	}
	logs, err := os.MkdirTemp(f.dir, "log-")
	if err != nil {
		return figures{}, err
	}
	defer func() { _ = os.RemoveAll(logs) }() // the folder above goes as well
	f.base += idsPerRun
	args := []string{"-n", "-M", "prepared", "-c", strconv.Itoa(sessions), "-j", strconv.Itoa(min(sessions, runtime.NumCPU())),
		"-T", strconv.Itoa(int(duration.Seconds())), "-f", file, "-l", "--log-prefix", filepath.Join(logs, "pgbench"),
		"-D", "seq=0", "-D", fmt.Sprintf("base=%d", f.base)}
	args = append(append(args, f.script.arguments()...), f.url)
	ctx, cancel := context.WithTimeout(ctx, duration+stepLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.program, args...)
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C reaches us alone, so that we know why it ended
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return figures{}, fmt.Errorf("pgbench: %w: %s", err, lastLine(complaints.String()))
	}
	g, err := parseFloor(string(out))
	if err != nil {
		return g, err
	}
	g.sessions = sessions
	state := cmd.ProcessState
	g.cpu.generator = state.UserTime() + state.SystemTime()
	all, err := latenciesIn(logs)
	g.p50, g.p99 = percentile(all, 50), percentile(all, 99)
	return g, err
}

// idsPerRun is more than one client makes payments in a run.
const idsPerRun = 10_000_000

// parseFloor reads pgbench's summary.
func parseFloor(out string) (figures, error) {
	n, tps, failed := processed.FindStringSubmatch(out), rate.FindStringSubmatch(out), failures.FindStringSubmatch(out)
	if n == nil || tps == nil || failed != nil && failed[1] != "0" {
		return figures{}, errors.New("pgbench: transactions failed, or its summary cannot be read")
	}
	count, err1 := strconv.Atoi(n[1])
	perSecond, err2 := strconv.ParseFloat(tps[1], 64)
	if err := errors.Join(err1, err2); err != nil || perSecond <= 0 || count <= 0 {
		return figures{}, errors.Join(err, errors.New("pgbench: no transactions"))
	}
	return figures{done: count, created: count, took: time.Duration(float64(count) / perSecond * float64(time.Second))}, nil
}

// latenciesIn reads pgbench's log: the third field of a line is microseconds.
func latenciesIn(dir string) ([]time.Duration, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []time.Duration
	for _, entry := range files {
		file, err := os.Open(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 3 {
				continue
			}
			us, err := strconv.ParseInt(fields[2], 10, 64)
			if err != nil {
				file.Close()
				return nil, fmt.Errorf("pgbench's log: %w", err)
			}
			all = append(all, time.Duration(us)*time.Microsecond)
		}
		file.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("pgbench's log: %w", err)
		}
	}
	slices.Sort(all)
	return all, nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
