//go:build !linux

package main

import "errors"

// ownMounts does nothing: there is nothing to mount.
func ownMounts() {}

func mountDisk(string) error { return errors.ErrUnsupported }

func unmountDisk(string) error { return errors.ErrUnsupported }
