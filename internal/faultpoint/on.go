//go:build faultpoints

package faultpoint

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"syscall"
)

// Reach asks the campaign what is to happen at p, and does it. Without a campaign
// to ask, nothing happens.
func Reach(p Point, nonce string) {
	socket := os.Getenv(EnvSocket)
	if socket == "" {
		return
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return // the campaign is ending
	}
	defer func() { _ = conn.Close() }()
	q := Question{Point: p, Nonce: nonce, Instance: os.Getenv(EnvInstance), PID: os.Getpid()}
	if json.NewEncoder(conn).Encode(q) != nil {
		return
	}
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	switch answer {
	case Die + "\n":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // not one instruction more
	case Stop + "\n":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
}
