package harness

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// forks leads to the one thread that starts processes. The kernel ends a child
// when the thread that forked it ends, and Go ends threads as it likes, except one
// that is locked by a goroutine that never returns.
var forks = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// StartTied starts a process that is killed when this one ends, in whatever way:
// after a panic, or when `go test` gives up, no cleanup of a test runs. It may run as
// another user, if the command says so.
func StartTied(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	started := make(chan error)
	forks() <- func() { started <- cmd.Start() }
	return <-started
}

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
