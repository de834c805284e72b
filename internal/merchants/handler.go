package merchants

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/jsontree"
)

// OperatorHandler is how an operator looks after merchants and keys.
type OperatorHandler struct{ service *Service }

// NewOperatorHandler makes the handler.
func NewOperatorHandler(s *Service) *OperatorHandler { return &OperatorHandler{s} }

// Mount adds the routes to g, which is authenticated already.
func (h *OperatorHandler) Mount(g *echo.Group) {
	g.POST("/merchants", h.create)
	g.GET("/merchants", h.list)
	g.GET("/merchants/:account_id", h.get)
	g.PATCH("/merchants/:account_id", h.update)
	g.POST("/merchants/:account_id/disable", h.disable)
	g.POST("/merchants/:account_id/enable", h.enable)
	g.POST("/merchants/:account_id/keys", h.createKey)
	g.GET("/merchants/:account_id/keys", h.listKeys)
	g.PATCH("/merchants/:account_id/keys/:key_id", h.restrict)
	g.POST("/merchants/:account_id/keys/:key_id/rotate", h.rotate)
	g.POST("/merchants/:account_id/keys/:key_id/revoke", h.revoke)
}

// create is POST /admin/v1/merchants.
func (h *OperatorHandler) create(c echo.Context) error {
	body, err := httpapi.Object(c)
	if err != nil {
		return err
	}
	name, err := text(body.Get("name"), true)
	if err != nil {
		return err
	}
	policy, err := h.policy(body)
	if err != nil {
		return err
	}
	origins, err := originList(body.Get("origins"))
	if err != nil {
		return err
	}
	m, pair, err := h.service.Create(c.Request().Context(), name, policy, origins...)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusCreated, struct {
		AccountID         string   `json:"account_id"`
		Name              string   `json:"name"`
		IdempotencyPolicy string   `json:"idempotency_policy"`
		Origins           []string `json:"origins"`
		APIKey            shownKey `json:"api_key"`
	}{m.AccountID.String(), m.Name, m.IdempotencyPolicy, append([]string{}, m.Origins...), shown(pair, nil)})
}

// list is GET /admin/v1/merchants, the newest first.
func (h *OperatorHandler) list(c echo.Context) error {
	limit, after, err := httpapi.Page(c)
	if err != nil {
		return err
	}
	ms, more, err := h.service.Merchants(c.Request().Context(), after, limit)
	if err != nil {
		return err
	}
	if more {
		httpapi.LinkNext(c, ms[limit-1].AccountID.String())
	}
	views := make([]wireMerchant, len(ms))
	for i, m := range ms {
		views[i] = m.wire()
	}
	return httpapi.Answer(c, http.StatusOK, views)
}

// get is GET /admin/v1/merchants/{account_id}.
func (h *OperatorHandler) get(c echo.Context) error {
	account, err := accountOf(c)
	if err != nil {
		return err
	}
	m, err := h.service.Merchant(c.Request().Context(), account)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusOK, m.wire())
}

// update is PATCH /admin/v1/merchants/{account_id}.
func (h *OperatorHandler) update(c echo.Context) error {
	account, err := accountOf(c)
	if err != nil {
		return err
	}
	body, err := httpapi.Object(c)
	if err != nil {
		return err
	}
	var u Update
	if body.Get("name").Given() {
		name, err := text(body.Get("name"), true)
		if err != nil {
			return err
		}
		u.Name = &name
	}
	if body.Get("idempotency_policy").Given() {
		policy, err := h.policy(body)
		if err != nil {
			return err
		}
		u.IdempotencyPolicy = &policy
	}
	if u.Origins, err = originList(body.Get("origins")); err != nil {
		return err
	}
	m, err := h.service.Update(c.Request().Context(), account, u)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusOK, m.wire())
}

// disable is POST /admin/v1/merchants/{account_id}/disable.
func (h *OperatorHandler) disable(c echo.Context) error { return h.setDisabled(c, true) }

// enable is POST /admin/v1/merchants/{account_id}/enable.
func (h *OperatorHandler) enable(c echo.Context) error { return h.setDisabled(c, false) }

