package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/merchants"
)

// order is one request to create a payment, ready to be sent as it is.
type order struct {
	nonce, id string
	wire      []byte
}

// merchant makes the orders of one account.
type merchant struct {
	account string
	keys    merchants.KeyPair
}

// newOrder draws a nonce and an order that nobody else has: UUIDs, as merchants use
// them.
func (m merchant) newOrder(description string) order {
	o := order{nonce: uuid.NewString(), id: uuid.NewString()}
	body, err := json.Marshal(map[string]any{
		"account_id": m.account, "merchant_order_id": o.id, "description": description, "country": "US", "workflow": "DIRECT",
		"amount": map[string]any{"currency": "USD", "value": json.Number("45.67")},
		"payment_method": map[string]any{"type": "CARD", "detail": map[string]any{"card": map[string]any{"card_data": map[string]any{
			"number": "4507990000000002", "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 28, "security_code": "123"}}}},
	})
	if err != nil {
		panic(err) // strings, and a number that is a constant
	}
	o.wire = fmt.Appendf(nil, "POST /v1/payments HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\npublic-api-key: %s\r\nprivate-secret-key: %s\r\n"+
		"X-Idempotency-Key: %s\r\nContent-Length: %d\r\n\r\n", m.keys.PublicAPIKey, m.keys.PrivateSecretKey, o.nonce, len(body))
	o.wire = append(o.wire, body...)
	return o
}

// client is one connection that is kept, as a merchant's backend keeps it. net/http's
// would cost more processor than the API.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	body bytes.Buffer // of the last answer
}

// exchangeLimit is longer than a held payment may take.
const exchangeLimit = time.Minute

func dial(ctx context.Context, addr string) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReader(conn)}, nil
}

func (c *client) close() { c.conn.Close() }

// answer is what a request was told.
type answer struct {
	status   int
	replayed bool
}

// created says whether the request made a payment.
func (a answer) created() bool { return a.status == http.StatusCreated && !a.replayed }

// send writes an order and reads the whole answer.
func (c *client) send(o order) (answer, error) {
	if err := c.conn.SetDeadline(time.Now().Add(exchangeLimit)); err != nil {
		return answer{}, err
	}
	if _, err := c.conn.Write(o.wire); err != nil {
		return answer{}, err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	c.body.Reset()
	if _, err := io.Copy(&c.body, res.Body); err != nil {
		return answer{}, err
	}
	if res.Close {
		return answer{}, errors.New("the API closed a connection")
	}
	return answer{res.StatusCode, res.Header.Get("Idempotent-Replayed") == "true"}, nil
}

// pay sends an order that must make a payment.
func (c *client) pay(o order) error {
	a, err := c.send(o)
	if err == nil && !a.created() {
		err = c.unexpected(a)
	}
	return err
}

// unexpected is an answer that a load does not expect; it ends the run.
func (c *client) unexpected(a answer) error {
	var refusal struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(c.body.Bytes(), &refusal) // then it has none
	return fmt.Errorf("an answer that this load does not expect: %d %s (replayed: %t)", a.status, refusal.Code, a.replayed)
}
