//go:build !linux

package pgbouncer

import (
	"os/exec"
	"syscall"
)

// startTied starts a process that ends with Close. It outlives a test that is killed,
// idle and in front of a server that is gone.
func startTied(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}
