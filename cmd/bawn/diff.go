package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// diffLine is one line of a difference. Its sign is ' ' for a line of both texts, '-' and
// '+' for one of the old and the new, or '@' in place of equal lines that are left out.
type diffLine struct {
	sign rune
	text string
}

// noNewline marks a last line without a newline.
const noNewline = " (no newline at the end)"

// splitLines returns the lines of a text.
func splitLines(text []byte) []string {
	var lines []string
	for l := range strings.Lines(string(text)) {
		whole, ended := strings.CutSuffix(l, "\n")
		if !ended {
			whole += noNewline
		}
		lines = append(lines, whole)
	}
	return lines
}

// diffLines returns what changed between two texts, with three lines around each change.
// It takes n log n time for n lines, so a hostile text cannot make it slow.
func diffLines(old, now []byte) []diffLine {
	var list []diffLine
	const header = 3 // lines of a unified diff before its first hunk
	lines := splitLines(diff.Diff("", old, "", now))
	end := 0 // of the last hunk, in lines of the old text
	for _, l := range lines[min(header, len(lines)):] {
		switch sign, text := rune(l[0]), l[1:]; sign {
		case '@':
			start, count := hunk(l)
			if start > 1 {
				list = append(list, diffLine{'@', "..."})
			}
			end = max(0, start+count-1)
		case '\\': // "\ No newline at end of file", about the line before
			list[len(list)-1].text += noNewline
		default:
			list = append(list, diffLine{sign, text})
		}
	}
	if len(list) > 0 && end < bytes.Count(old, []byte("\n")) {
		list = append(list, diffLine{'@', "..."})
	}
	return list
}

// hunk reads where a hunk begins in the old text, from 1, and how many lines it has there.
func hunk(line string) (start, count int) {
	_, _ = fmt.Sscanf(line, "@@ -%d,%d ", &start, &count) // the library writes nothing else
	return start, count
}
