package checkout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/transactions"
)

const (
	// linkPage is where a link is opened, below the address that browsers reach us under.
	linkPage = transactions.PayPage + "link/"
	// opensPerAddress is how many links one address may open in a minute, by instance: each
	// may make a session. An address may be a whole office's.
	opensPerAddress = merchants.OrdersPerAddress
)

// mountLinks adds the links' routes: backends make them, and anybody who has one opens it.
func (h *Handler) mountLinks(e *echo.Echo) {
	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/payment-links", Creates: true}, h.createLink)
	e.GET("/v1/payment-links/:code", h.getLink, h.backend())
	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/payment-links/:code/cancel"}, h.cancelLink)
	opens := httpapi.NewLimiter(opensPerAddress)
	e.GET(linkPage+":code", func(c echo.Context) error { return h.openLink(c, opens) })
}

// wireLink is a link as its merchant sees it. What is not available yet is there, and
// empty, because clients read it.
type wireLink struct {
	ID                  string           `json:"id"`
	Code                string           `json:"code"`
	AccountID           string           `json:"account_id"`
	Country             string           `json:"country"`
	Availability        wireAvailability `json:"availability"`
	Status              string           `json:"status"`
	MerchantOrderID     string           `json:"merchant_order_id"`
	Description         string           `json:"description"`
	Amount              wireMoney        `json:"amount"`
	Capture             bool             `json:"capture"`
	Metadata            json.RawMessage  `json:"metadata"`
	SplitPaymentMethods bool             `json:"split_payment_methods"`
	PaymentMethodTypes  []string         `json:"payment_method_types"`
	OneTimeUse          bool             `json:"one_time_use"`
	CallbackURL         *string          `json:"callback_url"`
	InstallmentsPlan    *struct{}        `json:"installments_plan"`
	CustomerPayer       json.RawMessage  `json:"customer_payer"`
	AdditionalData      json.RawMessage  `json:"additional_data"`
	CheckoutURL         string           `json:"checkout_url"`
	PaymentsNumber      int64            `json:"payments_number"`
	CreatedAt           string           `json:"created_at"`
	UpdatedAt           string           `json:"updated_at"`
}

type wireAvailability struct {
	StartAt  string `json:"start_at"`
	FinishAt string `json:"finish_at"`
}

// present is a link on the wire; base is where browsers reach us.
func (l Link) present(base string) (wireLink, error) {
	var d linkDetails
	if json.Unmarshal([]byte(l.Details), &d) != nil {
		return wireLink{}, errStored
	}
	return wireLink{
		ID: l.ID.String(), Code: l.Code, AccountID: l.AccountID.String(), Country: l.Country,
		Availability: wireAvailability{StartAt: httpapi.Timestamp(l.StartAt), FinishAt: httpapi.Timestamp(l.FinishAt)},
		Status:       l.status(), MerchantOrderID: l.MerchantOrderID, Description: d.Description,
		Amount: wireMoney{l.Currency, money.JSONNumber(l.Amount)}, Capture: true, Metadata: d.Metadata,
		PaymentMethodTypes: []string{categoryCard}, OneTimeUse: l.OneTimeUse, CallbackURL: orNull(d.CallbackURL),
		CustomerPayer: d.CustomerPayer, AdditionalData: d.AdditionalData, CheckoutURL: base + linkPage + l.Code,
		PaymentsNumber: l.Payments, CreatedAt: httpapi.Timestamp(l.CreatedAt), UpdatedAt: httpapi.Timestamp(l.UpdatedAt),
	}, nil
}

// createLink is POST /v1/payment-links.
func (h *Handler) createLink(c echo.Context) (change, error) {
	caller, base := merchants.CallerOf(c), h.base(c)
	var n newLink
	return change{
		read: func(body jsontree.Value) (err error) {
			n, err = readLink(body, caller.AccountID)
			n.Mode = caller.Mode
			return err
		},
		work: func(tx postgres.Tx) (int, any, error) {
			kept, err := h.service.createLink(tx, n)
			if err != nil {
				return 0, nil, err
			}
			w, err := kept.present(base)
			return http.StatusOK, w, err
		},
	}, nil
}

