package tied

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// patience bounds each wait. What is waited for takes milliseconds.
const patience = 30 * time.Second

// asParent makes of this test binary a process that starts another one.
const asParent = "TIED_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(asParent) != "" {
		beParent()
		return
	}
	m.Run()
}

// beParent starts a tied process that writes where this one does, and waits for it.
func beParent() {
	cmd := exec.Command("sh", "-c", "echo begun; exec sleep 60")
	cmd.Stdout = os.Stdout
	if err := Start(cmd, syscall.SIGKILL); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("the child ended by itself:", cmd.Wait())
}

func TestAProcessEndsWhenItsParentIsKilled(t *testing.T) {
	t.Parallel()
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	parent := exec.Command(os.Args[0])
	parent.Env, parent.Stdout = append(os.Environ(), asParent+"=1"), theirs
	err = parent.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = parent.Wait() }() // "signal: killed"
	defer func() { _ = parent.Process.Kill() }()
	if err := ours.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(ours)
	if line, err := out.ReadString('\n'); line != "begun\n" {
		t.Fatalf("the parent says %q (%v)", line, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 { // which ends when nobody can write any more
		t.Errorf("the process lives on: %q (%v)", rest, err)
	}
}

// The death signal follows the thread that forked. A process that was started from a
// thread which Go ends must live on.
func TestAProcessOutlivesTheThreadThatStartedIt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "cat")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	threads := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlock it: the thread ends with the goroutine
		tid := syscall.Gettid()
		defer func() { threads <- tid }()
		if err := Start(cmd, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}()
	awaitEnd(ctx, t, <-threads)
	if t.Failed() {
		return
	}
	if _, err := io.WriteString(in, "still here\n"); err != nil {
		t.Error(err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if said, err := io.ReadAll(out); err != nil || string(said) != "still here\n" {
		t.Errorf("it says %q (%v)", said, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// awaitEnd waits for the end of a thread. Go keeps the main one, whatever ran on it.
func awaitEnd(ctx context.Context, t *testing.T, tid int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for tid != os.Getpid() {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); os.IsNotExist(err) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the thread does not end")
		case <-tick.C:
		}
	}
}
