package httpapi

import (
	"strconv"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
)

// Pages of lists.
const (
	defaultPage = 20
	maxPage     = 100
)

// Page reads ?limit= and ?after=. Without a limit it is 20; after is uuid.Nil on the
// first page.
func Page(c echo.Context) (limit int, after uuid.UUID, err error) {
	limit = defaultPage
	if s := c.QueryParam("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > maxPage {
			return 0, uuid.Nil, apierr.New(apierr.InvalidParameters, "limit must be a whole number from 1 to 100")
		}
	}
	if s := c.QueryParam("after"); s != "" {
		if after, err = uuid.Parse(s); err != nil {
			return 0, uuid.Nil, apierr.New(apierr.InvalidParameters, "after must be a cursor from a Link header")
		}
	}
	return limit, after, nil
}

// LinkNext says where the next page is: behind the last entry of this one.
func LinkNext(c echo.Context, after string) {
	u := *c.Request().URL
	q := u.Query()
	q.Set("after", after)
	u.RawQuery = q.Encode()
	c.Response().Header().Set("Link", "<"+u.RequestURI()+`>; rel="next"`)
}
