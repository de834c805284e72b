package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// cluster is a data directory that this process has locked.
type cluster struct {
	dir     string // absolute, without symbolic links
	version int    // the major version that made it; 0 while there is nothing
	owner   owner  // of an existing cluster
	lock    *os.File
}

// openCluster locks the folder's name and looks at what is there. Nothing in the
// folder is touched.
func openCluster(dir string) (_ *cluster, err error) {
	if dir, err = settle(dir); err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	if c.lock, err = lockName(dir + ".lock"); err != nil {
		return nil, err
	}
	if err := c.look(); err != nil {
		return nil, errors.Join(err, c.unlock())
	}
	return c, nil
}

// settle makes the folder's parent and follows symbolic links, so that one
// cluster has one name and one lock.
func settle(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the PostgreSQL folder: %w", err)
	}
	if _, err := os.Lstat(dir); err == nil {
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return "", fmt.Errorf("find the PostgreSQL folder: %w", err)
		}
		return dir, nil
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, folderMode()); err != nil {
		return "", fmt.Errorf("make the folder for PostgreSQL's: %w", err)
	}
	if parent, err = filepath.EvalSymlinks(parent); err != nil {
		return "", fmt.Errorf("find the PostgreSQL folder: %w", err)
	}
	return filepath.Join(parent, filepath.Base(dir)), nil
}

// look tells a cluster from nothing, and either from what must not be touched.
func (c *cluster) look() error {
	info, err := os.Stat(c.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at the PostgreSQL folder: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%s is a file; PostgreSQL needs a folder there. It was not touched", c.dir)
	}
	text, err := os.ReadFile(filepath.Join(c.dir, "PG_VERSION"))
	if err == nil {
		c.owner = ownerOf(info)
		if c.version, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil || c.version <= 0 {
			return fmt.Errorf("%s holds a cluster of an unknown PostgreSQL version %.20q; it was not touched", c.dir, text)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the version of the cluster: %w", err)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("look into the PostgreSQL folder: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is neither empty nor a PostgreSQL cluster (it has %s); it was not touched. Choose another folder", c.dir, entries[0].Name())
	}
	return nil
}

// prepare makes the cluster, or makes an existing one ready to be started by who.
func (c *cluster) prepare(ctx context.Context, bin string, who identity, out *output) error {
	if c.version == 0 {
		return c.init(ctx, bin, who, out)
	}
	if err := c.endPrevious(ctx, previousLimit); err != nil {
		return err
	}
	return who.adopt(c.dir)
}

// init makes the cluster beside its place and moves it there when it is whole and
// on disk, so that an initdb that was killed leaves nothing that looks like one.
func (c *cluster) init(ctx context.Context, bin string, who identity, out *output) (err error) {
	parent := filepath.Dir(c.dir)
	work, err := newScratch(parent, filepath.Base(c.dir)+".initdb-")
	if err != nil {
		return fmt.Errorf("make the folder for initdb: %w", err)
	}
	defer func() { err = errors.Join(err, work.remove()) }()
	data := filepath.Join(work.dir, "data")
	if err := who.mkdir(data); err != nil {
		return fmt.Errorf("make the folder for initdb: %w", err)
	}
	// Locale C sorts alike on every machine and after every upgrade of libc.
	// Trust is for the socket, whose folder only its owner may enter.
	cmd := who.command(ctx, filepath.Join(bin, "initdb"),
		"--pgdata="+data, "--username="+superuser, "--auth-local=trust", "--auth-host=reject",
		"--encoding=UTF8", "--locale=C", "--data-checksums")
	cmd.ExtraFiles = []*os.File{work.lock} // keeps sweeps off the folder if initdb outlives us
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = drainLimit // its children end when it does, because their input does
	out.begin()
	if err := run(cmd); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("initdb was broken off: %w", ctx.Err())
		}
		return fmt.Errorf("initdb failed (%w); its last words:\n%s", err, out.lastWords())
	}
	// Unlike os.Rename, the system call replaces a folder if it is empty, and only
	// then.
	if err := syscall.Rename(data, c.dir); err != nil {
		if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) {
			return fmt.Errorf("move the new cluster into place: %s is a mount point; choose a folder inside it: %w", c.dir, err)
		}
		return fmt.Errorf("move the new cluster into place: %w", err)
	}
	return syncDir(parent)
}

// syncDir makes a rename in the folder survive a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write down the new cluster: %w", err)
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// lockName locks a file of that name and writes our process id into it.
func lockName(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock the PostgreSQL folder: %w", err)
		}
		switch err := flock(f); {
		case errors.Is(err, errLocked):
			return nil, errors.Join(inUse(f), f.Close())
		case err != nil:
			return nil, errors.Join(err, f.Close())
		}
		// The holder before us may have removed the file between our open and our
		// lock. Then what we hold has no name, and keeps nobody out.
		mine, err1 := f.Stat()
		named, err2 := os.Lstat(path)
		if err1 != nil || err2 != nil || !os.SameFile(mine, named) {
			_ = f.Close()
			continue
		}
		_, err = f.WriteAt([]byte(fmt.Sprintf("%-*d", pidWidth, os.Getpid())), 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock the PostgreSQL folder: %w", err), os.Remove(path), f.Close())
		}
		return f, nil
	}
}

// pidWidth is the length of the longest process id. The lock file's text always
// has it, so that a shorter id replaces a longer one whole.
const pidWidth = 10

func inUse(lock *os.File) error {
	text := make([]byte, pidWidth)
	n, _ := lock.ReadAt(text, 0)
	dir := strings.TrimSuffix(lock.Name(), ".lock")
	if pid := strings.TrimSpace(string(text[:n])); pid != "" {
		return fmt.Errorf("%w: process %s runs the server on %s", ErrInUse, pid, dir)
	}
	return fmt.Errorf("%w: another process is starting the server on %s", ErrInUse, dir)
}

// unlock removes the file before it lets go of it: see lockName.
func (c *cluster) unlock() error {
	return errors.Join(os.Remove(c.lock.Name()), unflock(c.lock))
}
