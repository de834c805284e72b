package main

import (
	"encoding/json"

	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/harness"
)

// request is what an order asks for, and where. Of an action, another value than its
// amount stands for another body.
func (o *order) request(keys harness.Keys, value string) (path string, body map[string]any) {
	if o.deed != nil {
		return o.deed.request(o, value)
	}
	card, told := harness.CardThatPays, map[string]any{"capture": o.kind != transactions.Authorize}
	switch {
	case keys.Mode == live && o.declined:
		card = harness.LiveCardDeclined
	case keys.Mode == live:
		card = harness.LiveCardThatPays
	case o.declined:
		card = harness.CardWithoutFunds
	}
	if o.bySDK && o.kind != transactions.Authorize {
		delete(told, "capture") // as the Go client has it: else it would be another body
	}
	if o.kind == transactions.Verify {
		told["verify"], value = true, "0"
	}
	told["card_data"] = map[string]any{"number": card, "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 28, "security_code": "123"}
	return "/v1/payments", map[string]any{
		"account_id": keys.AccountID, "merchant_order_id": o.id, "description": o.description(), "country": "US", "workflow": "DIRECT",
		"amount":         money(value),
		"payment_method": map[string]any{"type": "CARD", "detail": map[string]any{"card": told}},
	}
}

func money(value string) map[string]any {
	return map[string]any{"currency": "USD", "value": json.Number(value)}
}

// description is what the order says of itself; the sandbox reads it, the product must not.
func (o *order) description() string {
	if o.says != "" {
		return o.says
	}
	return "campaign"
}

// deed is what an order does with the payment of another one.
type deed struct {
	route transactions.Route
	of    *order // whose payment
	on    *order // whose transaction; nil: the payment as a whole
	value string // "": all that is left
}

func (d *deed) request(o *order, value string) (path string, body map[string]any) {
	path = "/v1/payments/" + d.of.paid.payment
	if d.on != nil {
		path += "/transactions/" + d.on.paid.transaction
	}
	body = map[string]any{"merchant_reference": "part of " + o.id, "reason": "REQUESTED_BY_CUSTOMER", "description": o.description()}
	if d.value != "" {
		body["amount"] = money(d.value)
	}
	if value != amount { // another body: its first answer counts all the same
		body["merchant_reference"] = "something else"
	}
	return path + "/" + string(d.route), body
}

// outcomeOf is what an answer says of a payment, or of what was done with one.
type outcomeOf struct {
	payment, transaction string
	status, redirect     string
}

// attempt is a payment, or a transaction, as answers show it.
type attempt struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Method struct {
		Detail struct {
			Card struct {
				Redirect string `json:"redirect_url"`
			} `json:"card"`
		} `json:"detail"`
	} `json:"payment_method"`
}

// readOutcome reads an answer in either of its shapes.
func readOutcome(body []byte) (o outcomeOf) {
	var a struct {
		attempt
		Payment      *attempt `json:"payment"`
		Transactions *attempt `json:"transactions"`
	}
	if json.Unmarshal(body, &a) != nil { // the oracles complain about a body that cannot be read
		return o
	}
	payment, transaction := a.attempt, attempt{}
	switch {
	case a.Payment != nil:
		payment, transaction = *a.Payment, a.attempt
	case a.Transactions != nil:
		transaction = *a.Transactions
	}
	return outcomeOf{payment.ID, transaction.ID, transaction.Status, transaction.Method.Detail.Card.Redirect}
}
