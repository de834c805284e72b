package checkout

import (
	"time"

	"github.com/google/uuid"
)

// Method is a card that a customer keeps with a merchant. Its id is the vaulted token.
type Method struct {
	AccountID     uuid.UUID
	ID            uuid.UUID
	Mode          string
	CustomerID    uuid.UUID
	Status        string // of the enrolment, the contract's
	Country       string
	Provider      string
	ProviderToken string
	Card          string // transactions.KeptCard, as JSON text
	LastUsedAt    *time.Time
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// enrolled is the status of a card that can be paid with.
const enrolled = "ENROLLED"
