//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package sandbox

import (
	"errors"
	"os"
)

// lockFile refuses: without flock two processes could book the same reference.
// Open("") still works.
func lockFile(*os.File) error {
	return errors.New("this operating system cannot lock it")
}
