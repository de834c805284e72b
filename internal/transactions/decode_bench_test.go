package transactions

import (
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
)

// decodeBody is a purchase with all that is usual.
const decodeBody = `{"account_id":"018f3c2e-7b1a-7c3d-9e4f-5a6b7c8d9e0f","merchant_order_id":"order-2026-000123","description":"Running shoes",
"country":"CO","workflow":"DIRECT","amount":{"currency":"COP","value":245900.50},
"payment_method":{"type":"CARD","detail":{"card":{"capture":true,"installments":3,"soft_descriptor":"SHOES","card_data":
{"number":"4111111111111111","holder_name":"John Doe","expiration_month":11,"expiration_year":28,"security_code":"123"}}}},
"customer_payer":{"merchant_customer_id":"c-7781","first_name":"John","last_name":"Doe","email":"john@example.com"},
"additional_data":{"order":{"fee_amount":0.5,"items":[{"id":"sku-1","name":"Running shoes","quantity":1,"unit_amount":245900.50}]}},
"metadata":[{"key":"channel","value":"web"}]}`

// BenchmarkDecode is what a valid request costs from its bytes to what is kept of it:
// parsing, every rule, and the card's fingerprint.
func BenchmarkDecode(b *testing.B) {
	prints, err := idem.NewFingerprinter([]byte("a secret of the tests, 32 bytes or more"), nil)
	if err != nil {
		b.Fatal(err)
	}
	r := rules{account: uuid.MustParse("018f3c2e-7b1a-7c3d-9e4f-5a6b7c8d9e0f"), CardRules: CardRules{rawCards: true, fingerprint: prints.Card, byOther: prints.CardByOther}}
	body := []byte(decodeBody)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		tree, err := jsontree.Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		request, err := parseRequest(tree, r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := request.kept(); err != nil {
			b.Fatal(err)
		}
	}
}
