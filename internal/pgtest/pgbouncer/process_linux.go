package pgbouncer

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// nobody is what Linux calls a user that a namespace does not know.
const nobody = 65534

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

// startTied starts a process that is killed when this one ends, in whatever way.
// PgBouncer refuses to be root: where we are, it is nobody in a user namespace, to
// which root's folders are its own, as to the PostgreSQL that localpg starts.
func startTied(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}
	}
	started := make(chan error)
	forks() <- func() { started <- cmd.Start() }
	return <-started
}
