package checkout

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// workshop is a shop with one route of a change whose steps a test looks at, on a server of
// its own, because the API document does not know it. One step is done at a time.
type workshop struct {
	*shop
	prepared, worked    int
	failPrepare, failIt error
	bodyless            bool
}

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	w := &workshop{shop: newShop(t)}
	h := w.handler
	e := httpapi.New(httpapi.Options{Log: slog.New(slog.DiscardHandler), Transient: postgres.IsTransient, Describe: postgres.Describe})
	h.changes(e, idem.Route{Method: http.MethodPost, Path: "/v1/things/:thing", Creates: true}, func(c echo.Context) (change, error) {
		ch := change{
			target: c.Param("thing"),
			read: func(body jsontree.Value) error {
				if body.Get("bad").Given() {
					return apierr.New(apierr.InvalidParameters, "$.bad is")
				}
				return nil
			},
			prepare: func(context.Context) error {
				w.prepared++
				return w.failPrepare
			},
			work: func(tx postgres.Tx) (int, any, error) {
				w.worked++
				id := uuid.New()
				err := tx.Exec(`/* test.work */ INSERT INTO instances (id) VALUES ($1::uuid)`, id).Error
				return http.StatusCreated, map[string]any{"id": id}, errors.Join(err, w.failIt)
			},
		}
		if w.bodyless {
			ch.read = nil
		}
		return ch, nil
	})
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	w.api = s
	return w
}

// steps fails the test unless so many were done since it was last called.
func (w *workshop) steps(prepared, worked int) {
	w.t.Helper()
	if w.prepared != prepared || w.worked != worked {
		w.t.Errorf("it was prepared %d times and done %d times, want %d and %d", w.prepared, w.worked, prepared, worked)
	}
	w.prepared, w.worked = 0, 0
}

func (w *workshop) post(thing, body string, headers ...string) reply {
	return w.ask(w.test, http.MethodPost, "/v1/things/"+thing, body, headers...)
}

// A provider is asked where there is no answer yet, and not for what is refused anyway.
func TestChangeIsPreparedWhereTheNonceHasNoAnswer(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.refused(w.post("a", `{"bad":1}`, idem.Header, "n-1"), apierr.InvalidParameters)
	w.steps(0, 0)
	w.failPrepare = apierr.New(apierr.ProviderUnavailable, "the bank is closed").Retry(1)
	w.refused(w.post("a", `{}`, idem.Header, "n-1"), apierr.ProviderUnavailable)
	w.steps(1, 0)
	w.failPrepare, w.failIt = nil, apierr.New(apierr.InvalidState, "not now")
	w.refused(w.post("a", `{}`, idem.Header, "n-1"), apierr.InvalidState)
	w.steps(1, 1)
	w.failIt = nil
	first := w.post("a", `{}`, idem.Header, "n-1")
	w.customer(first, http.StatusCreated)
	w.steps(1, 1)
	for _, body := range []string{`{}`, `{"other":1}`, `{"bad":1}`} {
		if r := w.post("a", body, idem.Header, "n-1"); r.status != first.status || string(r.body) != string(first.body) || r.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	w.refused(w.post("b", `{}`, idem.Header, "n-1"), apierr.IdempotencyKeyReused)
	w.steps(0, 0)
	if n := w.count(`SELECT count(*) FROM instances`); n != 1 {
		t.Errorf("%d rows of work stay", n)
	}
}

// What is not JSON by its type is refused, whatever the nonce has.
func TestChangeThatIsNoJSONIsRefusedEvenThen(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.customer(w.post("a", `{}`, idem.Header, "n-1"), http.StatusCreated)
	w.refused(w.post("a", `{}`, idem.Header, "n-1", "Content-Type", "text/plain"), apierr.UnsupportedMediaType)
	w.refused(w.post("a", `"`+strings.Repeat("a", httpapi.MaxBody)+`"`, idem.Header, "n-1"), apierr.RequestTooLarge)
}

func TestChangeWithoutABodyNeedsNone(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.bodyless = true
	first := w.post("a", "", idem.Header, "n-1")
	w.customer(first, http.StatusCreated)
	for _, body := range []string{"", "{"} { // nobody reads it
		if r := w.post("a", body, idem.Header, "n-1"); string(r.body) != string(first.body) || r.header.Get("Idempotency-Body-Mismatch") != "" {
			t.Errorf("%q: %d %s", body, r.status, r.body)
		}
	}
	w.steps(1, 1)
}

// With a nonce, it is right to ask again at once; without one, it is not.
func TestChangeThatFailsUnforeseenSaysWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	pgtest.Exec(t, w.url, `ALTER TABLE instances RENAME TO away`) // which nobody foresaw
	with, without := w.post("a", `{}`, idem.Header, "n-1"), w.post("a", `{}`)
	if m := w.refused(with, apierr.InternalError); !strings.HasSuffix(m[0], "retry with the same key") {
		t.Errorf("with a nonce it is told %q", m)
	}
	if m := w.refused(without, apierr.InternalError); !strings.HasSuffix(m[0], "look whether it is there before you send it again") {
		t.Errorf("without a nonce it is told %q", m)
	}
	pgtest.Exec(t, w.url, `ALTER TABLE away RENAME TO instances`)
	w.customer(w.post("a", `{}`, idem.Header, "n-1"), http.StatusCreated)
}
