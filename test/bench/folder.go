package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	folderPrefix = "payments-bench-"
	// lockName is a file that its run has locked and then written into. The kernel
	// drops the lock when the run ends, however it ends.
	lockName = "lock"
)

// bytesStored is what one stored payment takes in both databases, with what is in use
// beside it while they are made.
const bytesStored = 12_000

// bytesWritten is room for what a series itself writes: payments, and the log.
const bytesWritten = 4_000_000_000

// folder is what a run has on the disk: cluster, scripts and pgbench's logs.
type folder struct {
	path string
	lock *os.File
}

// newFolder makes one, and removes those of runs that were killed: each may have
// gigabytes.
func newFolder(parent string) (_ *folder, err error) {
	sweep(parent)
	path, err := os.MkdirTemp(parent, folderPrefix)
	if err != nil {
		return nil, err
	}
	f := &folder{path: path}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.remove())
		}
	}()
	if os.Geteuid() == 0 { // PostgreSQL may have to run as somebody else, who passes through
		if err := os.Chmod(path, 0o711); err != nil {
			return nil, err
		}
	}
	if f.lock, err = os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("lock the run's folder: %w", err)
	}
	_, err = f.lock.WriteString("Made by payments-bench for one run. Once no process holds a lock on this file, the next run removes the folder.\n")
	return f, err
}

// cluster is where PostgreSQL's data goes.
func (f *folder) cluster() string { return filepath.Join(f.path, "cluster") }

func (f *folder) remove() error {
	err := os.RemoveAll(f.path)
	if f.lock != nil {
		f.lock.Close()
	}
	return err
}

// sweep removes what runs left that were killed. What is not surely one of them stays.
func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), folderPrefix) && abandoned(filepath.Join(parent, e.Name())) {
			_ = os.RemoveAll(filepath.Join(parent, e.Name())) // what cannot be removed is in nobody's way
		}
	}
}

func abandoned(path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
		return false
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer lock.Close()
	written, err := lock.Stat()
	return err == nil && written.Size() > 0 && syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// hasRoom refuses what the disk cannot hold, rather than to find out half way.
func (f *folder) hasRoom(stored int) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.path, &st); err != nil {
		return fmt.Errorf("look at the disk: %w", err)
	}
	const gigabyte = 1_000_000_000
	need, have := uint64(stored)*bytesStored+bytesWritten, st.Bavail*uint64(st.Bsize)
	if have < need {
		return fmt.Errorf("%d stored payments need %d GB in the folder for temporary files, which has %d: set TMPDIR to another", stored, need/gigabyte, have/gigabyte)
	}
	return nil
}

// flushTime is how long the disk takes to have a page that was written: the median of
// many. It is what a commit waits for.
func (f *folder) flushTime() (time.Duration, error) {
	const (
		most  = 500
		limit = 2 * time.Second
	)
	file, err := os.Create(filepath.Join(f.path, "flush"))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var all []time.Duration
	page := make([]byte, 8192)
	for began := time.Now(); len(all) < most && time.Since(began) < limit; {
		if _, err := file.WriteAt(page, 0); err != nil {
			return 0, err
		}
		sent := time.Now()
		if err := file.Sync(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(sent))
	}
	slices.Sort(all)
	return percentile(all, 50), nil
}
