package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/oncepay/oncepay/internal/providers/sandbox"
)

// sandboxCmd runs the sandbox provider as its own process.
type sandboxCmd struct {
	Listen  string `default:"127.0.0.1:8090" env:"PAYMENTS_SANDBOX_LISTEN" help:"Address; the sandbox has no authentication: keep it on loopback or a private network (default ${default}; port 0 is a free one)." placeholder:"ADDR"`
	DataDir string `default:".data" help:"Folder; the ledger is kept in its folder sandbox." type:"path"`
}

// Run serves until ctx ends.
func (c sandboxCmd) Run(ctx context.Context, s streams) error {
	secret, err := setting(envCallbackSecret)
	if err == nil {
		err = checkCallbackSecret(secret)
	}
	if err != nil {
		return err
	}
	p, err := startSandbox(ctx, c.Listen, sandboxDir(c.DataDir), []byte(secret))
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "Sandbox  %s\n", p.url)
	select {
	case <-ctx.Done():
		err = nil
	case err = <-p.failed:
		err = fmt.Errorf("the sandbox's listener failed: %w", err)
	}
	return errors.Join(err, p.stop(ctx))
}

// sandboxProcess is a sandbox provider that runs in this process.
type sandboxProcess struct {
	url    string
	ledger *sandbox.Ledger
	server *http.Server
	failed chan error
}

// sandboxStop bounds the wait for the sandbox's requests; none of them is held
// once it stops.
const sandboxStop = 10 * time.Second

// startSandbox serves at addr, and signs what it calls back with the secret.
func startSandbox(ctx context.Context, addr, dir string, secret []byte) (*sandboxProcess, error) {
	ledger, err := sandbox.Open(dir)
	if err != nil {
		return nil, unavailableError("open the sandbox's ledger: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, errors.Join(unavailableError("listen on %s: %w; choose another address with --listen", addr, err), ledger.Close())
	}
	p := &sandboxProcess{
		url: "http://" + l.Addr().String(), ledger: ledger,
		server: sandbox.NewServer(ledger, sandbox.Options{CallbackSecret: secret}).HTTP(addr), failed: make(chan error, 1),
	}
	go func() { p.failed <- p.server.Serve(l) }()
	return p, nil
}

func (p *sandboxProcess) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sandboxStop)
	defer cancel()
	return errors.Join(p.server.Shutdown(ctx), p.ledger.Close())
}
