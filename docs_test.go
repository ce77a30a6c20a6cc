package bawn

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// These tests hold the documents to the code: what a document names must exist.

// documents returns the documents and their texts. doc.go is one of them.
func documents(t *testing.T) map[string]string {
	t.Helper()
	names := []string{"README.md", "SECURITY.md", "CONTRIBUTING.md", "doc.go"}
	err := filepath.WalkDir("docs", func(p string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(p, ".md") {
			names = append(names, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]string{}
	for _, name := range names {
		docs[name] = read(t, name)
	}
	return docs
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sources returns the Go files of a package's folder, or of all packages for "", with
// their texts. tests chooses between files of tests and others.
func sources(t *testing.T, dir string, tests bool) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, d := range append(folders(t), ".") {
		if dir != "" && d != dir {
			continue
		}
		list, err := filepath.Glob(filepath.Join(d, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if strings.HasSuffix(f, "_test.go") == tests {
				files[filepath.ToSlash(f)] = read(t, f)
			}
		}
	}
	return files
}

var (
	ourPath   = regexp.MustCompile(`(?m)(?:^|[^\w/.-]|\./)((?:internal|cmd|docs|scripts|examples|\.ci)/[\w./-]*\w)`)
	mdLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	goFile    = regexp.MustCompile("`([a-z]\\w*\\.go)`")
	testName  = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	testFunc  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
	makeGoal  = regexp.MustCompile("(?:`|(?m:^    ))make ([a-z][a-z0-9-]*)")
	bawnVerb  = regexp.MustCompile("(?:`|(?m:^    (?:\\$ )?))bawn (_*[a-z][a-z-]*)")
	selector  = regexp.MustCompile("`([a-z]+)\\.([A-Z]\\w*)(?:\\.([A-Z]\\w*))?`")
	codeName  = regexp.MustCompile("`([A-Za-z]\\w*)`")
	codeFile  = regexp.MustCompile("`((?:internal|cmd)/[^`]*\\.go)`")
	ofPackage = regexp.MustCompile("^`((?:internal|cmd)/[^`]*)`: ")
)

func TestDocumentsNamePathsThatExist(t *testing.T) {
	all := map[string]bool{}
	for _, tests := range []bool{false, true} {
		for f := range sources(t, "", tests) {
			all[path.Base(f)] = true
		}
	}
	for doc, text := range documents(t) {
		for _, m := range ourPath.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(m[1]); err != nil {
				t.Errorf("%s names %s, which does not exist", doc, m[1])
			}
		}
		for _, m := range goFile.FindAllStringSubmatch(text, -1) {
			if !all[m[1]] {
				t.Errorf("%s names %s, and no package has such a file", doc, m[1])
			}
		}
		for _, m := range mdLink.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || target == "" {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), target)); err != nil {
				t.Errorf("%s links to %s, which does not exist", doc, m[1])
			}
		}
	}
}

func TestDocumentsNameTestsThatExist(t *testing.T) {
	known := map[string]bool{}
	for _, text := range sources(t, "", true) {
		for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
			known[m[1]] = true
		}
	}
	if len(known) < 300 {
		t.Fatalf("%d tests found: the search does not work", len(known))
	}
	for doc, text := range documents(t) {
		for _, name := range testName.FindAllString(text, -1) {
			if !known[name] {
				t.Errorf("%s names the test %s, which does not exist", doc, name)
			}
		}
	}
}

// TestSecurityNamesTheTests: in the first section of SECURITY.md the last column of the
// tables names tests, of internal/vmtest or of the package that stands before them. Each
// of them exists there, and each row has one. The holes that a row refers to are listed.
func TestSecurityNamesTheTests(t *testing.T) {
	inside := map[string][]string{}
	for f, text := range sources(t, "", true) {
		for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
			inside[path.Dir(f)] = append(inside[path.Dir(f)], m[1])
		}
	}
	rows := 0
	claims, holes, ok := strings.Cut(read(t, "SECURITY.md"), "\n## Known holes")
	if !ok {
		t.Fatal("SECURITY.md has no section of known holes")
	}
	for _, hole := range regexp.MustCompile(`\b[NF]\d+\b`).FindAllString(claims, -1) {
		if !strings.Contains(holes, "\n| "+hole+" | ") {
			t.Errorf("SECURITY.md refers to %s, which is not among the known holes", hole)
		}
	}
	for line := range strings.Lines(claims) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") || cells[len(cells)-1] == "test " {
			continue
		}
		rows++
		named := 0
		for part := range strings.SplitSeq(strings.TrimSpace(cells[len(cells)-1]), "; ") {
			dir := "internal/vmtest"
			if m := ofPackage.FindStringSubmatch(part); m != nil {
				dir = m[1]
			}
			for _, name := range testName.FindAllString(part, -1) {
				named++
				if !slices.Contains(inside[dir], name) {
					t.Errorf("SECURITY.md names %s of %s, which does not exist", name, dir)
				}
			}
		}
		if named == 0 {
			t.Errorf("SECURITY.md: no test in the row %.60s", line)
		}
	}
	if rows < 20 {
		t.Errorf("%d rows of claims found in SECURITY.md", rows)
	}
}

// declares reports whether a Go file declares the name: a function, method, type,
// constant, variable or field, or a method of an interface.
func declares(text, name string) bool {
	return regexp.MustCompile(`(?m)^(?:func (?:\([^)]*\) )?|type |const |var )` + name + `\b|^\t` + name + `(?: +[=\w*\[]|\()`).MatchString(text)
}

