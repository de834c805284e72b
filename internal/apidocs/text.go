package apidocs

import (
	"bytes"
	_ "embed"
	"html/template"
	"path"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"github.com/oncepay/oncepay/internal/apierr"
)

// textPolicy: a page of text and its style sheet.
const textPolicy = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// repository is where the pages are that we don't serve.
const repository = "https://github.com/oncepay/oncepay/blob/main/"

// The pages of docs that are served, by where they are in the repository.
const (
	errorsFile        = "docs/errors.md"
	specificationFile = "docs/reference/idempotency-key.md"
)

//go:embed pages.css
var stylesheet []byte

// converter turns one of our own pages into HTML. Raw HTML in it would be left out.
type converter struct{ markdown goldmark.Markdown }

var errorsText, specificationText = converterOf(errorsFile), converterOf(specificationFile)

func converterOf(file string) converter {
	return converter{goldmark.New(
		goldmark.WithExtensions(extension.Table),
		goldmark.WithParserOptions(parser.WithAutoHeadingID(), parser.WithASTTransformers(util.Prioritized(served{file}, 0))),
	)}
}

func (c converter) html(source string) (template.HTML, error) {
	var b bytes.Buffer
	if err := c.markdown.Convert([]byte(source), &b); err != nil {
		return "", err
	}
	return template.HTML(b.String()), nil //nolint:gosec // made of a page of docs, which is ours, by a renderer that escapes
}

// served makes the links of a file, which are right in the repository, lead to where the
// same thing is served.
type served struct{ file string }

// Transform is called by goldmark once a page has been read.
func (s served) Transform(page *ast.Document, _ text.Reader, _ parser.Context) {
	_ = ast.Walk(page, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // fails only if this function does
		if link, ok := n.(*ast.Link); ok && entering {
			link.Destination = []byte(s.at(string(link.Destination)))
		}
		return ast.WalkContinue, nil
	})
}

// at is where a link of the file leads on a server of ours.
func (s served) at(link string) string {
	if strings.Contains(link, "://") {
		return link
	}
	target, anchor, _ := strings.Cut(link, "#")
	file := s.file
	if target != "" {
		file = path.Join(path.Dir(s.file), target)
	}
	switch {
	case file == errorsFile && anchor != "":
		return apierr.DocPath(apierr.Code(strings.ToUpper(anchor)))
	case file == errorsFile:
		return errorIndexPath
	case file == "api/openapi.yaml":
		return documentPath
	case file == specificationFile:
		file = apierr.SpecificationPath
	default:
		file = repository + file
	}
	if anchor != "" {
		file += "#" + anchor
	}
	return file
}
