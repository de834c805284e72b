package console

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/operators"
)

// Handler serves the console.
type Handler struct{ o Options }

// NewHandler makes the console.
func NewHandler(o Options) *Handler { return &Handler{o} }

// Mount adds the pages to e, which is behind the gate.
func (h *Handler) Mount(e *echo.Echo) {
	e.GET(assetsPath+":file", sendAsset)
	h.mountSignIn(e)
	h.mountFront(e)
	h.mountNonces(e)
	h.mountSearch(e)
	h.mountPayments(e)
	h.mountPayment(e)
	h.mountUnsettled(e)
	h.mountMerchants(e)
	h.mountKeys(e)
	h.mountOperators(e)
	h.mountTokens(e)
	h.mountAudit(e)
}

// show answers with a page.
func (h *Handler) show(c echo.Context, status int, name string, p page) error {
	p.Who, p.Version = operators.PrincipalOf(c), h.o.Version
	body, err := render(name, "layout", p)
	if err != nil {
		return err
	}
	return sendPage(c, status, body)
}

// showPart answers htmx with a part of a page.
func (h *Handler) showPart(c echo.Context, name, part string, p page) error {
	p.Who, p.Version = operators.PrincipalOf(c), h.o.Version
	body, err := render(name, part, p)
	if err != nil {
		return err
	}
	return sendPage(c, http.StatusOK, body)
}

func sendPage(c echo.Context, status int, body []byte) error {
	header := c.Response().Header()
	header.Set(echo.HeaderContentSecurityPolicy, contentPolicy)
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	header.Add(echo.HeaderVary, "HX-Request")
	return c.HTMLBlob(status, body)
}

// seeOther leads on after a form was sent, so that reloading the page sends nothing again.
func seeOther(c echo.Context, path string) error {
	if fromScript(c) {
		c.Response().Header().Set("HX-Redirect", path)
		return c.NoContent(http.StatusNoContent)
	}
	return c.Redirect(http.StatusSeeOther, path)
}

// fromScript reports whether htmx asks, for a part of a page.
func fromScript(c echo.Context) bool { return c.Request().Header.Get("HX-Request") == "true" }

// problem is what the page of an error shows.
type problem struct {
	Status    int
	Code      apierr.Code
	Messages  []string
	RequestID string
}

// ShowError answers with an error as a page, or with its words where a script asked. Where
// nobody has signed in it leads to where they can, and from there back.
func (h *Handler) ShowError(c echo.Context, e *apierr.Error) error {
	r := c.Request()
	signingIn := c.Path() == pathSignIn && r.Method == http.MethodPost
	if e.Status == http.StatusUnauthorized && !signingIn {
		return seeOther(c, pathSignIn+after(c))
	}
	if e.Status == http.StatusUnauthorized {
		return h.showSignIn(c, e.Status, localPath(c.FormValue("next")), joined(e))
	}
	p := page{Title: "Error " + strconv.Itoa(e.Status), Data: problem{e.Status, e.Code, said(e), c.Response().Header().Get(echo.HeaderXRequestID)}}
	if !fromScript(c) {
		return h.show(c, e.Status, "problem", p)
	}
	body, err := render("problem", "words", p)
	if err != nil {
		return err
	}
	return sendPage(c, e.Status, body)
}

// after is the query by which the sign-in leads back to the page that somebody asked for, or
// whose script did; "" for the overview, and for what is no page.
func after(c echo.Context) string {
	next := c.Request().URL.RequestURI()
	if fromScript(c) {
		page, err := url.Parse(c.Request().Header.Get("HX-Current-URL"))
		if err != nil {
			return ""
		}
		next = page.RequestURI()
	}
	if c.Request().Method != http.MethodGet || c.Path() == "" || localPath(next) == "/" {
		return ""
	}
	return "?" + url.Values{"next": {next}}.Encode()
}

// sendAsset is GET /assets/{file}.
func sendAsset(c echo.Context) error {
	f, err := builtFiles()
	if err != nil {
		return err
	}
	file, ok := f.byName[c.Param("file")]
	if !ok {
		return apierr.New(apierr.NotFound, "there is no such file")
	}
	header := c.Response().Header()
	header.Set(echo.HeaderCacheControl, "public, max-age=31536000, immutable")
	header.Set(echo.HeaderVary, echo.HeaderAcceptEncoding)
	if strings.Contains(c.Request().Header.Get(echo.HeaderAcceptEncoding), "gzip") {
		header.Set(echo.HeaderContentEncoding, "gzip")
		return c.Blob(http.StatusOK, file.contentType, file.zipped)
	}
	return c.Blob(http.StatusOK, file.contentType, file.body)
}
