package image

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"bawn.dev/bawn/internal/progress"
)

// mmdebstrapProgress reads the log of mmdebstrap and shows it as tasks with known totals.
//
// mmdebstrap runs apt twice. Each run announces how many packages it installs and how
// much space they take; each package is then fetched, unpacked and set up. The tar
// stream at the end is about as large as the space of both runs.
type mmdebstrapProgress struct {
	mu    sync.Mutex // the log and the tar stream come by two pipes
	r     progress.Reporter
	task  progress.Task
	stage int
	runs  int   // of apt, the present one included
	count int64 // packages of the present run
	space int64 // bytes that the packages of both runs take
	last  []string
}

const (
	stageStart = iota
	stageFetch
	stageInstall
	stageWrite
)

// keepLines is how many of the last lines of the log an error shows.
const keepLines = 15

// installSteps is how many lines the log has for each package that is installed.
const installSteps = 2

var (
	newlyInstalled = regexp.MustCompile(`^\d+ upgraded, (\d+) newly installed`)
	afterOperation = regexp.MustCompile(`^After this operation, ([\d.,]+) ([kMG]?B) of additional disk space`)
	fetching       = regexp.MustCompile(`^Get:\d+ \S+ \S+ \S+ (\S+) `)
	unpacking      = regexp.MustCompile(`^(?:Unpacking|Setting up) ([^\s:]+)`)
)

func newMmdebstrapProgress(r progress.Reporter) *mmdebstrapProgress {
	p := &mmdebstrapProgress{r: r}
	p.task = r.Start("Preparing the default image", 0, progress.Steps)
	return p
}

// begin ends the present task and starts the next.
func (p *mmdebstrapProgress) begin(stage int, label string, total int64, unit progress.Unit) {
	p.task.Done(nil)
	p.stage = stage
	p.task = p.r.Start(label, total, unit)
}

func (p *mmdebstrapProgress) read(r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20) // dpkg's command lines are long
	for sc.Scan() {
		p.line(sc.Text())
	}
	_, _ = io.Copy(io.Discard, r)
}

func (p *mmdebstrapProgress) line(l string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.TrimSpace(l) != "" {
		p.last = append(p.last, l)
		p.last = p.last[max(0, len(p.last)-keepLines):]
	}
	if m := newlyInstalled.FindStringSubmatch(l); m != nil {
		p.count, _ = strconv.ParseInt(m[1], 10, 64)
		p.runs++
		p.begin(stageFetch, "Fetching "+p.what(), p.count, progress.Steps)
	} else if m := afterOperation.FindStringSubmatch(l); m != nil {
		p.space += parseSize(m[1], m[2])
	} else if m := fetching.FindStringSubmatch(l); m != nil && p.stage == stageFetch {
		p.task.Add(1)
		p.task.Note(m[1])
	} else if m := unpacking.FindStringSubmatch(l); m != nil {
		if p.stage != stageInstall {
			p.begin(stageInstall, "Installing "+p.what(), p.count*installSteps, progress.Steps)
		}
		p.task.Add(1)
		p.task.Note(m[1])
	} else if strings.HasPrefix(l, "I: creating tarball") {
		p.begin(stageWrite, "Writing the image", p.space, progress.Bytes)
	}
}

// what names the packages of the present run of apt. The first run installs what the
// second needs.
func (p *mmdebstrapProgress) what() string {
	if p.runs == 1 {
		return "the base system"
	}
	return "packages"
}

// parseSize reads a size as apt writes it: "98.9 MB", "1,178 MB".
func parseSize(number, unit string) int64 {
	f, err := strconv.ParseFloat(strings.ReplaceAll(number, ",", ""), 64)
	if err != nil || f < 0 || f > 1e9 {
		return 0
	}
	scale := map[string]float64{"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
	return int64(f * scale)
}

// written adds n bytes of the tar stream.
func (p *mmdebstrapProgress) written(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage == stageWrite {
		p.task.Add(int64(n))
	}
}

func (p *mmdebstrapProgress) done(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.task.Done(err)
}

// lastLines returns the end of the log.
func (p *mmdebstrapProgress) lastLines() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.last, "\n")
}

// byteCounter is a writer that counts the bytes of the tar stream.
type byteCounter struct{ p *mmdebstrapProgress }

func (c byteCounter) Write(b []byte) (int, error) {
	c.p.written(len(b))
	return len(b), nil
}
