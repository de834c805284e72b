package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cpu is how much processor time each part took. The generator's is pgbench's where
// the floor is measured, and then the API's is none.
type cpu struct{ generator, api, database time.Duration }

func (c cpu) minus(d cpu) cpu {
	return cpu{c.generator - d.generator, c.api - d.api, c.database - d.database}
}

// tick is the unit of /proc: USER_HZ, 100 on every architecture that Go runs Linux on.
const tick = 10 * time.Millisecond

// process is what /proc/PID/stat has of one.
type process struct {
	parent int
	own    time.Duration // of the process
	reaped time.Duration // of its children that have ended
}

func readProcess(pid int) (process, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, err
	}
	// The second field, the name in brackets, may hold anything.
	_, rest, ok := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return process{}, errors.New("/proc: a process whose stat cannot be read")
	}
	number := func(i int) int64 { // the i-th field of proc(5)
		n, parseErr := strconv.ParseInt(fields[i-3], 10, 64)
		err = errors.Join(err, parseErr)
		return n
	}
	p := process{
		parent: int(number(4)),
		own:    time.Duration(number(14)+number(15)) * tick,
		reaped: time.Duration(number(16)+number(17)) * tick,
	}
	return p, err
}

// family is the time of a process and its children, living and ended.
func family(pid int) (time.Duration, error) {
	for range familyReads - 1 {
		total, whole, err := readFamily(pid)
		if err != nil || whole {
			return total, err
		}
	}
	total, _, err := readFamily(pid)
	return total, err
}

// familyReads is how often a family is read in which somebody ends: pgbench's sessions
// do, just then, and one that is gone is either still among the children or already
// among the reaped.
const familyReads = 20

func readFamily(pid int) (total time.Duration, whole bool, err error) {
	before, err := readProcess(pid)
	if err != nil {
		return 0, false, fmt.Errorf("read PostgreSQL's processor time: %w", err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, false, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if c, err := readProcess(child); err == nil && c.parent == pid {
			total += c.own
		}
	}
	after, err := readProcess(pid)
	return total + after.own + after.reaped, err == nil && before.reaped == after.reaped, err
}
