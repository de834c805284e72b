// Build makes the browser SDK and the pay page's script from their TypeScript source.
//
//	go run ./sdk/js/build
//
// It needs no Node: esbuild is a library here. What it makes is committed, so that the
// product is built with Go alone, and a test compares.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/evanw/esbuild/pkg/api"
)

// bundle is one script: from its first source file to where it is kept, both below the
// repository's root.
type bundle struct{ entry, output string }

// bundles are all scripts that browsers get.
var bundles = []bundle{
	{"sdk/js/src/sdk.ts", "sdk/js/dist/oncepay.js"},
	{"sdk/js/src/pay/main.ts", "internal/checkout/web/pay.js"},
}

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err) //nolint:forbidigo // a program of its own
		os.Exit(1)                             //nolint:forbidigo // the same
	}
}

// run builds every bundle of the repository at root.
func run(root string) error {
	for _, b := range bundles {
		script, err := build(root, b)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, b.output), script, 0o644); err != nil { //nolint:gosec // a source file for everybody
			return fmt.Errorf("write a bundle: %w", err)
		}
	}
	return nil
}

// build makes one script. The same source gives the same bytes on every machine.
func build(root string, b bundle) ([]byte, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	result := api.Build(api.BuildOptions{
		AbsWorkingDir:     root,
		EntryPoints:       []string{b.entry},
		Outfile:           b.output,
		Bundle:            true,
		Format:            api.FormatIIFE,
		Target:            api.ES2020, // browsers since 2020
		MinifySyntax:      true,
		MinifyWhitespace:  true,
		MinifyIdentifiers: true,
		Charset:           api.CharsetUTF8,
		LegalComments:     api.LegalCommentsNone,
		TsconfigRaw:       `{"compilerOptions":{"strict":true,"verbatimModuleSyntax":true}}`,
		Banner:            map[string]string{"js": "/* Oncepay. Built from sdk/js/src by go run ./sdk/js/build; don't edit. */"},
		LogLevel:          api.LogLevelSilent,
	})
	if len(result.Errors) > 0 {
		var all []error
		for _, text := range api.FormatMessages(result.Errors, api.FormatMessagesOptions{}) {
			all = append(all, errors.New(text))
		}
		return nil, errors.Join(all...)
	}
	if len(result.OutputFiles) != 1 {
		return nil, fmt.Errorf("%s makes %d files", b.entry, len(result.OutputFiles))
	}
	return result.OutputFiles[0].Contents, nil
}
