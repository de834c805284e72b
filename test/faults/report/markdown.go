package report

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes the campaign as a section of docs/reference/reliability.md.
func Markdown(w io.Writer, r Result) {
	fmt.Fprintf(w, "## What the last campaign came to\n\n%s\n\n", escape(r.verdict()))
	fmt.Fprint(w, "| | |\n|---|---|\n")
	for _, f := range r.facts() {
		value := escape(f.value)
		if f.name == "commit" || f.name == "command" {
			value = code(f.value)
		}
		fmt.Fprintf(w, "| %s | %s |\n", f.name, value)
	}
	fmt.Fprint(w, "\n| what was counted | number |\n|---|---:|\n")
	for _, f := range r.figures() {
		fmt.Fprintf(w, "| %s | %s |\n", escape(f.name), f.value)
	}
	if len(r.Oracles) > 0 {
		names := make([]string, len(r.Oracles))
		for i, o := range r.Oracles {
			names[i] = code(o)
		}
		fmt.Fprintf(w, "\nJudged by %s: %s.\n", count(len(names), "oracle", "oracles"), strings.Join(names, ", "))
	}
	markdownPolicies(w, r)
	markdownViolations(w, r)
	markdownPoints(w, r)
	markdownFaults(w, r)
	markdownNotHit(w, r)
	markdownMutants(w, r)
}

func markdownPolicies(w io.Writer, r Result) {
	if len(r.Policies) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### Under each policy\n\n| policy | %s |\n|---|%s\n", strings.Join(policyHead, " | "), strings.Repeat("---:|", len(policyHead)))
	for _, p := range r.Policies {
		fmt.Fprintf(w, "| %s | %s |\n", code(p.Name), strings.Join(p.figures(), " | "))
	}
}

func markdownViolations(w io.Writer, r Result) {
	if len(r.Violations) == 0 {
		return
	}
	fmt.Fprint(w, "\n### Violations\n\n| oracle | seed | what happened |\n|---|---:|---|\n")
	for _, v := range r.Violations {
		fmt.Fprintf(w, "| %s | %d | %s |\n", code(v.Oracle), v.Seed, escape(v.Detail))
	}
}

func markdownPoints(w io.Writer, r Result) {
	if len(r.Points) == 0 {
		return
	}
	fmt.Fprint(w, "\n### Crash points\n\nIn the order in which a payment meets them.\n\n")
	fmt.Fprint(w, "| crash point | reached | killed once | twice in a row | frozen |\n|---|---:|---:|---:|---:|\n")
	for _, p := range r.Points {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", code(p.Name), number(p.Reached), number(p.Once), number(p.Twice), number(p.Frozen))
	}
}

func markdownFaults(w io.Writer, r Result) {
	fmt.Fprint(w, "\n### Faults\n\n| what was hit | how | times |\n|---|---|---:|\n")
	for _, g := range r.groups() {
		for _, k := range g.kinds {
			fmt.Fprintf(w, "| %s | %s | %s |\n", escape(g.name), escape(k.name), number(k.count))
		}
	}
}

func markdownNotHit(w io.Writer, r Result) {
	fmt.Fprint(w, "\n### What was not hit\n\n")
	gaps := r.NotHit()
	if len(gaps) == 0 {
		fmt.Fprint(w, "Nothing that the campaign knows of.\n")
	}
	for _, g := range gaps {
		fmt.Fprintf(w, "- %s\n", escape(g))
	}
}

func markdownMutants(w io.Writer, r Result) {
	if len(r.Mutants) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### Mutants\n\n%s of %s defects that were put in on purpose were caught.\n\n",
		number(caught(r.Mutants)), number(len(r.Mutants)))
	fmt.Fprint(w, "| mutant | defect | caught by | scenario |\n|---|---|---|---|\n")
	for _, m := range r.Mutants {
		by := code(m.Oracle)
		if !m.Caught {
			by = "**not caught**"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", code(m.Name), escape(m.Defect), by, escape(m.Scenario))
	}
}

// escape keeps a text from being taken for markup, or for the next cell.
func escape(s string) string { return markup.Replace(plain(s)) }

var markup = strings.NewReplacer(`\`, `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", "&lt;", "&", "&amp;")

// code sets a name in the letters of code. A cell ends at a bar even there.
func code(s string) string {
	s = strings.NewReplacer("`", "'", "|", `\|`).Replace(plain(s))
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
