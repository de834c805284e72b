// Package docs holds the pages that the program itself serves; the others are for
// readers of the repository. Its tests hold what all of them say against the code.
package docs

import _ "embed"

// Errors is errors.md: what each error code means, one section a code. A doc_url
// leads to it.
//
//go:embed errors.md
var Errors []byte

// Specification is reference/idempotency-key.md: what an idempotency key is, as the
// standard draft asks a server to publish it.
//
//go:embed reference/idempotency-key.md
var Specification []byte
