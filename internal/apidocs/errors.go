package apidocs

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"

	"github.com/oncepay/oncepay/internal/apierr"
)

// errorIndexPath lists the codes. The page of each is below it.
var errorIndexPath = strings.TrimSuffix(apierr.DocPath(""), "/")

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
	Style, Index, Specification, Reference string

	Introduction template.HTML
	Sections     []errorSection
	Section      *errorSection
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
		p.Style, p.Index, p.Specification, p.Reference = style, errorIndexPath, apierr.SpecificationPath, referencePath
		var b bytes.Buffer
		if err := t.Execute(&b, p); err != nil {
			return nil, err
		}
		return newPage(textPolicy, b.Bytes())
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
	if introduction, err = errorsText.html(preface); err != nil {
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
		if section.Text, err = errorsText.html(body); err != nil {
			return "", nil, err
		}
		meaning, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(body), "**Meaning.** "), "\n\n")
		if section.Meaning, err = errorsText.html(meaning); err != nil {
			return "", nil, err
		}
		sections = append(sections, section)
	}
	return introduction, sections, nil
}
