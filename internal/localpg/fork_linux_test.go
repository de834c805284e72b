//go:build linux && !localpg_portable

package localpg

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
)

// The death signal follows the thread that forked. A server that was started from
// a thread which Go ends must live on.
func TestTheServerOutlivesTheThreadThatStartedIt(t *testing.T) {
	t.Parallel()
	dir := existing(t)
	threads := make(chan int)
	var s *Server
	go func() {
		runtime.LockOSThread() // and never unlock it: the thread ends with the goroutine
		tid := syscall.Gettid()
		defer func() { threads <- tid }()
		var err error
		if s, err = Start(within(t), Options{Dir: dir}); err != nil {
			t.Errorf("start: %v", err)
		}
	}()
	tid := <-threads
	if s == nil {
		return
	}
	defer stop(t, s)
	if tid != os.Getpid() { // Go keeps the main thread, whatever ran on it
		eventually(t, "the thread is gone", func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
			return os.IsNotExist(err)
		})
	}
	query(t, s.URL(), `SELECT 1`)
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}