// linkOf reads the link that a path names, by its code or its id. Another merchant's is not
// found.
func (h *Handler) linkOf(c echo.Context) (Link, error) {
	caller, code := merchants.CallerOf(c), c.Param("code")
	id, _ := fields.ParseID(code)
	l, found, err := Link{}, false, error(nil)
	if plainCode(code) {
		l, found, err = h.service.store.linkNamed(c.Request().Context(), caller.AccountID, caller.Mode, code, orNone(id))
	}
	if err == nil && !found {
		err = errNoLink()
	}
	return l, err
}

// plainCode says whether a link could have this code, or this id: PostgreSQL takes no text
// that is not UTF-8.
func plainCode(code string) bool {
	for _, r := range code {
		if r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return code != ""
}

// getLink is GET /v1/payment-links/{code}.
func (h *Handler) getLink(c echo.Context) error {
	l, err := h.linkOf(c)
	if err != nil {
		return err
	}
	w, err := l.present(h.base(c))
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, w)
}

// cancelLink is POST /v1/payment-links/{code}/cancel. What is canceled already is told
// again.
func (h *Handler) cancelLink(c echo.Context) (change, error) {
	l, err := h.linkOf(c)
	if err != nil {
		return change{}, err
	}
	base := h.base(c)
	return change{
		target: l.ID.String(),
		work: func(tx postgres.Tx) (int, any, error) {
			kept, err := h.service.cancelLink(tx, l.AccountID, l.ID)
			if err != nil {
				return 0, nil, err
			}
			w, err := kept.present(base)
			return http.StatusOK, w, err
		},
	}, nil
}

// openLink is GET /pay/link/{code}: it leads to the page of a session, or says on a page of
// its own why it doesn't.
func (h *Handler) openLink(c echo.Context, opens *httpapi.Limiter) error {
	language := pageLanguage(c.QueryParam("lang"), c.Request().Header.Get("Accept-Language"))
	line := httpapi.LineOf(c)
	if wait := opens.Take(httpapi.AddressOf(c)); wait > 0 {
		line.Code = string(apierr.RateLimited)
		return sendLinkPage(c, linkBusy, PageSession{}, language, wait)
	}
	ctx, code := c.Request().Context(), c.Param("code")
	var l Link
	found, err := false, error(nil)
	if plainCode(code) {
		l, found, err = h.service.store.linkAnywhere(ctx, code)
	}
	if err != nil {
		return h.linkUnavailable(c, language, err)
	}
	caller, _, taken := h.service.auth.PublicKey(l.AccountID, l.Mode)
	if !found || !taken { // of a merchant without a key that is taken there is no link
		return sendLinkPage(c, linkMissing, PageSession{}, language, 0)
	}
	line.AccountID, line.Mode = l.AccountID.String(), l.Mode
	l, session, open, err := h.service.openLink(ctx, l)
	switch {
	case err != nil:
		return h.linkUnavailable(c, language, err)
	case open:
		return c.Redirect(http.StatusSeeOther, sessionPage(session, c.QueryParam("lang")))
	}
	why := map[string]linkStanding{linkCreated: linkEarly, linkUsed: linkPaid, linkCanceled: linkWithdrawn, linkExpired: linkOver}[l.status()]
	return sendLinkPage(c, why, PageSession{MerchantName: caller.MerchantName, Origins: caller.Origins}, language, 0)
}

// sessionPage is the page of a session, in the language that was asked for.
func sessionPage(session uuid.UUID, language string) string {
	page := transactions.PayPage + session.String()
	if tag, known := languageOf(language); known {
		page += "?" + url.Values{"lang": {tag}}.Encode()
	}
	return page
}

