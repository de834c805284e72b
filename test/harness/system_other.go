//go:build !linux

package harness

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// processesIn are the processes whose command line names a folder.
func processesIn(dir string) []found {
	out, err := ps("-axo", "pid=,command=")
	if err != nil {
		return []found{{command: "ps: " + err.Error()}}
	}
	var list []found
	for line := range strings.Lines(out) {
		number, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		pid, err := strconv.Atoi(number)
		if err == nil && pid != os.Getpid() && strings.Contains(command, dir) {
			list = append(list, found{pid, command})
		}
	}
	return list
}

// stopped says whether a process has stopped.
func stopped(pid int) bool {
	out, err := ps("-o", "state=", "-p", strconv.Itoa(pid))
	return err == nil && strings.HasPrefix(strings.TrimSpace(out), "T")
}

// groupLives says whether a process group has members.
func groupLives(group int) bool { return syscall.Kill(-group, 0) == nil }

func ps(args ...string) (string, error) {
	out, err := exec.Command("ps", args...).Output() //nolint:noctx // prints and ends
	return string(out), err
}
