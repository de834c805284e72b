//go:build race

package transactions

// underRace says that the race detector watches.
const underRace = true
