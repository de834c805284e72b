package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// number writes thousands apart.
func number(n int) string {
	digits := strconv.Itoa(n)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// count is a number and what it counts.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// human writes a duration with two or three digits: more is noise.
func human(d time.Duration) string {
	switch {
	case d == 0:
		return "0 s"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
}

// maxListed is how many runs of seeds are written out.
const maxListed = 6

// seeds names the seeds of all rounds; those that follow each other as a range.
func (r Result) seeds() string {
	all := slices.Clone(r.Seeds)
	if len(all) == 0 {
		all = []int64{r.Seed}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	var runs []string
	for i := 0; i < len(all); {
		j := i
		for j+1 < len(all) && all[j+1] == all[j]+1 {
			j++
		}
		switch j {
		case i:
			runs = append(runs, strconv.FormatInt(all[i], 10))
		case i + 1:
			runs = append(runs, strconv.FormatInt(all[i], 10), strconv.FormatInt(all[j], 10))
		default:
			runs = append(runs, fmt.Sprintf("%d–%d", all[i], all[j]))
		}
		i = j + 1
	}
	if len(runs) <= maxListed {
		return strings.Join(runs, ", ")
	}
	return fmt.Sprintf("%s, … (%d in all)", strings.Join(runs[:maxListed-1], ", "), len(all))
}

// commit is the commit, short if it is a hash, so that it fits a line.
func (r Result) commit() string {
	const short = 12
	hash := strings.TrimRight(plain(r.Commit), " ")
	n := 0
	for n < len(hash) && strings.IndexByte("0123456789abcdef", hash[n]) >= 0 {
		n++
	}
	switch {
	case hash == "":
		return "unknown"
	case n >= 40:
		return hash[:short] + hash[n:]
	default:
		return hash
	}
}

// plain makes one line of a text: what others wrote may hold anything, and must not
// move the cursor of a terminal.
func plain(s string) string {
	s = strings.Map(func(c rune) rune {
		if unicode.IsSpace(c) || !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	return strings.Join(strings.Fields(s), " ")
}

// clip shortens a text to so many characters.
func clip(s string, width int) string {
	s = plain(s)
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return strings.TrimRight(string([]rune(s)[:width-1]), " ") + "…"
}

// wrap breaks a text into lines of at most so many characters, and breaks words that
// are longer.
func wrap(s string, width int) []string {
	var (
		lines []string
		line  []rune
	)
	for _, word := range strings.Fields(plain(s)) {
		rest := []rune(word)
		if len(line) > 0 && len(line)+1+len(rest) > width {
			lines, line = append(lines, string(line)), nil
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		for len(line) == 0 && len(rest) > width {
			lines, rest = append(lines, string(rest[:width])), rest[width:]
		}
		line = append(line, rest...)
	}
	if len(line) > 0 {
		lines = append(lines, string(line))
	}
	return lines
}
