package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// What a full disk does to PostgreSQL: statements fail that need more room; and if its
// log of writes does, the server gives up and starts again.
const (
	diskFull      = "database: disk full"
	diskFullPanic = "database: disk full, and PostgreSQL gives up"
)

const (
	// diskSize holds a cluster, its log of writes, and all that a round writes, however
	// long it takes: half of it has nearly always been enough.
	diskSize = "1g"
	// lump is the ballast's unit. The last one is cut off where the disk ends.
	lump = 1 << 20
	// topUpEvery is how often the ballast takes what PostgreSQL gave back meanwhile.
	topUpEvery = 10 * time.Millisecond
	// fullAtMost is the longest time that a disk stays full.
	fullAtMost = time.Second
	// sureAfter is how long a server has been there before it is taken to stay: a
	// process that has met the full disk may still be on its way out.
	sureAfter = 50 * time.Millisecond
)

// noDisk says why no server can have a file system of its own, or is empty. It mounts
// one to find out.
func noDisk(parent string) string {
	dir, err := os.MkdirTemp(parent, "disk-")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = os.Remove(dir) }() // it is empty, or in the folder that goes at the end
	if err := mountDisk(dir); err != nil {
		return "only root can give PostgreSQL a disk of its own, and only on Linux"
	}
	if err := unmountDisk(dir); err != nil {
		return err.Error()
	}
	return ""
}

// takeDisk puts the server's folder on a file system of its own, if it is to have one.
func (m *mortal) takeDisk(own bool) error {
	if !own {
		return nil
	}
	err := mountDisk(m.dir)
	m.ownDisk = err == nil
	return err
}

// leaveDisk takes it away again.
func (m *mortal) leaveDisk() error {
	if !m.ownDisk {
		return nil
	}
	return unmountDisk(m.dir)
}

// fills is a full disk under PostgreSQL, for a while; every other time so that its log
// of writes finds no room either.
func (s *stage) fills() mischief {
	next := inTurn(s.seed, []func(context.Context){func(context.Context) {}, s.switchLogs})
	return func(ctx context.Context, _ *instance, rng *rand.Rand) {
		full, gaveUp := s.ground.mortal.fill(ctx, fullAtMost/2+upTo(rng, fullAtMost/2), next())
		if full {
			s.faults.note("", diskFull)
		}
		if gaveUp {
			s.faults.note("", diskFullPanic) // which came of it, and is told beside it
		}
	}
}

// switchLogs has PostgreSQL begin one file after the other of its log of writes, until
// it cannot make another.
func (s *stage) switchLogs(ctx context.Context) {
	for ctx.Err() == nil {
		_, _ = s.pool.Exec(ctx, `SELECT pg_switch_wal()`) // a connection may be of before the server's last end
		rest(ctx, topUpEvery)
	}
}

// fill leaves no room on the server's disk for a while, in which push is done as well,
// and sees that it can be used again afterwards. It says whether the disk was full, and
// whether the server's sessions ended with it.
func (m *mortal) fill(ctx context.Context, d time.Duration, push func(context.Context)) (full, gaveUp bool) {
	m.undisturbed(func() {
		if !m.ownDisk || ctx.Err() != nil {
			return
		}
		var err error
		full, err = m.ballast(ctx, d, push)
		ctx := context.WithoutCancel(ctx) // whatever ends meanwhile, the server is there again
		gaveUp = m.watcher.Ping(ctx) != nil
		m.failure = errors.Join(err, m.revive(ctx))
	})
	return full, full && gaveUp
}

// ballast fills the disk, keeps it full for a while, and removes what it wrote.
func (m *mortal) ballast(ctx context.Context, d time.Duration, push func(context.Context)) (full bool, err error) {
	path := filepath.Join(m.dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		return false, fmt.Errorf("fill the disk: %w", err)
	}
	// Truncated first: a process that is just being started may have the file open still,
	// and would keep its room.
	defer func() { err = errors.Join(err, f.Truncate(0), f.Close(), os.Remove(path)) }()
	limit, cancel := context.WithCancel(ctx)
	var pushing sync.WaitGroup
	defer pushing.Wait()
	defer cancel()
	for zeros := make([]byte, lump); limit.Err() == nil; {
		_, err := f.Write(zeros)
		if err == nil {
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return full, fmt.Errorf("fill the disk: %w", err)
		}
		if !full {
			full = true
			time.AfterFunc(d, cancel)
			pushing.Go(func() { push(limit) })
		}
		rest(limit, topUpEvery)
	}
	return full, nil
}

// revive waits until the server can be used again. It may have started again by itself,
// or have ended. It wants mu held.
func (m *mortal) revive(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, riseLimit)
	defer cancel()
	for {
		if m.watcher != nil {
			_ = m.watcher.Close(ctx) // it may have ended with the server
		}
		select {
		case <-m.server.Done():
			return m.rise(ctx)
		default:
		}
		if m.watcher, err = pgx.Connect(ctx, m.server.URL()); err == nil {
			rest(ctx, sureAfter)
			if err = m.watcher.Ping(ctx); err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for PostgreSQL after its disk was full: %w", err)
		}
		rest(ctx, pollEvery)
	}
}
