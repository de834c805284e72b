package checkout

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

// FindPageSession finds a session by its id alone, of any account and mode. false: there is none.
type FindPageSession func(ctx context.Context, id uuid.UUID) (PageSession, bool, error)

// PageHandler serves the pay page and the browser SDK. Both are for anybody: who knows a
// session's id may see what is to be paid, and pay it.
type PageHandler struct{ find FindPageSession }

// NewPageHandler makes the handler of pages whose sessions find finds.
func NewPageHandler(find FindPageSession) *PageHandler { return &PageHandler{find: find} }

// Mount adds the page, its files, and the SDK.
func (h *PageHandler) Mount(e *echo.Echo) {
	e.GET("/pay/:session", h.page)
	e.GET(assetsPath+":file", pageAsset)
	for _, path := range []string{sdkPath, sdkTypesPath, integrityPath} {
		e.GET(path, sdkFile)
	}
}

// page is GET /pay/{session}: HTML whatever happens, as a person reads it.
func (h *PageHandler) page(c echo.Context) error {
	language := pageLanguage(c.QueryParam("lang"), c.Request().Header.Get("Accept-Language"))
	id := idParam(c, "session")
	if id == uuid.Nil {
		return sendPage(c, http.StatusNotFound, PageSession{}, language, standsMissing)
	}
	s, found, err := h.find(c.Request().Context(), id)
	switch {
	case err != nil:
		if sent := sendPage(c, http.StatusServiceUnavailable, PageSession{}, language, standsUnavailable); sent != nil {
			return sent
		}
		return err // for the log; the answer is out
	case !found:
		return sendPage(c, http.StatusNotFound, PageSession{}, language, standsMissing)
	case s.Expired:
		return sendPage(c, http.StatusGone, s, language, standsExpired)
	}
	return sendPage(c, http.StatusOK, s, language, standsOpen)
}

// retrySoon is when a browser or a crawler may ask again for a page that could not be made, in
// seconds.
const retrySoon = 2

func sendPage(c echo.Context, status int, s PageSession, language string, how standing) error {
	body, err := renderPage(s, language, how)
	if err != nil {
		return err
	}
	if how == standsUnavailable {
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(retrySoon))
	}
	return sendHTML(c, status, body, s.Origins, language)
}

// sendHTML answers with a page in a language, which those origins may show in a frame.
func sendHTML(c echo.Context, status int, body []byte, origins []string, language string) error {
	header := c.Response().Header()
	header.Set(echo.HeaderContentSecurityPolicy, pagePolicy(origins))
	header.Set("Content-Language", language)
	header.Set(echo.HeaderVary, "Accept-Language")
	header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	return c.HTMLBlob(status, body)
}

// pageAsset is GET /pay/assets/{file}.
func pageAsset(c echo.Context) error {
	files, err := pageAssets()
	if err != nil {
		return err
	}
	file, current, ok := files.find(c.Param("file"))
	if !ok {
		return apierr.New(apierr.NotFound, "there is no such file")
	}
	caching := "no-store" // another release's name
	if current {
		caching = "public, max-age=31536000, immutable"
	}
	return sendFile(c, file, caching)
}

// sdkCaching lets browsers keep the SDK for an hour, and for a day longer while they ask for a
// newer one behind the page's back.
const sdkCaching = "public, max-age=3600, stale-while-revalidate=86400"

// sdkFile serves one of the SDK's files to pages of any origin.
func sdkFile(c echo.Context) error {
	files, err := sdkFiles()
	if err != nil {
		return err
	}
	header := c.Response().Header()
	header.Set(echo.HeaderAccessControlAllowOrigin, "*")
	header.Set("Cross-Origin-Resource-Policy", "cross-origin")
	return sendFile(c, files[c.Path()], sdkCaching)
}

// sendFile answers with a file, in the form that the browser takes, or with 304 if it has it in
// either.
func sendFile(c echo.Context, file asset, caching string) error {
	zipped := acceptsGzip(c.Request().Header.Get(echo.HeaderAcceptEncoding))
	body, tag := file.body, `"`+file.hash+`"`
	if zipped {
		body, tag = file.zipped, `"`+file.hash+`-gzip"` // another form is another representation
	}
	header := c.Response().Header()
	header.Set(echo.HeaderCacheControl, caching)
	header.Set(echo.HeaderVary, echo.HeaderAcceptEncoding)
	header.Set("ETag", tag)
	for known := range strings.SplitSeq(c.Request().Header.Get("If-None-Match"), ",") {
		known = strings.Trim(strings.TrimPrefix(strings.TrimSpace(known), "W/"), `"`)
		if known == "*" || strings.TrimSuffix(known, "-gzip") == file.hash {
			return c.NoContent(http.StatusNotModified)
		}
	}
	if zipped {
		header.Set(echo.HeaderContentEncoding, "gzip")
	}
	header.Set(echo.HeaderContentLength, strconv.Itoa(len(body)))
	return c.Blob(http.StatusOK, file.contentType, body)
}
