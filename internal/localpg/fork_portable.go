//go:build !linux || localpg_portable

// What Linux can do better is in the files named _linux.go. The tag
// localpg_portable builds these instead, so that they can be tested there.

package localpg

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// watchdog waits for a line on its standard input. The end of the input without
// one means that the process at the other end of the pipe is dead.
const watchdog = `read -r line || kill -"$1" "$0"`

// fork starts the command and a shell beside it that sends it the signal when
// this process ends, even by kill -9. Release is called after the command was
// waited for.
func fork(cmd *exec.Cmd, sig syscall.Signal) (release func(), err error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, ours.Close(), theirs.Close())
	}
	dog := &exec.Cmd{
		Path:        "/bin/sh",
		Args:        []string{"sh", "-c", watchdog, strconv.Itoa(cmd.Process.Pid), strconv.Itoa(int(sig))},
		Env:         []string{}, // not ours, with its secrets
		Stdin:       theirs,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, // a Ctrl-C at the terminal must not end it
	}
	err = errors.Join(dog.Start(), theirs.Close())
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, errors.Join(err, ours.Close())
	}
	return func() {
		_, _ = ours.WriteString("ended\n") // at once: the number may be a stranger's soon
		_ = ours.Close()
		_ = dog.Wait()
	}, nil
}

// inspect looks at a process that is alive. A server of ours shows its data
// directory as its first arguments.
func inspect(ctx context.Context, pid int, dir string) verdict {
	text, err := exec.CommandContext(ctx, "ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return gone // nobody has the number, says ps
	}
	if err != nil {
		return unknown
	}
	program, arguments, _ := strings.Cut(strings.TrimSpace(string(text)), " -D ")
	if !strings.HasSuffix(program, "/postgres") {
		return gone
	}
	if arguments == dir || strings.HasPrefix(arguments, dir+" ") {
		return running
	}
	return gone
}

// namespaced has no equal outside Linux.
func namespaced() []identity { return nil }
