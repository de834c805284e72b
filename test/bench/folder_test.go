package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFoldersOfKilledRunsAreRemovedByTheNext(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dead, err := newFolder(parent)
	if err != nil {
		t.Fatal(err)
	}
	living, err := newFolder(parent)
	if err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // the kernel does it
	stranger := filepath.Join(parent, folderPrefix+"stranger")
	if err := os.Mkdir(stranger, 0o700); err != nil {
		t.Fatal(err)
	}
	next, err := newFolder(parent)
	if err != nil {
		t.Fatal(err)
	}
	for path, stays := range map[string]bool{dead.path: false, living.path: true, stranger: true, next.path: true} {
		if _, err := os.Stat(path); (err == nil) != stays {
			t.Errorf("%s: %v, stays: %t", filepath.Base(path), err, stays)
		}
	}
	if err := next.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(next.path); !os.IsNotExist(err) {
		t.Errorf("a folder that was removed: %v", err)
	}
	living.lock.Close()
}

func TestStoringMoreThanTheDiskHoldsIsRefused(t *testing.T) {
	t.Parallel()
	f, err := newFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.lock.Close()
	if err := f.hasRoom(0); err != nil {
		t.Error(err)
	}
	if err := f.hasRoom(1 << 50); err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("more than any disk: %v", err)
	}
	if d, err := f.flushTime(); err != nil || d <= 0 {
		t.Errorf("a flush takes %s, %v", d, err)
	}
}
