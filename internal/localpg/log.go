package localpg

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

const (
	// logLimit is the size at which a start sets the log aside. What remains of
	// PostgreSQL's chatter is a few lines a start, so this is years of restarts,
	// or the evidence of whatever went wrong.
	logLimit = 1 << 20

	// tailLimit holds the dozen lines in which a server says why it cannot start.
	tailLimit = 4 << 10
)

// output receives what PostgreSQL writes, and remembers the end of it for error
// messages.
type output struct {
	to io.Writer // may be nil

	mu   sync.Mutex
	tail []byte
}

// Write never fails: a full disk under the log must not break the pipe that
// PostgreSQL writes to.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	o.tail = append(o.tail, p...)
	if over := len(o.tail) - tailLimit; over > 0 {
		o.tail = append(o.tail[:0], o.tail[over:]...)
	}
	o.mu.Unlock()
	if o.to != nil {
		_, _ = o.to.Write(p)
	}
	return len(p), nil
}

// begin forgets what an earlier command wrote.
func (o *output) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = o.tail[:0]
}

func (o *output) lastWords() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(string(o.tail))
}

// saysClusterIsHeld reports whether postgres refused to start because processes
// of an earlier run are still attached to the cluster's shared memory. There is no
// other sign of it than the message, which LC_ALL=C keeps in English.
func (o *output) saysClusterIsHeld() bool {
	words := o.lastWords()
	return strings.Contains(words, "pre-existing shared memory block") && strings.Contains(words, "is still in use")
}

// openLog opens the log to append to. An overgrown one becomes path.1.
func openLog(path string) (*os.File, error) {
	if info, err := os.Lstat(path); err == nil && info.Size() > logLimit {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("set PostgreSQL's old log aside: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	return f, nil
}
