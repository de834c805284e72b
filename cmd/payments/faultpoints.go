//go:build faultpoints

package main

import (
	"os"
	"slices"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/providers/sandbox"
)

// purgeEvery is short in the campaign: it must meet the purge, and often.
const purgeEvery = time.Second

// withheld are the traits that the campaign wants the sandbox's adapter not to have.
func withheld() sandbox.Withhold {
	names := strings.Split(os.Getenv(faultpoint.EnvWithhold), ",")
	return sandbox.Withhold{
		Idempotent: slices.Contains(names, "idempotent"),
		Queryable:  slices.Contains(names, "queryable"),
		CanVoid:    slices.Contains(names, "can_void"),
	}
}
