// Package api is the API's contract: openapi.yaml, written by hand. Nothing is
// generated from it; tests hold it against what the code does.
package api

import _ "embed"

// Document is openapi.yaml, OpenAPI 3.1.
//
//go:embed openapi.yaml
var Document []byte
