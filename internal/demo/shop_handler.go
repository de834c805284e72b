package demo

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	oncepay "github.com/oncepay/oncepay/sdk/go"
)

const (
	// Path is where the shop is.
	Path = "/demo"

	ordersPath = Path + "/orders/"
	assetsPath = Path + "/assets/"
	sdkPath    = "/sdk/v1/oncepay.js"
	payPath    = "/pay/"

	// maxForm bounds what a page of the shop sends, in bytes. Its form has six short fields.
	maxForm = 4 << 10
)

//go:embed web
var web embed.FS

var page = template.Must(template.ParseFS(web, "web/shop.html"))

// contentTypes are those of the shop's files.
var contentTypes = map[string]string{
	"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml",
}

// file is one of the shop's files, at a path that has its hash in it.
type file struct {
	contentType string
	body        []byte
}

// files are the shop's by their path, and paths those by what the template calls them.
var files = sync.OnceValues(func() (found map[string]file, paths map[string]string) {
	found, paths = map[string]file{}, map[string]string{}
	for called, name := range map[string]string{"style": "shop.css", "script": "shop.js", "cup": "cup.svg"} {
		body, err := fs.ReadFile(web, "web/"+name)
		if err != nil {
			panic("demo: a file of the shop was not embedded") // a programmer's mistake
		}
		sum := sha256.Sum256(body)
		stem, extension, _ := strings.Cut(name, ".")
		at := assetsPath + stem + "." + hex.EncodeToString(sum[:8]) + "." + extension
		found[at], paths[called] = file{contentTypes[extension], body}, at
	}
	return found, paths
})

// handler is the shop on the wire.
type handler struct {
	shop   *shop
	policy string
}

// Mount adds the shop to the listener on which the API and the SDK are. Give it to nobody
// but `payments dev`.
func Mount(e *echo.Echo, o Options) {
	h := &handler{shop: newShop(o), policy: policy(o.Bank)}
	e.GET(Path, h.product)
	e.POST(Path+"/orders", h.order)
	e.GET(ordersPath+":session", h.checkout)
	e.POST(ordersPath+":session/payments", h.pay)
	e.GET(ordersPath+":session/status", h.status)
	e.GET(ordersPath+":session/thanks", h.thanks)
	e.GET(assetsPath+":file", asset)
}

// policy is the Content-Security-Policy of the shop's pages: what comes from here and
// nothing else, nothing inline. The bank's page comes into the payment's frame.
func policy(bank string) string {
	frames := "frame-src 'self'"
	if u, err := url.Parse(bank); err == nil && u.Host != "" && !strings.ContainsAny(u.Host, "; ,'\"") {
		frames += " " + u.Scheme + "://" + u.Host
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " + frames +
		"; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
}

// view is what the template is filled with.
type view struct {
	Kind      string // product, checkout, thanks or trouble
	T         *language
	Languages []*language
	Here      string // the page's path, for the menu of languages
	Assets    map[string]string
	SDK       string
	Integrity string
	PublicKey string

	Cart     string
	Most     int
	Troubles []string

	Session, Country, OrderID, Quantity, Total string
	Outcome                                    outcome
	Title, Text                                string
}

func (h *handler) show(c echo.Context, status int, v view) error {
	_, v.Assets = files()
	v.Here, v.SDK, v.Integrity, v.PublicKey = c.Request().URL.Path, sdkPath, h.shop.options.Integrity, h.shop.options.PublicKey
	for _, tag := range tags {
		v.Languages = append(v.Languages, languages[tag])
	}
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		return err
	}
	header := c.Response().Header()
	header.Set(echo.HeaderContentSecurityPolicy, h.policy)
	header.Set("Content-Language", v.T.tag)
	header.Set(echo.HeaderVary, "Accept-Language")
	return c.HTMLBlob(status, b.Bytes())
}

func speaks(c echo.Context) *language {
	return languageFor(c.QueryParam("lang"), c.Request().Header.Get("Accept-Language"))
}

// product is GET /demo.
func (h *handler) product(c echo.Context) error {
	v := view{Kind: "product", T: speaks(c), Cart: uuid.NewString(), Most: maxQuantity}
	for _, t := range troubles {
		v.Troubles = append(v.Troubles, t.key)
	}
	return h.show(c, http.StatusOK, v)
}

// order is POST /demo/orders, the product's form. Sent twice, it is one order.
func (h *handler) order(c echo.Context) error {
	r := c.Request()
	if err := fromOwnPage(r); err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(c.Response(), r.Body, maxForm)
	b, err := readBasket(c.FormValue)
	if err != nil {
		return h.show(c, http.StatusBadRequest, view{Kind: "trouble", T: speaks(c), Title: speaks(c).Unwell, Text: speaks(c).UnwellText})
	}
	shop := c.Scheme() + "://" + r.Host + Path + "?lang=" + b.language.tag
	id, err := h.shop.order(r.Context(), b, shop)
	if err != nil {
		return h.unwell(c, b.language, err)
	}
	return c.Redirect(http.StatusSeeOther, ordersPath+id+"?lang="+b.language.tag)
}