// TestArchitectureNamesTheCode: a table row of docs/architecture.md that names files names
// functions beside them or in the cell before. Each function is in one of the files, and
// each file has one of them.
func TestArchitectureNamesTheCode(t *testing.T) {
	rows := 0
	for line := range strings.Lines(read(t, "docs/architecture.md")) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		i := slices.IndexFunc(cells, codeFile.MatchString)
		if !strings.HasPrefix(line, "| ") || i < 1 {
			continue
		}
		rows++
		texts := map[string]string{}
		for _, m := range codeFile.FindAllStringSubmatch(cells[i], -1) {
			texts[m[1]] = read(t, m[1])
		}
		used := map[string]bool{}
		for _, m := range codeName.FindAllStringSubmatch(cells[i-1]+cells[i], -1) {
			found := false
			for file, text := range texts {
				if declares(text, m[1]) {
					found, used[file] = true, true
				}
			}
			if !found {
				t.Errorf("docs/architecture.md: %s is in none of %s", m[1], cells[i])
			}
		}
		for file := range texts {
			if !used[file] {
				t.Errorf("docs/architecture.md: no function that is named beside %s is in it", file)
			}
		}
	}
	if rows < 30 {
		t.Errorf("%d rows with functions found in docs/architecture.md", rows)
	}
}

// TestDocumentsNameCodeThatExists: a name like `policy.Flow`, of a package of ours, is
// declared in that package.
func TestDocumentsNameCodeThatExists(t *testing.T) {
	packages := map[string]string{}
	for _, dir := range folders(t) {
		for _, text := range sources(t, dir, false) {
			packages[path.Base(dir)] += text
		}
	}
	for doc, text := range documents(t) {
		for _, m := range selector.FindAllStringSubmatch(text, -1) {
			code, ours := packages[m[1]]
			if !ours {
				continue
			}
			for _, name := range m[2:] {
				if name != "" && !declares(code, name) {
					t.Errorf("%s names %s.%s, which does not exist", doc, m[1], name)
				}
			}
		}
	}
}

func TestDocumentsNameCommandsThatExist(t *testing.T) {
	verbs := []string{"completion", "help"} // cobra's
	for _, text := range sources(t, "cmd/bawn", false) {
		for _, m := range regexp.MustCompile(`Use:\s+"([a-z-]+)`).FindAllStringSubmatch(text, -1) {
			verbs = append(verbs, m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^([a-z]+):$`).FindAllStringSubmatch(read(t, "internal/agents/builtin.yaml"), -1) {
		verbs = append(verbs, m[1]) // the word of an agent
	}
	for _, dir := range []string{"internal/supervisor/handoff", "internal/confine"} {
		for _, text := range sources(t, dir, false) {
			for _, m := range regexp.MustCompile(`Verb\s+= "(__[a-z-]+)"`).FindAllStringSubmatch(text, -1) {
				verbs = append(verbs, m[1])
			}
		}
	}
	makefile := read(t, "Makefile")
	for doc, text := range documents(t) {
		for _, m := range bawnVerb.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(verbs, m[1]) {
				t.Errorf("%s names bawn %s, which does not exist", doc, m[1])
			}
		}
		for _, m := range makeGoal.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names make %s, which does not exist", doc, m[1])
			}
		}
	}
}

// TestArchitectureListsThePackages: the tables of packages in docs/architecture.md have the
// packages and imports of the list above TestImportsPointOneWay, in its order.
func TestArchitectureListsThePackages(t *testing.T) {
	text := read(t, "docs/architecture.md")
	last := 0
	for _, m := range layers {
		imports := "-"
		if m.imports != "" {
			imports = strings.Join(strings.Fields(m.imports), ", ")
		}
		row := "| `" + m.name + "` | "
		at := strings.Index(text, "\n"+row)
		if at < 0 {
			t.Errorf("docs/architecture.md has no row for %s: add %swhat it is | %s |", m.name, row, imports)
			continue
		}
		if at < last {
			t.Errorf("docs/architecture.md: the row of %s is not where arch_test.go has it", m.name)
		}
		last = at
		line, _, _ := strings.Cut(text[at+1:], "\n")
		if !strings.HasPrefix(m.name, "internal/sys/") && !strings.HasSuffix(line, " | "+imports+" |") {
			t.Errorf("docs/architecture.md: the row of %s must end in | %s |", m.name, imports)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:internal|cmd)/[^`.]*)` \\| ").FindAllStringSubmatch(text, -1) {
		if !slices.ContainsFunc(layers, func(p struct{ name, imports string }) bool { return p.name == m[1] }) {
			t.Errorf("docs/architecture.md has a row for %s, which is no package", m[1])
		}
	}
}

// TestDecisionsAreListed: docs/adr/README.md has each decision with its number and title.
func TestDecisionsAreListed(t *testing.T) {
	index := read(t, "docs/adr/README.md")
	list, err := filepath.Glob("docs/adr/0*.md")
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	for _, file := range list {
		name := path.Base(filepath.ToSlash(file))
		title, _, _ := strings.Cut(strings.TrimPrefix(read(t, file), "# "), "\n")
		number, title, _ := strings.Cut(title, ": ")
		row := "| [" + number + "](" + name + ") | " + title + " |"
		if !strings.HasPrefix(name, number+"-") || !strings.Contains(index, row) {
			t.Errorf("docs/adr/README.md wants the row %s", row)
		}
	}
}
