package firebreaktest

import (
	"fmt"
	"strings"
)

// diff shows line by line where got is not want, "" if nowhere: "- " is wanted and
// missing, "+ " happened and is not wanted. Lines that repeat are one, and what
// agrees is left out further than three lines away.
func diff(want, got []string) string {
	lines := align(want, got)
	agree := true
	for _, l := range lines {
		agree = agree && l.mark == ' '
	}
	if agree {
		return ""
	}
	const context = 3
	var b strings.Builder
	folded := fold(lines)
	for i := 0; i < len(folded); {
		n := agreeing(folded[i:])
		switch left := n - 2*context; {
		case n == 0:
			folded[i].write(&b)
			n = 1
		case left <= 1:
			writeAll(&b, folded[i:i+n])
		default:
			writeAll(&b, folded[i:i+context])
			fmt.Fprintf(&b, "    … %d lines more that agree\n", left)
			writeAll(&b, folded[i+n-context:i+n])
		}
		i += n
	}
	return strings.TrimSuffix(b.String(), "\n")
}

type line struct {
	mark  byte // ' ', '-' or '+'
	event string
	times int
}

func (l *line) write(b *strings.Builder) {
	fmt.Fprintf(b, "  %c %s", l.mark, printable(l.event))
	if l.times > 1 {
		fmt.Fprintf(b, " (%d times)", l.times)
	}
	b.WriteByte('\n')
}

// printable is an event on one line.
func printable(event string) string {
	if q := fmt.Sprintf("%q", event); event == "" || q != `"`+event+`"` {
		return q
	}
	return event
}

func writeAll(b *strings.Builder, lines []line) {
	for i := range lines {
		lines[i].write(b)
	}
}

// agreeing is how many lines at the beginning agree.
func agreeing(lines []line) (n int) {
	for n < len(lines) && lines[n].mark == ' ' {
		n++
	}
	return n
}

// fold makes one line of those that repeat.
func fold(lines []line) (folded []line) {
	for _, l := range lines {
		if n := len(folded); n > 0 && folded[n-1].mark == l.mark && folded[n-1].event == l.event {
			folded[n-1].times++
			continue
		}
		folded = append(folded, l)
	}
	return folded
}

// align is want and got side by side. What they have in common at both ends agrees;
// in between it is their longest common subsequence, if they are not too long for
// that: the table has a cell for each pair.
func align(want, got []string) (lines []line) {
	const mostCells = 1 << 22
	add := func(mark byte, events []string) {
		for _, e := range events {
			lines = append(lines, line{mark, e, 1})
		}
	}
	head := 0
	for head < min(len(want), len(got)) && want[head] == got[head] {
		head++
	}
	tail := 0
	for tail < min(len(want), len(got))-head && want[len(want)-1-tail] == got[len(got)-1-tail] {
		tail++
	}
	w, g := want[head:len(want)-tail], got[head:len(got)-tail]
	add(' ', want[:head])
	if (len(w)+1)*(len(g)+1) > mostCells {
		add('-', w)
		add('+', g)
	} else {
		lines = append(lines, common(w, g)...)
	}
	add(' ', want[len(want)-tail:])
	return lines
}

// common aligns two lists on their longest common subsequence.
func common(want, got []string) (lines []line) {
	// longest[i][j] is its length for want[i:] and got[j:].
	longest := make([][]int32, len(want)+1)
	for i := range longest {
		longest[i] = make([]int32, len(got)+1)
	}
	for i := len(want) - 1; i >= 0; i-- {
		for j := len(got) - 1; j >= 0; j-- {
			if want[i] == got[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			} else {
				longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(want) || j < len(got) {
		switch {
		case i < len(want) && j < len(got) && want[i] == got[j]:
			lines = append(lines, line{' ', want[i], 1})
			i, j = i+1, j+1
		case j == len(got) || i < len(want) && longest[i+1][j] >= longest[i][j+1]:
			lines = append(lines, line{'-', want[i], 1})
			i++
		default:
			lines = append(lines, line{'+', got[j], 1})
			j++
		}
	}
	return lines
}
