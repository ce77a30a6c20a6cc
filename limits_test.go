package bawn

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// boundedPackages are those that keep something for a guest: each of their constants
// named maxX must be in docs/limits.md.
var boundedPackages = []string{
	"internal/netstack", "internal/egress", "internal/egress/audit", "internal/egress/gitobject", "internal/egress/gitsign", "internal/egress/gitssh", "internal/egress/gitwire", "internal/egress/httpwire", "internal/egress/nameserver",
	"internal/egress/sshlogin", "internal/egress/tlshello", "internal/egress/tunnel", "internal/inspect", "internal/packages", "internal/secret", "internal/tokens", "internal/supervisor/agent", "internal/share", "internal/share/vhostuser", "internal/undo",
}

// TestLimitsAreThoseOfTheCode: each row of docs/limits.md has the value that its
// constant has, and no limit is missing.
func TestLimitsAreThoseOfTheCode(t *testing.T) {
	text := read(t, "docs/limits.md")
	known := map[string]map[string]constant.Value{}
	listed := map[string]bool{}
	rows := regexp.MustCompile("(?m)^\\| .* \\| `([A-Za-z]+)` in `([a-z0-9/]+)` \\| ([^|]+) \\|$").FindAllStringSubmatch(text, -1)
	if len(rows) < 40 {
		t.Errorf("docs/limits.md has %d rows", len(rows))
	}
	for _, row := range rows {
		name, dir, value := row[1], row[2], row[3]
		if known[dir] == nil {
			known[dir] = constants(t, dir)
		}
		listed[dir+"."+name] = true
		v, ok := known[dir][name]
		if !ok {
			t.Errorf("docs/limits.md: %s has no constant %s with a value that this test understands", dir, name)
		} else if n, ok := constant.Int64Val(constant.ToInt(v)); !ok || n != number(t, value) {
			t.Errorf("docs/limits.md: %s in %s is %v, not %s", name, dir, v, value)
		}
	}
	for _, dir := range boundedPackages {
		for name := range constants(t, dir) {
			if lower := strings.ToLower(name[:1]) + name[1:]; regexp.MustCompile(`^max[A-Z]`).MatchString(lower) && !listed[dir+"."+name] {
				t.Errorf("docs/limits.md has no row for %s in %s: add | what it bounds | `%s` in `%s` | its value |", name, dir, name, dir)
			}
		}
	}
}

// number reads a value of the table: a count, a size as 8 MiB, or a time as 5 min.
func number(t *testing.T, s string) int64 {
	t.Helper()
	units := map[string]int64{
		"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
		"ms": int64(time.Millisecond), "s": int64(time.Second), "min": int64(time.Minute),
	}
	var n int64
	var unit string
	_, _ = fmt.Sscan(strings.ReplaceAll(s, ",", ""), &n, &unit)
	if units[unit] == 0 {
		t.Fatalf("docs/limits.md: what is %q?", s)
	}
	return n * units[unit]
}

// constants evaluates the constants of a package that are made of numbers, of each
// other and of times. It leaves out the rest.
func constants(t *testing.T, dir string) map[string]constant.Value {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	exprs := map[string]ast.Expr{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			collect(d, exprs)
		}
	}
	values := map[string]constant.Value{}
	for name, e := range exprs {
		if v := eval(e, exprs); v.Kind() == constant.Int {
			values[name] = v
		}
	}
	return values
}

// collect adds the constants of a declaration.
func collect(d ast.Decl, exprs map[string]ast.Expr) {
	g, ok := d.(*ast.GenDecl)
	if !ok || g.Tok != token.CONST {
		return
	}
	for _, s := range g.Specs {
		v := s.(*ast.ValueSpec)
		for i, n := range v.Names {
			if i < len(v.Values) {
				exprs[n.Name] = v.Values[i]
			}
		}
	}
}

// eval returns the value of an expression, of kind Unknown if it is not understood.
func eval(e ast.Expr, names map[string]ast.Expr) constant.Value {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0)
	case *ast.ParenExpr:
		return eval(e.X, names)
	case *ast.Ident:
		if x := names[e.Name]; x != nil {
			return eval(x, names)
		}
	case *ast.SelectorExpr:
		if d, ok := map[string]time.Duration{"Second": time.Second, "Minute": time.Minute, "Millisecond": time.Millisecond}[e.Sel.Name]; ok {
			return constant.MakeInt64(int64(d))
		}
		if e.Sel.Name == "IPv4MinimumSize" {
			return constant.MakeInt64(20)
		}
	case *ast.BinaryExpr:
		x, y := eval(e.X, names), eval(e.Y, names)
		if x.Kind() != constant.Int || y.Kind() != constant.Int {
			break
		}
		if e.Op == token.SHL || e.Op == token.SHR {
			if n, ok := constant.Uint64Val(y); ok {
				return constant.Shift(x, e.Op, uint(n))
			}
			break
		}
		return constant.BinaryOp(x, e.Op, y)
	}
	return constant.MakeUnknown()
}
