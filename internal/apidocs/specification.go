package apidocs

import (
	"bytes"
	_ "embed"
	"html/template"
	"strings"

	"github.com/oncepay/oncepay/internal/apierr"
)

//go:embed specification.html
var specificationHTML string

// addSpecification makes the page of what an idempotency key is.
func (s *site) addSpecification(source []byte, style string) error {
	t, err := template.New("specification").Parse(specificationHTML)
	if err != nil {
		return err
	}
	title, body, _ := strings.Cut(string(source), "\n")
	text, err := specificationText.html(body)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]any{
		"Title": strings.TrimPrefix(title, "# "), "Text": text, "Style": style,
		"Index": errorIndexPath, "Reference": referencePath, "Specification": apierr.SpecificationPath,
	}); err != nil {
		return err
	}
	s.specification, err = newPage(textPolicy, b.Bytes())
	return err
}
