package main

import "strings"

// diffLine is one line of a difference: ' ', '-', '+', or '@' where lines that
// are the same were left out.
type diffLine struct {
	sign rune
	text string
}

// diffContext is how many lines stand around a change.
const diffContext = 3

// maxDiff bounds the work of a comparison, in pairs of lines. bawn.yaml has at
// most 2000 lines; what is longer is shown as all taken away and all new.
const maxDiff = 5_000_000

// splitLines are the lines of a text; a last one without an end says so.
func splitLines(text []byte) []string {
	var lines []string
	for l := range strings.Lines(string(text)) {
		whole, ended := strings.CutSuffix(l, "\n")
		if !ended {
			whole += " (no newline at the end)"
		}
		lines = append(lines, whole)
	}
	return lines
}

// diffLines is what changed between two texts, by their longest common
// subsequence.
func diffLines(old, now []string) []diffLine {
	var all []diffLine
	if len(old)*len(now) > maxDiff {
		for _, l := range old {
			all = append(all, diffLine{'-', l})
		}
		for _, l := range now {
			all = append(all, diffLine{'+', l})
		}
		return all
	}
	// common[i][j] is the length for old[i:] and now[j:].
	common := make([][]int32, len(old)+1)
	for i := range common {
		common[i] = make([]int32, len(now)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(now) - 1; j >= 0; j-- {
			if old[i] == now[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(old) || j < len(now) {
		switch {
		case i < len(old) && j < len(now) && old[i] == now[j]:
			all = append(all, diffLine{' ', old[i]})
			i, j = i+1, j+1
		case j == len(now) || i < len(old) && common[i+1][j] >= common[i][j+1]:
			all = append(all, diffLine{'-', old[i]})
			i++
		default:
			all = append(all, diffLine{'+', now[j]})
			j++
		}
	}
	return aroundChanges(all)
}

// aroundChanges leaves out what is far from every change.
func aroundChanges(all []diffLine) []diffLine {
	near := make([]bool, len(all))
	for i, l := range all {
		if l.sign != ' ' {
			for k := max(0, i-diffContext); k <= min(len(all)-1, i+diffContext); k++ {
				near[k] = true
			}
		}
	}
	var list []diffLine
	for i, l := range all {
		switch {
		case near[i]:
			list = append(list, l)
		case i == 0 || near[i-1]:
			list = append(list, diffLine{'@', "..."})
		}
	}
	return list
}
