package localpg

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// markName is the file that makes a folder ours, and whose lock says that it is
	// in use. The kernel drops the lock when the last process that holds it ends,
	// however it ends.
	markName = "ONCEPAY-SCRATCH"

	markText = "Made by Oncepay for one run of PostgreSQL.\n" +
		"Once no process holds a lock on this file, the folder is removed by the next run.\n"
)

// scratch is a folder for one run. If the run is killed, the next one removes it.
type scratch struct {
	dir  string
	lock *os.File // given to the processes that work in the folder
}

// newScratch makes a folder in parent whose name begins with prefix, and removes
// those that dead runs left there.
func newScratch(parent, prefix string) (_ *scratch, err error) {
	sweep(parent, prefix)
	dir, err := os.MkdirTemp(parent, prefix+"*")
	if err != nil {
		return nil, err
	}
	s := &scratch{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove())
		}
	}()
	if err := os.Chmod(dir, folderMode()); err != nil {
		return nil, err
	}
	if s.lock, err = openMark(dir, os.O_CREATE|os.O_EXCL); err != nil {
		return nil, err
	}
	if err := flock(s.lock); err != nil {
		return nil, err
	}
	// The text comes last: a mark that can be read was locked by its maker.
	if _, err := s.lock.WriteString(markText); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *scratch) remove() error {
	err := os.RemoveAll(s.dir)
	if s.lock != nil {
		err = errors.Join(err, unflock(s.lock))
	}
	return err
}

// sweep removes the folders that dead runs left. What cannot be proven to be one
// of them stays, and so does what cannot be removed: clutter is no reason not to
// start.
func sweep(parent, prefix string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		if lock, ok := takeDead(dir); ok {
			_ = os.RemoveAll(dir)
			_ = unflock(lock)
		}
	}
}

// takeDead locks a folder that is ours by owner and mark, and that nobody uses.
func takeDead(dir string) (*os.File, bool) {
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() || int(ownerOf(info).uid) != os.Geteuid() {
		return nil, false
	}
	f, err := openMark(dir, syscall.O_NOFOLLOW|syscall.O_NONBLOCK) // neither elsewhere nor for ever, whatever lies there
	if err != nil {
		return nil, false
	}
	text := make([]byte, len(markText)+1)
	n, _ := f.Read(text)
	if string(text[:n]) != markText || flock(f) != nil {
		_ = f.Close()
		return nil, false
	}
	return f, true
}

func openMark(dir string, flags int) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // the file stays open
	return root.OpenFile(markName, os.O_RDWR|flags, 0o600)
}

// folderMode lets other users pass through, but not look into, the folders that
// root makes: PostgreSQL may have to run as one of them.
func folderMode() os.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// errLocked says that somebody else holds the lock.
var errLocked = errors.New("locked by another process")

// flock takes the exclusive lock of an open file, or fails at once with errLocked.
func flock(f *os.File) error {
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errLocked
		default:
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// unflock gives the lock up even if a process that is just being forked has a
// copy of the file.
func unflock(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// owner is whom a file belongs to.
type owner struct{ uid, gid uint32 }

func ownerOf(info os.FileInfo) owner {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return owner{uid: st.Uid, gid: st.Gid}
	}
	return owner{uid: math.MaxUint32, gid: math.MaxUint32} // nobody's, and so never ours
}
