package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// envMounts says that this process has mounts of its own.
const envMounts = "ONCEPAY_FAULTS_MOUNTS"

// ownMounts starts this program over with mounts of its own, where the system lets it:
// what it mounts is gone with its last process, even if it is killed. It returns where
// that is done already, or cannot be.
func ownMounts() {
	if os.Geteuid() != 0 || os.Getenv(envMounts) != "" {
		return
	}
	runtime.LockOSThread() // of the thread that asks; the others end at the exec
	defer runtime.UnlockOSThread()
	if syscall.Unshare(syscall.CLONE_NEWNS) != nil {
		return
	}
	if syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") != nil {
		return
	}
	_ = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), envMounts+"=own")) // else without
}

// mountDisk mounts a file system of its own, in memory, over a folder.
func mountDisk(dir string) error {
	if err := syscall.Mount("oncepay-faults", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "size="+diskSize); err != nil {
		return fmt.Errorf("mount a disk: %w", err)
	}
	return nil
}

// unmountDisk takes it away, with all that is on it, as soon as nobody uses it.
func unmountDisk(dir string) error {
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount a disk: %w", err)
	}
	return nil
}
