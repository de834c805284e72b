// Package js holds the browser SDK as it is served. Its source is TypeScript, in src/;
// build/ makes dist/oncepay.js and the pay page's script of it, and a test holds both
// against what a new build makes.
package js

import _ "embed"

// SDK is the script that merchants' pages load.
//
//go:embed dist/oncepay.js
var SDK []byte

// Types are the SDK's types, for TypeScript.
//
//go:embed dist/oncepay.d.ts
var Types []byte
