package checkout

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/transactions"
)

func (h *Handler) mountTokens(e *echo.Echo) {
	r := idem.Route{Method: http.MethodPost, Path: "/v1/checkout/sessions/:session/token", Creates: true}
	h.browsers.AddEither(e, r.Method, r.Path, h.changing(r, h.createSessionToken), h.service.payments.StyleOf)
	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/tokens", Creates: true}, h.createToken)
}

// wireToken is a one-time token of a session on the wire. What only an issuer could tell is
// null.
type wireToken struct {
	Token           string       `json:"token"`
	VaultedToken    *string      `json:"vaulted_token"`
	VaultOnSuccess  bool         `json:"vault_on_success"`
	Type            string       `json:"type"`
	CardData        wireCardData `json:"card_data"`
	Customer        *string      `json:"customer"`
	Installment     *struct{}    `json:"installment"`
	Country         *string      `json:"country"`
	CustomerSession *string      `json:"customer_session"`
}

// wireCardData is what may be told of a card.
type wireCardData struct {
	HolderName         string  `json:"holder_name"`
	IIN                string  `json:"iin"`
	LFD                string  `json:"lfd"`
	NumberLength       int     `json:"number_length"`
	SecurityCodeLength int     `json:"security_code_length"`
	Brand              string  `json:"brand"`
	Type               *string `json:"type"`
	Category           *string `json:"category"`
	IssuerName         *string `json:"issuer_name"`
	IssuerCode         *string `json:"issuer_code"`
	Fingerprint        *string `json:"fingerprint"`
	CountryCode        *string `json:"country_code"`
	ExpirationMonth    int     `json:"expiration_month"`
	ExpirationYear     int     `json:"expiration_year"`
}

// presentCard is a kept card on the wire. Its fingerprint is between merchant and us: it
// says which of their payers have the same card.
func presentCard(kept string, fingerprint bool) (wireCardData, error) {
	var c transactions.KeptCard
	if json.Unmarshal([]byte(kept), &c) != nil {
		return wireCardData{}, errStored
	}
	w := wireCardData{
		HolderName: c.HolderName, IIN: c.IIN, LFD: c.LFD, NumberLength: c.NumberLength, SecurityCodeLength: c.SecurityCodeLength,
		Brand: c.Brand, ExpirationMonth: c.ExpirationMonth, ExpirationYear: c.ExpirationYear,
	}
	if fingerprint {
		w.Fingerprint = orNull(c.Fingerprint)
	}
	return w, nil
}

// present is a token on the wire; country is its session's.
func (t Token) present(country string, fingerprint bool) (wireToken, error) {
	card, err := presentCard(t.Card, fingerprint)
	return wireToken{
		Token: t.ID.String(), VaultOnSuccess: t.VaultOnSuccess, Type: categoryCard, CardData: card, Country: orNull(country),
	}, err
}

// createSessionToken is POST /v1/checkout/sessions/{checkout_session}/token.
func (h *Handler) createSessionToken(c echo.Context) (change, error) {
	sn, err := h.sessionOf(c)
	if err != nil {
		return change{}, err
	}
	caller := merchants.CallerOf(c)
	_, browser := merchants.BrowserOf(c)
	var in handedIn
	var token Token
	return change{
		target: sn.ID.String(),
		read: func(body jsontree.Value) (err error) {
			in, err = readHandedIn(body, h.service.payments.CardRules(caller.Mode == merchants.Live), func(*fields.Checker) {})
			return err
		},
		prepare: func(ctx context.Context) (err error) {
			if err = mayHandIn(sn, in); err == nil {
				token, err = h.service.tokenOf(ctx, caller, in)
			}
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			token.CheckoutSessionID, token.CustomerID = uuid.NullUUID{UUID: sn.ID, Valid: true}, sn.CustomerID
			kept, err := h.service.store.insertToken(tx, token)
			if err != nil {
				return 0, nil, err
			}
			w, err := kept.present(sn.Country, !browser)
			return http.StatusCreated, w, err
		},
	}, nil
}

// createToken is POST /v1/tokens: a token that the merchant's backend pays with, in a
// session or without.
func (h *Handler) createToken(c echo.Context) (change, error) {
	caller := merchants.CallerOf(c)
	var in handedIn
	var token Token
	return change{
		read: func(body jsontree.Value) (err error) {
			in, err = readHandedIn(body, h.service.payments.CardRules(caller.Mode == merchants.Live), func(v *fields.Checker) {
				v.Account(body.Get("account_id"), caller.AccountID)
			})
			return err
		},
		prepare: func(ctx context.Context) (err error) {
			token, err = h.service.tokenOf(ctx, caller, in)
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			kept, err := h.service.store.insertToken(tx, token)
			if err != nil {
				return 0, nil, err
			}
			w, err := kept.present("", true)
			return http.StatusCreated, w, err
		},
	}, nil
}
