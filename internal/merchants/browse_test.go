package merchants

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
)

func TestMerchantsAndKeysAreReadByPages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var accounts []uuid.UUID
	for range 5 {
		m, _, err := b.Create(t.Context(), "Shop", "")
		if err != nil {
			t.Fatal(err)
		}
		accounts = append(accounts, m.AccountID)
	}
	slices.Reverse(accounts) // the newest first
	var keys []uuid.UUID
	for range 4 {
		pair, err := b.CreateKey(t.Context(), accounts[0], Live)
		if err != nil {
			t.Fatal(err)
		}
		keys = append([]uuid.UUID{pair.ID}, keys...)
	}
	for _, c := range []struct {
		after uuid.UUID
		limit int
		want  []uuid.UUID
		more  bool
	}{
		{uuid.Nil, 2, accounts[:2], true},
		{accounts[1], 2, accounts[2:4], true},
		{accounts[3], 2, accounts[4:], false},
		{accounts[2], 2, accounts[3:], false},
		{uuid.Nil, 5, accounts, false},
		{uuid.Max, 9, accounts, false},
		{accounts[4], 2, nil, false},
	} {
		ms, more, err := b.Merchants(t.Context(), c.after, c.limit)
		got := make([]uuid.UUID, len(ms))
		for i, m := range ms {
			got[i] = m.AccountID
		}
		if err != nil || more != c.more || !slices.Equal(got, c.want) {
			t.Errorf("%d merchants after %s: got %v, %t (%v)", c.limit, c.after, got, more, err)
		}
	}
	ks, more, err := b.Keys(t.Context(), accounts[0], uuid.Nil, 4)
	if err != nil || !more || len(ks) != 4 || ks[0].ID != keys[0] {
		t.Errorf("got %v, %t (%v)", ks, more, err)
	}
	ks, more, err = b.Keys(t.Context(), accounts[0], keys[3], 4)
	if err != nil || more || len(ks) != 1 || ks[0].Mode != Test { // the first one
		t.Errorf("got %v, %t (%v)", ks, more, err)
	}
	if k, err := b.Key(t.Context(), accounts[0], keys[2]); err != nil || k.ID != keys[2] || k.AccountID != accounts[0] {
		t.Errorf("got %v (%v)", k, err)
	}
}

func TestWhatIsNotThereIsNotRead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m, pair, err := b.Create(t.Context(), "Shop", "")
	if err != nil {
		t.Fatal(err)
	}
	nobody := uuid.New()
	_, noMerchant := b.Merchant(t.Context(), nobody)
	_, _, noKeys := b.Keys(t.Context(), nobody, uuid.Nil, 1)
	_, noKey := b.Key(t.Context(), m.AccountID, uuid.New())
	_, othersKey := b.Key(t.Context(), nobody, pair.ID)
	for i, err := range []error{noMerchant, noKeys, noKey, othersKey} {
		if e, ok := apierr.From(err); !ok || e.Code != apierr.NotFound {
			t.Errorf("%d: got %v", i, err)
		}
	}
}

// A machine's clock may be wrong by hours; keys end by the database's.
func TestDatabaseTimeIsTheDatabasesClock(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, s := b.instance()
	later(s, 5*time.Hour)
	if got := s.DatabaseTime(); got.Before(time.Now().Add(4 * time.Hour)) {
		t.Errorf("before the first refresh it is %s", got)
	}
	if _, err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if off := time.Since(s.DatabaseTime()); off < -time.Minute || off > time.Minute {
		t.Errorf("it is %s off", off)
	}
	before := s.DatabaseTime()
	later(s, time.Hour)
	if on := s.DatabaseTime().Sub(before); on < time.Hour || on > time.Hour+time.Minute {
		t.Errorf("in an hour it went on by %s", on)
	}
}

func TestPoliciesCannotBeChangedByWhoReadsThem(t *testing.T) {
	t.Parallel()
	s := NewService(nil, slices.Clone(testPolicies))
	s.Policies()[0] = "another"
	if got := s.Policies(); !slices.Equal(got, testPolicies) {
		t.Errorf("they are %v", got)
	}
}

func TestNetworksAreReadByTheirPlace(t *testing.T) {
	t.Parallel()
	got, err := ParseNetworks([]string{"2001:db8::1", "203.0.113.9/24", "203.0.113.0/24"})
	want := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::1/128")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v (%v)", got, err)
	}
	for want, texts := range map[string][]string{
		"$.allowed_networks must be a list of 1 to 50 networks, or null": nil,
		"$.allowed_networks[1] must be a network":                        {"203.0.113.0/24", "shop.example"},
		"$.allowed_networks[0] must be a network":                        {""},
	} {
		if _, err := ParseNetworks(texts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", texts, err)
		}
	}
	if _, err := ParseNetworks(slices.Repeat([]string{"203.0.113.7"}, maxNetworks+1)); err == nil {
		t.Error("a list that is too long was read")
	}
}