// fromOwnPage refuses what another page has a browser send here.
func fromOwnPage(r *http.Request) error {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return apierr.New(apierr.AuthorizationRequired, "this is the form of the demo shop, and the request comes from another page")
	}
	return nil
}

// unwell shows that an order is not there, or that the API did not answer.
func (h *handler) unwell(c echo.Context, l *language, err error) error {
	if said, is := errors.AsType[*oncepay.Error](err); is && said.Code == oncepay.CodeCheckoutSessionNotFound {
		return h.show(c, http.StatusNotFound, view{Kind: "trouble", T: l, Title: l.Missing, Text: l.MissingText})
	}
	return h.show(c, http.StatusBadGateway, view{Kind: "trouble", T: l, Title: l.Unwell, Text: l.UnwellText})
}

// sessionOf is the session that a path names. What is none is not asked for.
func (h *handler) sessionOf(c echo.Context) (string, purchase, error) {
	id, err := uuid.Parse(c.Param("session"))
	if err != nil {
		return "", purchase{}, &oncepay.Error{Code: oncepay.CodeCheckoutSessionNotFound}
	}
	p, err := h.shop.purchase(c.Request().Context(), id.String())
	return id.String(), p, err
}

// checkout is GET /demo/orders/{session}: the page that is paid on.
func (h *handler) checkout(c echo.Context) error {
	l := speaks(c)
	id, p, err := h.sessionOf(c)
	if err != nil {
		return h.unwell(c, l, err)
	}
	if p.outcome == paid || p.outcome == over {
		return c.Redirect(http.StatusSeeOther, ordersPath+id+"/thanks?lang="+l.tag)
	}
	return h.show(c, http.StatusOK, h.orderView("checkout", l, id, p))
}

func (h *handler) orderView(kind string, l *language, id string, p purchase) view {
	amount := p.session.Amount
	total := amount.String()
	for _, seller := range languages { // the order keeps its currency, whatever language it is read in
		if seller.currency == amount.Currency {
			total = seller.write(amount.Value)
		}
	}
	return view{
		Kind: kind, T: l, Session: id, Country: p.session.Country, OrderID: p.session.MerchantOrderID,
		Quantity: p.quantity, Total: total, Outcome: p.outcome,
	}
}

// thanks is GET /demo/orders/{session}/thanks: whether it is paid, as the backend knows it.
func (h *handler) thanks(c echo.Context) error {
	l := speaks(c)
	id, p, err := h.sessionOf(c)
	if err != nil {
		return h.unwell(c, l, err)
	}
	v := h.orderView("thanks", l, id, p)
	switch p.outcome {
	case paid:
		v.Title, v.Text = l.Thanks, l.ThanksText
	case waiting:
		v.Title, v.Text = l.Waiting, l.WaitingText
	case failed:
		v.Title, v.Text = l.Failed, l.FailedText
	case unpaid:
		v.Title, v.Text = l.Unpaid, l.UnpaidText
	case over:
		v.Title, v.Text = l.Over, l.OverText
	}
	return h.show(c, http.StatusOK, v)
}

// status is GET /demo/orders/{session}/status, for a page that waits.
func (h *handler) status(c echo.Context) error {
	_, p, err := h.sessionOf(c)
	if err != nil {
		return h.notNow()
	}
	return answer(c, map[string]string{"outcome": string(p.outcome)})
}

// pay is POST /demo/orders/{session}/payments: the backend pays with the browser's token.
func (h *handler) pay(c echo.Context) error {
	r := c.Request()
	if err := fromOwnPage(r); err != nil {
		return err
	}
	var sent struct {
		Token string `json:"token"`
		Nonce string `json:"nonce"`
	}
	id, err := uuid.Parse(c.Param("session"))
	if err != nil || json.NewDecoder(http.MaxBytesReader(c.Response(), r.Body, maxForm)).Decode(&sent) != nil {
		return apierr.New(apierr.InvalidRequest, "this is not what the demo shop's page sends")
	}
	back := c.Scheme() + "://" + r.Host + payPath + id.String()
	if err := h.shop.pay(r.Context(), id.String(), sent.Token, sent.Nonce, back); err != nil {
		return h.notNow()
	}
	return answer(c, map[string]bool{"sent": true})
}

// notNow is for the shop's own script, which asks again.
func (h *handler) notNow() error {
	return apierr.New(apierr.ServiceUnavailable, "the demo shop got no answer that it could use").Retry(1)
}

func answer(c echo.Context, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return httpapi.JSON(c, http.StatusOK, body)
}

// asset is GET /demo/assets/{file}.
func asset(c echo.Context) error {
	found, _ := files()
	f, ok := found[c.Request().URL.Path]
	if !ok {
		return apierr.New(apierr.NotFound, "there is no such file")
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "public, max-age=31536000, immutable")
	return c.Blob(http.StatusOK, f.contentType, f.body)
}
