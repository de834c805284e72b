package apidocs

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"

	"github.com/oncepay/oncepay/internal/apierr"
)

// scalar is the reference page's program; scalar/README.md says whose it is.
//
//go:embed scalar/standalone.js.gz
var scalar []byte

//go:embed reference.html
var referenceHTML string

// referencePolicy is for the reference page alone. Scripts come from us, and
// nothing is evaluated. Styles have to be 'unsafe-inline': Scalar puts its style
// sheet into the page by script and sets style attributes, which neither a nonce
// nor a hash can allow. It may ask for the document, and for nothing else anywhere.
const referencePolicy = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// scalarConfiguration leaves Scalar's reference, and nothing that would speak to
// anybody: each service of its makers is switched off by name, so that the page
// does not even try what the policy forbids. There is no button to send requests,
// either: it would ask for a secret key, and charge a card.
var scalarConfiguration = map[string]any{
	"url":                   documentPath,
	"theme":                 "default",
	"withDefaultFonts":      false, // would come from fonts.scalar.com
	"telemetry":             false,
	"agent":                 map[string]any{"disabled": true}, // a chat on their servers
	"mcp":                   map[string]any{"disabled": true},
	"showDeveloperTools":    "never", // shares the document with their servers
	"proxyUrl":              "",
	"hideClientButton":      true,
	"hideTestRequestButton": true,
	"persistAuth":           false,
	"documentDownloadType":  "direct", // a link to /openapi.yaml
	"defaultHttpClient":     map[string]any{"targetKey": "shell", "clientKey": "curl"},
	"modelsSectionLabel":    "Schemas",
	// An object's members in the order in which the document explains them.
	"orderSchemaPropertiesBy":      "preserve",
	"orderRequiredPropertiesFirst": false,
	// Its tables would break words to have columns of one width, and never scroll.
	"customCss": ".scalar-app .markdown table { display: block; table-layout: auto; }" +
		".scalar-app .markdown :is(th, td) { word-break: normal; padding: 8px 10px; }",
}

// addReference adds the reference page and its program.
func (s *site) addReference() error {
	configuration, err := json.Marshal(scalarConfiguration)
	if err != nil {
		return err
	}
	// Its name has the hash of the packed form: unpacking 4 MB to hash them would
	// tell nothing more.
	program := s.keepAsset("scalar", ".js", &file{
		contentType: "text/javascript; charset=utf-8", hash: hashOf(scalar), zipped: scalar,
	})
	page, err := template.New("reference").Parse(referenceHTML)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := page.Execute(&b, map[string]string{
		"Program": program, "Configuration": string(configuration), "Document": documentPath, "Errors": errorIndexPath,
		"Specification": apierr.SpecificationPath,
	}); err != nil {
		return err
	}
	s.reference, err = newPage(referencePolicy, b.Bytes())
	return err
}