func (h *OperatorHandler) setDisabled(c echo.Context, disabled bool) error {
	account, err := accountOf(c)
	if err != nil {
		return err
	}
	if _, err := httpapi.OptionalObject(c); err != nil {
		return err
	}
	m, err := h.service.SetDisabled(c.Request().Context(), account, disabled)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusOK, m.wire())
}

// createKey is POST /admin/v1/merchants/{account_id}/keys.
func (h *OperatorHandler) createKey(c echo.Context) error {
	account, err := accountOf(c)
	if err != nil {
		return err
	}
	body, err := httpapi.Object(c)
	if err != nil {
		return err
	}
	mode, err := text(body.Get("mode"), true)
	if err != nil {
		return err
	}
	networks, err := networkList(body.Get("allowed_networks"))
	if err != nil {
		return err
	}
	pair, err := h.service.CreateKey(c.Request().Context(), account, mode, networks...)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusCreated, shown(pair, networks))
}

// listKeys is GET /admin/v1/merchants/{account_id}/keys, the newest first.
func (h *OperatorHandler) listKeys(c echo.Context) error {
	account, err := accountOf(c)
	if err != nil {
		return err
	}
	limit, after, err := httpapi.Page(c)
	if err != nil {
		return err
	}
	ks, more, err := h.service.Keys(c.Request().Context(), account, after, limit)
	if err != nil {
		return err
	}
	if more {
		httpapi.LinkNext(c, ks[limit-1].ID.String())
	}
	views := make([]wireKey, len(ks))
	for i, k := range ks {
		views[i] = k.wire()
	}
	return httpapi.Answer(c, http.StatusOK, views)
}

// restrict is PATCH /admin/v1/merchants/{account_id}/keys/{key_id}.
func (h *OperatorHandler) restrict(c echo.Context) error {
	account, id, err := keyOf(c)
	if err != nil {
		return err
	}
	body, err := httpapi.Object(c)
	if err != nil {
		return err
	}
	v := body.Get("allowed_networks")
	if v.Kind() == jsontree.Absent {
		return apierr.New(apierr.MissingParameters, v.Path()+" is required; null takes the list away")
	}
	networks, err := networkList(v)
	if err != nil {
		return err
	}
	k, err := h.service.Restrict(c.Request().Context(), account, id, networks)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusOK, k.wire())
}

// rotate is POST /admin/v1/merchants/{account_id}/keys/{key_id}/rotate.
func (h *OperatorHandler) rotate(c echo.Context) error {
	account, id, err := keyOf(c)
	if err != nil {
		return err
	}
	body, err := httpapi.OptionalObject(c)
	if err != nil {
		return err
	}
	overlap, err := overlapOf(body.Get("overlap_seconds"))
	if err != nil {
		return err
	}
	successor, old, err := h.service.Rotate(c.Request().Context(), account, id, overlap)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusCreated, struct {
		shownKey
		Replaces wireKey `json:"replaces"`
	}{shown(successor, old.Networks), old.wire()})
}

// revoke is POST /admin/v1/merchants/{account_id}/keys/{key_id}/revoke.
func (h *OperatorHandler) revoke(c echo.Context) error {
	account, id, err := keyOf(c)
	if err != nil {
		return err
	}
	if _, err := httpapi.OptionalObject(c); err != nil {
		return err
	}
	k, err := h.service.Revoke(c.Request().Context(), account, id)
	if err != nil {
		return err
	}
	return httpapi.Answer(c, http.StatusOK, k.wire())
}

// wireMerchant is a merchant as an operator sees it.
type wireMerchant struct {
	AccountID         string   `json:"account_id"`
	Name              string   `json:"name"`
	IdempotencyPolicy string   `json:"idempotency_policy"`
	Origins           []string `json:"origins"`
	CreatedAt         string   `json:"created_at"`
	DisabledAt        *string  `json:"disabled_at"`
}

func (m Merchant) wire() wireMerchant {
	return wireMerchant{m.AccountID.String(), m.Name, m.IdempotencyPolicy, m.Origins, httpapi.Timestamp(m.CreatedAt), httpapi.TimestampOrNull(m.DisabledAt)}
}

