package apidocs

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

// Mount adds the document, the reference, the error pages and the specification. They
// need no credentials: they say nothing that is not in the repository. An error's
// doc_url leads to the listener that answered with it, so each listener needs them.
func Mount(e *echo.Echo) {
	e.GET(documentPath, serve(func(s *site, _ echo.Context) *file { return s.document }))
	e.GET(referencePath, serve(func(s *site, _ echo.Context) *file { return s.reference }))
	e.GET(assetsPath+":file", serve(func(s *site, c echo.Context) *file { return s.assets[c.Param("file")] }))
	e.GET(errorIndexPath, serve(func(s *site, _ echo.Context) *file { return s.errorIndex }))
	e.GET(apierr.SpecificationPath, serve(func(s *site, _ echo.Context) *file { return s.specification }))
	e.GET(apierr.DocPath(":code"), serve(func(s *site, c echo.Context) *file { return s.errorPages[c.Param("code")] }))
}

// serve answers with what find finds, or with 404.
func serve(find func(s *site, c echo.Context) *file) echo.HandlerFunc {
	return func(c echo.Context) error {
		s, err := built()
		if err != nil {
			return err
		}
		f := find(s, c)
		if f == nil {
			return apierr.New(apierr.NotFound, "there is no such page")
		}
		return f.send(c)
	}
}

// send answers with the file, in the form that the client understands, or with 304
// if it has that already.
func (f *file) send(c echo.Context) error {
	zipped := acceptsGzip(c.Request().Header.Values(echo.HeaderAcceptEncoding))
	tag := `"` + f.hash + `"`
	if zipped {
		tag = `"` + f.hash + `-gzip"` // another form is another representation
	}
	h := c.Response().Header()
	h.Set(echo.HeaderCacheControl, f.cacheControl)
	h.Set(echo.HeaderVary, echo.HeaderAcceptEncoding)
	h.Set("ETag", tag)
	if f.policy != "" {
		h.Set(echo.HeaderContentSecurityPolicy, f.policy)
	}
	if f.isKnown(c.Request().Header.Values("If-None-Match")) {
		return c.NoContent(http.StatusNotModified)
	}
	if zipped {
		h.Set(echo.HeaderContentEncoding, "gzip")
		h.Set(echo.HeaderContentLength, strconv.Itoa(len(f.zipped)))
		return c.Blob(http.StatusOK, f.contentType, f.zipped)
	}
	if f.plain == nil {
		r, err := gzip.NewReader(bytes.NewReader(f.zipped))
		if err != nil {
			return err
		}
		return c.Stream(http.StatusOK, f.contentType, r)
	}
	h.Set(echo.HeaderContentLength, strconv.Itoa(len(f.plain)))
	return c.Blob(http.StatusOK, f.contentType, f.plain)
}

// isKnown reports whether one of the client's tags is this file's, in either form:
// who has one of them has the contents.
func (f *file) isKnown(ifNoneMatch []string) bool {
	for tag := range strings.SplitSeq(strings.Join(ifNoneMatch, ","), ",") {
		tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
		if tag == "*" || strings.TrimSuffix(tag, "-gzip") == f.hash {
			return true
		}
	}
	return false
}

// acceptsGzip reads Accept-Encoding. A weight of 0 refuses, others don't matter:
// we have nothing else to offer.
func acceptsGzip(acceptEncoding []string) bool {
	other := false
	for part := range strings.SplitSeq(strings.Join(acceptEncoding, ","), ",") {
		coding, parameter, _ := strings.Cut(part, ";")
		weight, isWeight := strings.CutPrefix(strings.ToLower(strings.TrimSpace(parameter)), "q=")
		q, err := strconv.ParseFloat(weight, 64)
		accepted := !isWeight || (err == nil && q > 0)
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			return accepted
		case "*":
			other = accepted
		}
	}
	return other
}
