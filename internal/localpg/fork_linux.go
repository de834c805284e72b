//go:build linux && !localpg_portable

package localpg

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/oncepay/oncepay/internal/tied"
)

// fork starts the command such that the kernel sends it the signal when this
// process ends, even by kill -9. There is nothing to release.
func fork(cmd *exec.Cmd, sig syscall.Signal) (release func(), err error) {
	return func() {}, tied.Start(cmd, sig)
}

// inspect looks at a process that is alive. Every process of a PostgreSQL server
// runs the file named postgres and stands in its data directory.
func inspect(_ context.Context, pid int, dir string) verdict {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	if os.IsNotExist(err) {
		return gone // it ended meanwhile, is a zombie, or a thread of the kernel
	}
	if err != nil {
		return unknown
	}
	// An upgrade of the package replaces the file under a running server.
	if filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != "postgres" {
		return gone
	}
	stands, err1 := os.Stat(filepath.Join(proc, "cwd"))
	data, err2 := os.Stat(dir)
	switch {
	case os.IsNotExist(err1):
		return gone
	case err1 != nil || err2 != nil:
		return unknown
	case os.SameFile(stands, data):
		return running
	}
	return gone
}
