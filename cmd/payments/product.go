//go:build !faultpoints

package main

import (
	"time"

	"github.com/oncepay/oncepay/internal/providers/sandbox"
)

// purgeEvery is how often expired lives are looked for; a full batch is followed
// by the next at once.
const purgeEvery = time.Minute

// withheld keeps nothing back: the engine may rely on all that the sandbox can do.
func withheld() sandbox.Withhold { return sandbox.Withhold{} }
