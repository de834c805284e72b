// Package tied starts processes that do not outlive this one.
//
// A defer, a test's cleanup or a handler of signals needs a process that still runs:
// after kill -9, after a panic, or when `go test` gives up, only the kernel is left to
// end what was started. Linux's can be asked to.
package tied

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// forks leads to the one thread that forks.
var forks = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go forkForEver(work)
	return work
})

// forkForEver does the work on a thread that lives as long as the process. The
// kernel sends a child its death signal when the thread that forked it ends,
// although the process may live on; and Go ends threads as it likes, except one
// that is locked by a goroutine that never returns.
func forkForEver(work <-chan func()) {
	runtime.LockOSThread()
	for f := range work {
		f()
	}
}

// Start starts the command such that the kernel sends it the signal when this process
// ends, in whatever way. What else its SysProcAttr asks for stays as it is.
func Start(cmd *exec.Cmd, sig syscall.Signal) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = sig
	started := make(chan error)
	forks() <- func() { started <- cmd.Start() }
	return <-started
}