// linkUnavailable says that nobody could look, and hands the cause to the log.
func (h *Handler) linkUnavailable(c echo.Context, language string, cause error) error {
	if err := sendLinkPage(c, linkUnread, PageSession{}, language, retrySoon*time.Second); err != nil {
		return err
	}
	return cause
}

// linkStanding is why a link leads to no session.
type linkStanding int

const (
	linkMissing linkStanding = iota
	linkEarly
	linkPaid
	linkWithdrawn
	linkOver
	linkBusy
	linkUnread
)

// linkStatuses are what each of them is in HTTP.
var linkStatuses = map[linkStanding]int{
	linkMissing: http.StatusNotFound, linkEarly: http.StatusNotFound, linkPaid: http.StatusGone, linkWithdrawn: http.StatusGone,
	linkOver: http.StatusGone, linkBusy: http.StatusTooManyRequests, linkUnread: http.StatusServiceUnavailable,
}

// linkText is a title and a sentence.
type linkText struct{ title, text string }

// linkTexts are what a shopper reads, by language. The pay page has texts for the rest.
var linkTexts = map[string]map[linkStanding]linkText{
	"en": {
		linkEarly:     {"This link is not open yet", "Please open it again later. Nothing was charged."},
		linkPaid:      {"This link has been paid", "It is good for one payment, and that has been made. Ask the shop if you have a question about it."},
		linkWithdrawn: {"This link has been canceled", "Nothing can be paid here any more. Ask the shop for a new link."},
		linkOver:      {"This link has expired", "Nothing can be paid here any more. Ask the shop for a new link."},
	},
	"es": {
		linkEarly:     {"Este enlace todavía no está abierto", "Vuelve a abrirlo más tarde. No se ha cobrado nada."},
		linkPaid:      {"Este enlace ya se ha pagado", "Sirve para un solo pago, y ya se ha hecho. Si tienes alguna duda, pregunta a la tienda."},
		linkWithdrawn: {"Este enlace se ha anulado", "Aquí ya no se puede pagar nada. Pide un enlace nuevo a la tienda."},
		linkOver:      {"Este enlace ha caducado", "Aquí ya no se puede pagar nada. Pide un enlace nuevo a la tienda."},
	},
	"pt": {
		linkEarly:     {"Este link ainda não está aberto", "Abra-o de novo mais tarde. Nada foi cobrado."},
		linkPaid:      {"Este link já foi pago", "Ele vale para um único pagamento, que já foi feito. Se tiver alguma dúvida, fale com a loja."},
		linkWithdrawn: {"Este link foi cancelado", "Não é mais possível pagar aqui. Peça um link novo à loja."},
		linkOver:      {"Este link expirou", "Não é mais possível pagar aqui. Peça um link novo à loja."},
	},
}

// textOf is what a shopper reads of it.
func (how linkStanding) textOf(language string) linkText {
	page := pageLanguages[language]
	switch how {
	case linkMissing:
		return linkText{page.Missing, page.MissingText}
	case linkBusy, linkUnread:
		return linkText{page.Unavailable, page.UnavailableText}
	case linkEarly, linkPaid, linkWithdrawn, linkOver:
	}
	return linkTexts[language][how]
}

// sendLinkPage answers with a page that only says something, in the look of the pay page.
// wait is for whom waiting helps.
func sendLinkPage(c echo.Context, how linkStanding, s PageSession, language string, wait time.Duration) error {
	parts, err := pageAssets()
	if err != nil {
		return err
	}
	says := how.textOf(language)
	v := pageView{Session: s, Language: language, Texts: pageLanguages[language], Gone: true, Style: parts.path("pay.css"), Icon: parts.path("icon.svg")}
	v.Texts.Gone, v.Texts.GoneText = says.title, says.text
	var body bytes.Buffer
	if err := pageTemplate.Execute(&body, v); err != nil {
		return fmt.Errorf("make the link's page: %w", err)
	}
	if wait > 0 {
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	}
	return sendHTML(c, linkStatuses[how], body.Bytes(), s.Origins, language)
}
