package localpg

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

const (
	// fastLimit bounds a fast shutdown, which is a checkpoint: seconds, even if all
	// of shared_buffers goes to a slow disk. Versions up to 15 at least hang for ever
	// when it is asked for while the server recovers from the crash of a child.
	fastLimit = 30 * time.Second

	// immediateLimit is twice what a postmaster gives its children on SIGQUIT
	// before it kills them. A postmaster that is still there is stuck.
	immediateLimit = 10 * time.Second

	// drainLimit bounds the wait for the children of a postmaster that was killed.
	// They notice within milliseconds; a frozen one must not hold up Done for ever.
	drainLimit = 5 * time.Second
)

// process is a postmaster of ours.
type process struct {
	cmd  *exec.Cmd
	out  *output
	err  error // how it ended; written before done is closed
	done chan struct{}
}

// startProcess runs the command. Its output goes through a pipe that its children
// share, so done means that they have gone too.
func startProcess(cmd *exec.Cmd, out *output) (*process, error) {
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = drainLimit
	release, err := fork(cmd, syscall.SIGQUIT)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, out: out, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		release()
		close(p.done)
	}()
	return p, nil
}

// stop returns when the process is gone. It asks for a fast shutdown, for an
// immediate one when the context or its time has ended, and kills what does not
// obey.
func (p *process) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fastLimit)
	defer cancel()
	p.signal(syscall.SIGINT)
	select {
	case <-p.done:
		return
	case <-ctx.Done():
	}
	p.signal(syscall.SIGQUIT)
	limit := time.NewTimer(immediateLimit)
	defer limit.Stop()
	select {
	case <-p.done:
		return
	case <-limit.C:
	}
	p.signal(syscall.SIGKILL)
	<-p.done
}

// abandon stops a server whose start failed, perhaps because the caller's context
// has ended.
func (p *process) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonLimit)
	defer cancel()
	p.stop(ctx)
}

// signal cannot hit a stranger: os.Process knows when it was waited for.
func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// failure tells how the process ended, with its last words. It may be called once
// done is closed.
func (p *process) failure(what string) error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	if words := p.out.lastWords(); words != "" {
		return fmt.Errorf("%s (%s); the end of its log:\n%s", what, how, words)
	}
	return errors.New(what + " (" + how + ")")
}
