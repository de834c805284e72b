package pgbouncer

import (
	"os"
	"os/exec"
	"syscall"

	"github.com/oncepay/oncepay/internal/tied"
)

// nobody is what Linux calls a user that a namespace does not know.
const nobody = 65534

// startTied starts a process that is killed when this one ends, in whatever way.
// PgBouncer refuses to be root: where we are, it is nobody in a user namespace, to
// which root's folders are its own, as to the PostgreSQL that localpg starts.
func startTied(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}
	}
	return tied.Start(cmd, syscall.SIGKILL)
}