// wireKey is a key as an operator sees it from then on.
type wireKey struct {
	ID              string         `json:"id"`
	AccountID       string         `json:"account_id"`
	Mode            string         `json:"mode"`
	PublicAPIKey    string         `json:"public_api_key"`
	Status          Status         `json:"status"`
	CreatedAt       string         `json:"created_at"`
	LastUsedAt      *string        `json:"last_used_at"`
	ExpiresAt       *string        `json:"expires_at"`
	RevokedAt       *string        `json:"revoked_at"`
	AllowedNetworks []netip.Prefix `json:"allowed_networks"`
}

func (k Key) wire() wireKey {
	return wireKey{
		ID: k.ID.String(), AccountID: k.AccountID.String(), Mode: k.Mode, PublicAPIKey: k.PublicAPIKey, Status: k.Status,
		CreatedAt: httpapi.Timestamp(k.CreatedAt), LastUsedAt: httpapi.TimestampOrNull(k.LastUsedAt), ExpiresAt: httpapi.TimestampOrNull(k.ExpiresAt),
		RevokedAt: httpapi.TimestampOrNull(k.RevokedAt), AllowedNetworks: k.Networks,
	}
}

// shownKey is a key in the answer that made it, the only one that has the secret.
type shownKey struct {
	ID string `json:"id"`
	KeyPair
	AllowedNetworks []netip.Prefix `json:"allowed_networks"`
}

func shown(p KeyPair, networks []netip.Prefix) shownKey { return shownKey{p.ID.String(), p, networks} }

// accountOf is the merchant in the path.
func accountOf(c echo.Context) (uuid.UUID, error) {
	account, err := uuid.Parse(c.Param("account_id"))
	if err != nil {
		return uuid.Nil, errNoMerchant()
	}
	httpapi.LineOf(c).AccountID = account.String()
	return account, nil
}

// keyOf is the key in the path, and whose it is said to be.
func keyOf(c echo.Context) (account, id uuid.UUID, err error) {
	if account, err = accountOf(c); err != nil {
		return uuid.Nil, uuid.Nil, err
	}
	if id, err = uuid.Parse(c.Param("key_id")); err != nil {
		return uuid.Nil, uuid.Nil, errNoKey()
	}
	return account, id, nil
}

func text(v jsontree.Value, required bool) (string, error) {
	if !v.Given() {
		if required {
			return "", apierr.New(apierr.MissingParameters, v.Path()+" is required")
		}
		return "", nil
	}
	s, ok := v.Text()
	if !ok {
		return "", apierr.New(apierr.InvalidParameters, v.Path()+" must be a string")
	}
	return s, nil
}

// policy reads the name of a policy; empty if there is none. Whatever cannot be one is
// told the names that can.
func (h *OperatorHandler) policy(body jsontree.Value) (string, error) {
	v := body.Get("idempotency_policy")
	if !v.Given() {
		return "", nil
	}
	name, ok := v.Text()
	if !ok {
		return "", errNoPolicy(h.service.policies)
	}
	return name, nil
}

// networkList reads a list of networks; nil, all of them, where there is none.
func networkList(v jsontree.Value) ([]netip.Prefix, error) {
	if !v.Given() {
		return nil, nil
	}
	if v.Kind() != jsontree.Array || v.Len() > maxNetworks {
		return nil, errNetworks()
	}
	var texts []string
	for e := range v.Elements() {
		s, _ := e.Text() // what is no text is no network either
		texts = append(texts, s)
	}
	return ParseNetworks(texts)
}

// originList reads a list of origins, which the service checks; nil where there is none.
func originList(v jsontree.Value) ([]string, error) {
	if !v.Given() {
		return nil, nil
	}
	if v.Kind() != jsontree.Array || v.Len() > maxOrigins {
		return nil, errOrigins()
	}
	origins := []string{}
	for e := range v.Elements() {
		s, _ := e.Text() // what is no text is no origin either
		origins = append(origins, s)
	}
	return origins, nil
}

// overlapOf reads how long a key stays good that is rotated.
func overlapOf(v jsontree.Value) (time.Duration, error) {
	if !v.Given() {
		return DefaultOverlap, nil
	}
	number, _ := v.Number()
	seconds, err := strconv.Atoi(number)
	if err != nil || seconds < 0 || seconds > int(MaxOverlap.Seconds()) {
		seconds = -1 // what is refused anyway, without what a multiplication may make of it
	}
	overlap := time.Duration(seconds) * time.Second
	return overlap, validateOverlap(overlap)
}
