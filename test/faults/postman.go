package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncepay/oncepay/internal/providers/sandbox"
	"github.com/oncepay/oncepay/internal/transactions"
)

// What befalls a callback on its way from the provider to an instance.
const (
	callbackLost    = "provider, callback: lost"
	callbackUnheard = "provider, callback: its acknowledgement lost"
	callbackTwice   = "provider, callback: to two instances at once"
	callbackLate    = "provider, callback: overtaken by its repetition"
	callbackForged  = "provider, callback: forged"
)

var callbackFaults = []string{callbackLost, callbackUnheard, callbackTwice, callbackLate, callbackForged}

// lateCallback is longer than the sandbox's first pause before it repeats a callback.
const lateCallback = 2500 * time.Millisecond

// callbackLimit bounds one delivery; the sandbox gives up after ten seconds.
const callbackLimit = 8 * time.Second

// letterBytes bounds a callback, and what is answered to one.
const letterBytes = 1 << 20

// postman is the provider's way back to the instances: the address that callbacks are
// sent to, whichever instance is alive.
type postman struct {
	s        *stage
	listener net.Listener
	server   *http.Server
	client   *http.Client
	turn     atomic.Int64
	wg       sync.WaitGroup
	ending   chan struct{}

	mu       sync.Mutex
	believed []string // forgeries that an instance took in
}

func startPostman(ctx context.Context, s *stage) (*postman, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for callbacks: %w", err)
	}
	p := &postman{s: s, listener: l, ending: make(chan struct{}), client: &http.Client{Timeout: callbackLimit}}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: callbackLimit}
	p.wg.Go(func() { _ = p.server.Serve(l) })
	return p, nil
}

// url is where the provider calls back to.
func (p *postman) url() string { return "http://" + p.listener.Addr().String() }

func (p *postman) close() {
	close(p.ending)
	_ = p.server.Close()
	p.wg.Wait()
	p.client.CloseIdleConnections()
}

// letter is one callback.
type letter struct {
	body   []byte
	header http.Header
}

// ServeHTTP takes a callback, and does to it what befalls it.
func (p *postman) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, letterBytes))
	if err != nil {
		return
	}
	l := letter{body, http.Header{"Content-Type": r.Header["Content-Type"], "Sandbox-Signature": r.Header["Sandbox-Signature"]}}
	var about struct {
		Reference string `json:"reference"`
	}
	_ = json.Unmarshal(body, &about) // then it is about nothing we know
	nonce, fault := p.s.scripts.nextCallback(about.Reference)
	if fault != "" {
		p.s.faults.note(nonce, fault)
	}
	w.WriteHeader(p.carry(l, fault))
}

// carry delivers a callback and returns what the provider is told.
func (p *postman) carry(l letter, fault string) int {
	switch fault {
	case callbackLost:
		return http.StatusBadGateway
	case callbackUnheard:
		p.deliver(p.next(), l)
		return http.StatusBadGateway
	case callbackTwice:
		one, other := p.next(), p.next()
		p.wg.Go(func() { p.deliver(one, l) })
		return p.deliver(other, l)
	case callbackLate:
		p.wg.Go(func() {
			select {
			case <-time.After(lateCallback):
				p.deliver(p.next(), l)
			case <-p.ending:
			}
		})
		return http.StatusBadGateway
	case callbackForged:
		p.forge(l)
	}
	return p.deliver(p.next(), l)
}

// next is the next instance in turn.
func (p *postman) next() *instance {
	return p.s.instances[int(p.turn.Add(1))%len(p.s.instances)]
}

// deliver hands a callback over, and returns how it was received.
func (p *postman) deliver(i *instance, l letter) int {
	base, _ := i.addresses()
	if base == "" {
		return http.StatusBadGateway
	}
	ctx, cancel := context.WithTimeout(context.Background(), callbackLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+transactions.CallbackPath(sandbox.Name), bytes.NewReader(l.body))
	if err != nil {
		return http.StatusBadGateway
	}
	req.Header = l.header.Clone()
	res, err := p.client.Do(req)
	if err != nil {
		return http.StatusBadGateway
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, letterBytes)) // so that the connection is used again
	return res.StatusCode
}

// forge sends what a callback does not say under its signature, and without one: both
// must be refused.
func (p *postman) forge(l letter) {
	text := string(l.body)
	other := strings.NewReplacer(`"status":"declined"`, `"status":"approved"`, `"status":"approved"`, `"status":"declined"`).Replace(text)
	unsigned := l.header.Clone()
	unsigned.Del("Sandbox-Signature")
	for _, forged := range []letter{{[]byte(other), l.header}, {l.body, unsigned}} {
		if status := p.deliver(p.next(), forged); status < http.StatusMultipleChoices {
			p.mu.Lock()
			p.believed = append(p.believed, fmt.Sprintf("a forged callback was answered %d", status))
			p.mu.Unlock()
		}
	}
}

func (p *postman) taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.believed...)
}

// someCallbackFaults are a few, drawn.
func someCallbackFaults(rng *rand.Rand) []string {
	var list []string
	for range rng.IntN(3) {
		list = append(list, callbackFaults[rng.IntN(len(callbackFaults))])
	}
	return list
}
