package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// table writes rows as the original does: a grid of +, - and |, cells to the
// left. A cell of several lines makes a row of several lines.
func table(w io.Writer, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	width := make([]int, len(rows[0]))
	cells := make([][][]string, len(rows))
	for i, row := range rows {
		cells[i] = make([][]string, len(row))
		for j, text := range row {
			lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
			for k := range lines {
				lines[k] = clean(lines[k])
				width[j] = max(width[j], utf8.RuneCountInString(lines[k]))
			}
			cells[i][j] = lines
		}
	}
	var b strings.Builder
	border(&b, width)
	for i, row := range cells {
		height := 1
		for _, c := range row {
			height = max(height, len(c))
		}
		for k := range height {
			line := make([]string, len(row))
			for j, c := range row {
				if k < len(c) {
					line[j] = c[k]
				}
			}
			gridRow(&b, line, width)
		}
		if i == 0 {
			border(&b, width)
		}
	}
	border(&b, width)
	_, err := io.WriteString(w, b.String())
	return err
}

func border(b *strings.Builder, width []int) {
	for _, n := range width {
		b.WriteString("+" + strings.Repeat("-", n+2))
	}
	b.WriteString("+\n")
}

func gridRow(b *strings.Builder, cells []string, width []int) {
	for j, c := range cells {
		fmt.Fprintf(b, "| %s%s ", c, strings.Repeat(" ", max(0, width[j]-utf8.RuneCountInString(c))))
	}
	b.WriteString("|\n")
}

// clean makes text from elsewhere safe for a terminal: no control characters,
// which could move the cursor or set the title.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Bidi_Control, r):
			return '?'
		}
		return r
	}, s)
}
