package checkout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/jsontree"
)

// maxProfile is how much may be known of a customer, in bytes of JSON: several times what
// all of its addresses and texts come to. customers_profile_bounded has the same number.
const maxProfile = 128 << 10

// Customer is somebody who buys from a merchant, in one mode.
type Customer struct {
	AccountID, ID uuid.UUID
	Mode          string
	// MerchantCustomerID is the merchant's own name for them, no two of whose customers in
	// one mode share it.
	MerchantCustomerID        string
	Profile                   Profile
	MerchantCustomerCreatedAt *time.Time // when the merchant says that they became one; nil: it doesn't
	CreatedAt, UpdatedAt      time.Time
}

// Profile is what describes a customer, by the names of the members. It is personal data:
// kept and given back, and never logged.
type Profile map[string]json.RawMessage

// The members of a profile that are texts, and those that are objects. We don't interpret
// them, and shops write what they like in them: only type, nesting and size are ours. (Its
// metadata, the last one, has a form of its own.)
var (
	profileTexts   = []string{"first_name", "last_name", "gender", "date_of_birth", "email", "nationality", "country"}
	profileObjects = []string{"document", "phone", "billing_address", "shipping_address"}
)

const profileMetadata = "metadata"

// customerChange is what a request says of a customer.
type customerChange struct {
	merchantCustomerID string  // "": nothing
	profile            Profile // a nil member is cleared; one that is not there stays

	saysCreatedAt bool
	createdAt     *time.Time // nil: cleared
}

// parseCustomer reads what is said of a customer, who is new or not. To leave a member out
// and to set it to null differ only where there may be something to clear.
func parseCustomer(body jsontree.Value, isNew bool) (customerChange, error) {
	var v fields.Checker
	if body.Kind() != jsontree.Object {
		v.Fail(apierr.InvalidRequest, body, "must be an object")
		return customerChange{}, v.Err()
	}
	c := customerChange{profile: Profile{}}
	if id := body.Get("merchant_customer_id"); isNew || id.Kind() != jsontree.Absent {
		c.merchantCustomerID = v.RequiredText(id, 1, fields.MaxText)
	}
	says := func(name string, read func(at jsontree.Value) json.RawMessage) {
		if at := body.Get(name); at.Kind() != jsontree.Absent {
			c.profile[name] = read(at)
		}
	}
	for _, name := range profileTexts {
		says(name, func(at jsontree.Value) json.RawMessage { return descriptiveText(&v, at) })
	}
	for _, name := range profileObjects {
		says(name, v.Descriptive)
	}
	says(profileMetadata, v.Metadata)
	if at := body.Get("merchant_customer_created_at"); at.Kind() != jsontree.Absent {
		c.saysCreatedAt, c.createdAt = true, moment(&v, at)
	}
	return c, v.Err()
}

// descriptiveText reads an optional text that we keep and give back without reading it.
func descriptiveText(v *fields.Checker, at jsontree.Value) json.RawMessage {
	if !at.Given() {
		return nil
	}
	s, ok := at.Text()
	if !ok {
		v.Invalid(at, "must be a string")
	} else if utf8.RuneCountInString(s) > fields.MaxText {
		v.Invalid(at, "must have at most 255 characters")
	}
	return at.JSON()
}

// momentLayouts are how shops write a moment: as RFC 3339 has it, or a part of that. What
// says no offset means UTC.
var momentLayouts = []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly}

// moment reads an optional moment.
func moment(v *fields.Checker, at jsontree.Value) *time.Time {
	if !at.Given() {
		return nil
	}
	s, _ := at.Text()
	for _, layout := range momentLayouts {
		if t, err := time.Parse(layout, s); err == nil && t.Year() > 0 && t.UTC().Year() > 0 { // PostgreSQL has no year 0
			t = t.UTC().Truncate(time.Microsecond) // as PostgreSQL keeps it
			return &t
		}
	}
	v.Invalid(at, "must be a date and time as in RFC 3339")
	return nil
}

// of is a customer as they are from now on.
func (ch customerChange) of(c Customer) (Customer, error) {
	if ch.merchantCustomerID != "" {
		c.MerchantCustomerID = ch.merchantCustomerID
	}
	if ch.saysCreatedAt {
		c.MerchantCustomerCreatedAt = ch.createdAt
	}
	profile := Profile{}
	maps.Copy(profile, c.Profile)
	maps.Copy(profile, ch.profile)
	maps.DeleteFunc(profile, func(_ string, member json.RawMessage) bool { return member == nil })
	c.Profile = profile
	kept, err := profile.kept()
	if err == nil && len(kept) > maxProfile {
		err = apierr.New(apierr.InvalidParameters, fmt.Sprintf("$ must describe the customer in at most %d bytes, what is known of them included", maxProfile))
	}
	return c, err
}

// says whether ch changes anything at all.
func (ch customerChange) says() bool {
	return ch.merchantCustomerID != "" || ch.saysCreatedAt || len(ch.profile) > 0
}

// kept is a profile as it is stored.
func (p Profile) kept() (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // nothing grows on its way into the database
	if err := e.Encode(p); err != nil {
		return "", fmt.Errorf("encode a profile") // the cause may quote it
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

func errNoCustomer() error {
	return apierr.New(apierr.CustomerNotFound, "there is no customer with this id")
}

func errSameCustomer() error {
	return apierr.New(apierr.CustomerIDDuplicated, "$.merchant_customer_id is that of another customer")
}
