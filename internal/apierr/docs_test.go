package apierr

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docsFile is what the page behind every doc_url is made of, by internal/apidocs.
const docsFile = "../../docs/errors.md"

// sections are the page's, by heading, in their order.
func sections(t *testing.T) (names []string, texts map[string]string) {
	t.Helper()
	page, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	texts = map[string]string{}
	for _, part := range strings.Split("\n"+string(page), "\n## ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		names = append(names, name)
		texts[name] = text
	}
	return names, texts
}

// TestEveryCodeHasItsSectionAndEverySectionItsCode: a heading in lower case is what
// GitHub makes the anchor of.
func TestEveryCodeHasItsSectionAndEverySectionItsCode(t *testing.T) {
	t.Parallel()
	names, _ := sections(t)
	var want []string
	for _, c := range Codes() {
		want = append(want, strings.ToLower(string(c)))
	}
	if !slices.Equal(names, want) {
		t.Errorf("%s has the sections\n%q, want the codes in their order\n%q", docsFile, names, want)
	}
}

// TestEverySectionAnswersTheSameQuestions and names the code and its status.
func TestEverySectionAnswersTheSameQuestions(t *testing.T) {
	t.Parallel()
	_, texts := sections(t)
	questions := []string{"**Meaning.**", "**When.**", "**What to do.**", "**Same key?**"}
	for _, c := range Codes() {
		text := texts[strings.ToLower(string(c))]
		first := fmt.Sprintf("`%s` · %d", c, New(c).Status)
		if c == RequestTimeout { // the one that travels with two
			first += fmt.Sprintf(", or %d", http.StatusRequestTimeout)
		}
		if line := strings.TrimSpace(strings.SplitN(strings.TrimSpace(text), "\n", 2)[0]); line != first {
			t.Errorf("the section of %s begins with %q, want %q", c, line, first)
		}
		at := 0
		for _, q := range questions {
			i := strings.Index(text[at:], "\n\n"+q+" ")
			if i < 0 {
				t.Errorf("the section of %s has no %s, or not in its place", c, q)
				break
			}
			at += i + len(q)
		}
	}
}

// TestAnchorsWithinThePageLead where they say.
func TestAnchorsWithinThePageLead(t *testing.T) {
	t.Parallel()
	names, texts := sections(t)
	for name, text := range texts {
		for _, m := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(text, -1) {
			if !slices.Contains(names, m[1]) {
				t.Errorf("%s: #%s leads nowhere", name, m[1])
			}
		}
	}
}

// TestTheExampleOnThePageIsOneOfOurs.
func TestTheExampleOnThePageIsOneOfOurs(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{`"code"`, `"messages"`, `"request_id"`, `"doc_url": "` + DocPath(InvalidAmount) + `"`} {
		if !strings.Contains(string(page), "\n  "+member) {
			t.Errorf("the example has no %s", member)
		}
	}
}
