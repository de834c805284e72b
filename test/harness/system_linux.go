package harness

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// processesIn are the processes that stand in a folder or below it, or whose
// command line names it. Those of a zombie are empty.
func processesIn(dir string) []found {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []found{{command: "/proc cannot be read: " + err.Error()}}
	}
	var list []found
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		stands, _ := os.Readlink(filepath.Join(proc, "cwd")) // somebody else's is none of ours
		line, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		if within(stands, dir) || bytes.Contains(line, []byte(dir)) {
			list = append(list, found{pid, strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))})
		}
	}
	return list
}

// stopped says whether every thread of a process has stopped.
func stopped(pid int) bool {
	tasks, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "stat"))
	for _, task := range tasks {
		if state, _ := stateOf(task); state != "" && state != "T" {
			return false
		}
	}
	return len(tasks) > 0
}

// groupLives says whether a process group has a member that is no zombie: those
// wait for somebody to count them, which in a container may be nobody.
func groupLives(group int) bool {
	if syscall.Kill(-group, 0) != nil {
		return false
	}
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		if state, g := stateOf(path); g == group && state != "Z" && state != "X" {
			return true
		}
	}
	return false
}

// stateOf reads the state and the group of a process or thread, from its file in
// /proc. They are empty if it has ended.
func stateOf(path string) (state string, group int) {
	stat, err := os.ReadFile(path)
	if err != nil {
		return "", 0
	}
	// After the name, which is in brackets and may hold brackets: state, parent,
	// group, and more.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 3 {
		return "", 0
	}
	group, _ = strconv.Atoi(string(fields[2]))
	return string(fields[0]), group
}
