package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// child is the API in a process of its own, seen from the generator.
type child struct {
	cmd      *exec.Cmd
	hangUp   io.Closer // ends it
	addr     string
	profiles string // address of its profiles
}

// startChild starts this program's file. A Ctrl-C at the terminal does not reach it:
// it ends when we hang up, or are gone.
func startChild(ctx context.Context, databaseURL string, secret []byte) (_ *child, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(context.WithoutCancel(ctx), self, "api")}
	c.cmd.Env = append(os.Environ(), envURL+"="+databaseURL, envSecret+"="+string(secret))
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var complaints strings.Builder
	c.cmd.Stderr = &complaints
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.hangUp = in
	line, err := bufio.NewReader(out).ReadString('\n') // it ends if the child does
	addresses := strings.Fields(line)
	if err == nil && len(addresses) != 2 {
		err = errors.New("it gave no addresses")
	}
	if err != nil {
		return nil, fmt.Errorf("the API did not start: %w: %s", errors.Join(err, c.stop()), lastLine(complaints.String()))
	}
	c.addr, c.profiles = addresses[0], addresses[1]
	return c, nil
}

func (c *child) stop() error {
	c.hangUp.Close()
	limit := time.AfterFunc(stepLimit, func() { _ = c.cmd.Process.Kill() }) // it has ended, or will now
	defer limit.Stop()
	return c.cmd.Wait()
}

// profile keeps what the API does and allocates, from now on and for that long, as
// files for `go tool pprof` whose paths begin with to.
func (c *child) profile(ctx context.Context, to string, duration time.Duration) error {
	errs := make(chan error, 2)
	for kind, path := range map[string]string{"cpu": "profile", "allocs": "allocs"} {
		go func() {
			url := fmt.Sprintf("http://%s/debug/pprof/%s?seconds=%d", c.profiles, path, int(duration.Seconds()))
			errs <- download(ctx, url, to+"."+kind+".pprof")
		}()
	}
	return errors.Join(<-errs, <-errs)
}

func download(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: maxDuration + stepLimit}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("take a profile: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("take a profile: %s", res.Status)
	}
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("take a profile: %w", err)
	}
	return os.WriteFile(path, data, 0o644)
}
