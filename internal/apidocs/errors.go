package apidocs

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"github.com/oncepay/oncepay/internal/apierr"
)

// errorIndexPath lists the codes. The page of each is below it.
var errorIndexPath = strings.TrimSuffix(apierr.DocPath(""), "/")

// errorPolicy: a page of text and its style sheet.
const errorPolicy = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// repository is where the pages are that we don't serve.
const repository = "https://github.com/oncepay/oncepay/blob/main/docs/"

//go:embed pages.css
var stylesheet []byte

//go:embed errors.html
var errorsHTML string

// errorSection is a section of errors.md.
type errorSection struct {
	Code    string
	Status  string        // "400", or "504, or 408"
	Meaning template.HTML // its first paragraph
	Text    template.HTML
}

// Path is where the section's page is.
func (e errorSection) Path() string { return apierr.DocPath(apierr.Code(e.Code)) }

// errorsPage is what errors.html shows: one section or, without one, all of them.
type errorsPage struct {
	Style, Index, Reference string
	Introduction            template.HTML
	Sections                []errorSection
	Section                 *errorSection
}

// Words are the parts of the code between which a narrow page may break it.
func (e errorSection) Words() []string { return strings.SplitAfter(e.Code, "_") }

// addErrorPages makes a page of each section of errors.md, and an index of the rest.
func (s *site) addErrorPages(source []byte, style string) error {
	t, err := template.New("errors").Parse(errorsHTML)
	if err != nil {
		return err
	}
	introduction, sections, err := readErrors(string(source))
	if err != nil {
		return err
	}
	render := func(p errorsPage) (*file, error) {
		p.Style, p.Index, p.Reference = style, errorIndexPath, referencePath
		var b bytes.Buffer
		if err := t.Execute(&b, p); err != nil {
			return nil, err
		}
		return newPage(errorPolicy, b.Bytes())
	}
	if s.errorIndex, err = render(errorsPage{Introduction: introduction, Sections: sections}); err != nil {
		return err
	}
	for _, section := range sections {
		if s.errorPages[section.Code], err = render(errorsPage{Section: &section}); err != nil {
			return err
		}
	}
	return nil
}

// readErrors takes errors.md apart. Its form is held by tests: "## code", then
// "`CODE` · status", then paragraphs, of which the first begins "**Meaning.**".
func readErrors(source string) (introduction template.HTML, sections []errorSection, err error) {
	parts := strings.Split(source, "\n## ")
	_, preface, _ := strings.Cut(strings.TrimSuffix(strings.TrimSpace(parts[0]), "---"), "\n") // without its title
	if introduction, err = markdown(preface); err != nil {
		return "", nil, err
	}
	for _, part := range parts[1:] {
		name, body, _ := strings.Cut(part, "\n")
		first, body, _ := strings.Cut(strings.TrimSpace(body), "\n")
		_, status, ok := strings.Cut(first, " · ")
		if !ok {
			return "", nil, fmt.Errorf("errors.md: the section %s does not begin with its code and status", name)
		}
		section := errorSection{Code: strings.ToUpper(name), Status: status}
		if section.Text, err = markdown(body); err != nil {
			return "", nil, err
		}
		meaning, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(body), "**Meaning.** "), "\n\n")
		if section.Meaning, err = markdown(meaning); err != nil {
			return "", nil, err
		}
		sections = append(sections, section)
	}
	return introduction, sections, nil
}

// toHTML turns our own pages into HTML. Raw HTML in them would be left out.
var toHTML = goldmark.New(
	goldmark.WithExtensions(extension.Table),
	goldmark.WithParserOptions(parser.WithASTTransformers(util.Prioritized(served{}, 0))),
)

func markdown(source string) (template.HTML, error) {
	var b bytes.Buffer
	if err := toHTML.Convert([]byte(source), &b); err != nil {
		return "", err
	}
	return template.HTML(b.String()), nil //nolint:gosec // made of errors.md, which is ours, by a renderer that escapes
}

// served makes the links of errors.md, which are right in the repository, lead to
// where the same thing is served.
type served struct{}

// Transform is called by goldmark once a page has been read.
func (served) Transform(page *ast.Document, _ text.Reader, _ parser.Context) {
	_ = ast.Walk(page, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // fails only if this function does
		if link, ok := n.(*ast.Link); ok && entering {
			link.Destination = []byte(servedAt(string(link.Destination)))
		}
		return ast.WalkContinue, nil
	})
}

func servedAt(link string) string {
	code, isSection := strings.CutPrefix(link, "#")
	switch {
	case isSection:
		return apierr.DocPath(apierr.Code(strings.ToUpper(code)))
	case link == "../api/openapi.yaml":
		return documentPath
	case strings.Contains(link, "://"):
		return link
	}
	return repository + link
}
