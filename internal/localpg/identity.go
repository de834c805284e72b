package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// probeLimit bounds commands that only print something, in milliseconds.
const probeLimit = 10 * time.Second

// unprivileged are the users that PostgreSQL may run as when we are root: the one
// made for it (_postgres on macOS), else the one that owns nothing.
var unprivileged = []string{"postgres", "_postgres", "nobody"}

// identity is whom PostgreSQL runs as. It refuses to run as root.
type identity struct {
	name  string // as it reads in a message
	owner *owner // whom its files must belong to; nil means us
	attr  func() *syscall.SysProcAttr
}

// identities are the possible ones, best first.
func identities(c *cluster) []identity {
	if os.Geteuid() != 0 {
		return []identity{self()}
	}
	// A cluster that another user made, or that was given to one, stays theirs.
	if c.version != 0 && c.owner.uid != 0 {
		return []identity{asUser(fmt.Sprintf("its owner (uid %d)", c.owner.uid), c.owner)}
	}
	list := namespaced()
	for _, name := range unprivileged {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			list = append(list, asUser("user "+name, owner{uint32(uid), uint32(gid)}))
		}
	}
	return list
}

// self is who we are.
func self() identity {
	return identity{name: "this user", attr: func() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }}
}

// asUser is another user, without our groups.
func asUser(name string, o owner) identity {
	return identity{name: name, owner: &o, attr: func() *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: o.uid, Gid: o.gid}}
	}}
}

// command prepares a program of PostgreSQL's. It leads its own process group, so
// that a Ctrl-C at the terminal reaches us alone; it gets none of our environment
// but what it needs, because secrets live there; and it stands in a folder that
// everybody may enter. It is killed when the context ends.
func (who identity) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.SysProcAttr = who.attr()
	cmd.SysProcAttr.Setpgid = true
	return cmd
}

// environment is where to find programs and libraries. The locale is fixed so
// that messages are in English and, on macOS, no thread is started to look it up;
// the zone so that initdb need not guess it.
func environment() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// mkdir makes a folder that only the identity may enter.
func (who identity) mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if who.owner == nil {
		return nil
	}
	return os.Lchown(dir, int(who.owner.uid), int(who.owner.gid))
}

// adopt gives an existing cluster to the identity, if it is not theirs yet. The
// folder itself comes last, so that a chown that was broken off is done again.
func (who identity) adopt(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the owner of %s: %w", dir, err)
	}
	if who.owner == nil || ownerOf(info).uid == who.owner.uid {
		return nil
	}
	root, err := os.OpenRoot(dir) // through it, no symbolic link leads outside
	if err != nil {
		return fmt.Errorf("give %s to %s: %w", dir, who.name, err)
	}
	defer func() { _ = root.Close() }() // nothing was written through it
	give := func(path string) error { return root.Lchown(path, int(who.owner.uid), int(who.owner.gid)) }
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		return give(path)
	})
	if err == nil {
		err = give(".")
	}
	if err != nil {
		return fmt.Errorf("give %s to %s: %w", dir, who.name, err)
	}
	return nil
}

// chooseIdentity returns the first identity that the system lets us take and that
// can reach the folders.
func chooseIdentity(ctx context.Context, bin string, list []identity, folders ...string) (identity, error) {
	if os.Geteuid() != 0 {
		return list[0], nil // ourselves: nothing to find out
	}
	errs := []error{errors.New("PostgreSQL refuses to run as root, and no other way was open")}
	for _, who := range list {
		err := who.tryIn(ctx, bin, "/")
		for _, dir := range folders {
			if err == nil {
				err = who.checkPath(ctx, bin, dir)
			}
		}
		if err == nil {
			return who, nil
		}
		if ctx.Err() != nil {
			return identity{}, fmt.Errorf("choose whom PostgreSQL runs as: %w", ctx.Err())
		}
		errs = append(errs, fmt.Errorf("as %s: %w", who.name, err))
	}
	return identity{}, errors.Join(errs...)
}

// tryIn runs something harmless as the identity, in a folder.
func (who identity) tryIn(ctx context.Context, bin, dir string) error {
	_, err := who.ask(ctx, dir, filepath.Join(bin, "postgres"), "--version")
	return err
}

// ask runs a program that only prints something, and returns that.
func (who identity) ask(ctx context.Context, dir, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var text strings.Builder
	cmd := who.command(ctx, path, args...)
	cmd.Dir = dir
	cmd.Stdout = &text
	err := run(cmd)
	return strings.TrimSpace(text.String()), err
}

// run runs a command to its end. Nothing that it does is worth finishing when this
// process ends.
func run(cmd *exec.Cmd) error {
	release, err := fork(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	defer release()
	return cmd.Wait()
}

// checkPath finds out whether the identity may enter the folder by entering it:
// modes, access lists and security modules all have a say in that.
func (who identity) checkPath(ctx context.Context, bin, dir string) error {
	if who.tryIn(ctx, bin, dir) == nil {
		return nil
	}
	path := "/"
	for part := range strings.SplitSeq(dir, "/") {
		path = filepath.Join(path, part)
		if err := who.tryIn(ctx, bin, path); err != nil {
			return fmt.Errorf("it may not enter %s, which leads to %s; let it (chmod o+x '%s') or choose another folder: %w", path, dir, path, err)
		}
	}
	return nil
}
