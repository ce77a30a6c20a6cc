package bawn

import (
	"go/ast"
	"go/build"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "bawn.dev/bawn/"

// layers lists our packages from the bottom up, each with the packages below it that it
// imports. Packages below internal/sys are leaves that every package may import, so
// they are not listed on the right. The test fails on an import that is not listed, on
// a listed import that no file needs, and on a package that is not in the list.
var layers = []struct{ name, imports string }{
	{"internal/sys/accept", ""},
	{"internal/sys/atomicfile", ""},
	{"internal/sys/bounded", ""},
	{"internal/sys/stall", ""},
	{"internal/sys/budget", ""},
	{"internal/sys/diskuse", ""},
	{"internal/sys/fileid", ""},
	{"internal/sys/kmod", ""},
	{"internal/sys/lines", ""},
	{"internal/sys/lockfile", ""},
	{"internal/sys/keyfile", "sys/lockfile"},
	{"internal/sys/meminfo", ""},
	{"internal/sys/opencount", ""},
	{"internal/sys/pathwalk", ""},
	{"internal/sys/proc", "sys/fileid sys/pathwalk"},
	{"internal/sys/proc/proctest", "sys/fileid sys/proc"},
	{"internal/sys/mounttest", "sys/proc"},
	{"internal/sys/regular", ""},
	{"internal/sys/regular/regulartest", ""},
	{"internal/sys/settings", "sys/proc sys/regular"},
	{"internal/sys/proxyenv", "sys/settings"},
	{"internal/sys/proxyenv/proxyenvtest", "sys/proxyenv"},
	{"internal/sys/relay", ""},
	{"internal/sys/reserve", ""},
	{"internal/sys/rotate", ""},
	{"internal/sys/size", ""},
	{"internal/sys/socketpair", ""},
	{"internal/sys/sparse", ""},
	{"internal/sys/text", ""},
	{"internal/sys/toml", ""},
	{"internal/sys/gitconfig", "sys/bounded sys/proc sys/text"},
	{"internal/sys/xdg", "sys/pathwalk sys/proc"},
	{"internal/attack", ""},
	{"internal/workcopy", ""},
	{"internal/wire", ""},
	{"internal/progress", ""},
	{"internal/policy", ""},
	{"internal/share/vhostuser", ""},
	{"internal/share/guard", ""},
	{"internal/share/versions", ""},
	{"internal/netstack", ""},
	{"internal/confine", ""},
	{"internal/memory", ""},
	{"internal/sandbox", ""},
	{"internal/volume", "sandbox workcopy"},
	{"internal/transfer", "progress sandbox"},
	{"internal/secret", "policy"},
	{"internal/login", "secret"},
	{"internal/tokens", ""},
	{"internal/sigv4", ""},
	{"internal/sigv4/sigv4test", ""},
	{"internal/inspect", "login secret sigv4 tokens"},
	{"internal/sandbox/store", "policy sandbox"},
	{"internal/compose", ""},
	{"internal/devcontainer", "compose"},
	{"internal/feature", ""},
	{"internal/project", "devcontainer policy sandbox secret share/guard"},
	{"internal/cache", "progress"},
	{"internal/agents/registry", "policy progress"},
	{"internal/agents", "agents/registry cache login progress"},
	{"internal/packages", "agents/registry policy progress sandbox"},
	{"internal/debian", ""},
	{"internal/disk", ""},
	{"internal/ext4", ""},
	{"internal/kernel", "cache debian ext4 progress"},
	{"internal/initramfs", "cache progress"},
	{"internal/image", "cache debian ext4 progress"},
	{"internal/control", "sandbox tokens"},
	{"internal/session", "sandbox/store wire"},
	{"internal/undo", ""},
	{"internal/share", "confine share/guard share/versions share/vhostuser undo wire"},
	{"internal/review", "share/guard undo"},
	{"internal/qemu", "confine"},
	{"internal/template", "cache memory"},
	{"internal/snapshot", "memory sandbox"},
	{"internal/egress/tlshello", ""},
	{"internal/egress/httpwire", ""},
	{"internal/egress/gitwire", ""},
	{"internal/egress/gitobject", ""},
	{"internal/egress/gitsign", ""},
	{"internal/egress/apibody", ""},
	{"internal/egress/gitssh", ""},
	{"internal/egress/gitssh/gitsshtest", ""},
	{"internal/egress/sshlogin", ""},
	{"internal/egress/audit", "policy"},
	{"internal/egress/nameserver", "policy"},
	{"internal/egress/tunnel", ""},
	{"internal/egress/tunnel/tunneltest", ""},
	{"internal/egress", "egress/apibody egress/audit egress/gitobject egress/gitssh egress/gitwire egress/httpwire egress/nameserver egress/tlshello egress/tunnel inspect policy tokens"},
	{"internal/guest/process", ""},
	{"internal/guest/etc", ""},
	{"internal/guest/device", ""},
	{"internal/guest/modprobe", ""},
	{"internal/guest/netif", "wire"},
	{"internal/guest/tracefs", ""},
	{"internal/guest/attrib", "guest/tracefs wire"},
	{"internal/guest/datadir", "wire"},
	{"internal/guest/cacert", "guest/etc"},
	{"internal/guest/accounts", "guest/etc wire"},
	{"internal/guest/oci", "guest/cacert sys/lockfile sys/regular"},
	{"internal/guest/dockerd", "guest/accounts guest/etc guest/oci guest/process"},
	{"internal/guest/tmpfiles", "guest/accounts guest/etc"},
	{"internal/guest/pathlink", "wire"},
	{"internal/guest/sshd", "guest/accounts guest/pathlink guest/process wire"},
	{"internal/guest/watch", "guest/tracefs wire"},
	{"internal/guest/signer", ""},
	{"internal/guest", "guest/accounts guest/attrib guest/cacert guest/datadir guest/device guest/dockerd guest/etc guest/modprobe guest/netif guest/oci guest/process guest/signer guest/sshd guest/tmpfiles guest/watch wire"},
	{"internal/supervisor/handoff", "sandbox/store"},
	{"internal/supervisor/vm", "kernel netstack policy qemu sandbox template wire"},
	{"internal/supervisor/agent", "wire"},
	{"internal/supervisor/agent/agenttest", "supervisor/agent wire"},
	{"internal/supervisor/shareserver", "sandbox sandbox/store share share/guard snapshot supervisor/handoff volume wire"},
	{"internal/supervisor/launch", "sandbox sandbox/store supervisor/handoff"},
	{"internal/supervisor/pool", "qemu sandbox sandbox/store supervisor/handoff supervisor/launch supervisor/vm wire"},
	{"internal/supervisor/templatebuild", "disk memory qemu sandbox sandbox/store share snapshot supervisor/agent supervisor/handoff supervisor/launch supervisor/shareserver supervisor/vm template wire"},
	{"internal/supervisor/publish", "control sandbox"},
	{"internal/supervisor/hostwatch", "share"},
	{"internal/supervisor", "control disk egress egress/audit egress/gitsign egress/gitssh egress/sshlogin inspect login memory netstack policy qemu sandbox sandbox/store secret snapshot supervisor/agent supervisor/handoff supervisor/hostwatch supervisor/publish supervisor/shareserver supervisor/vm template wire"},
	{"internal/engine/enginetest", "control memory sandbox sandbox/store snapshot"},
	{"internal/engine", "agents agents/registry cache compose confine control devcontainer egress egress/audit egress/gitsign egress/tunnel feature image initramfs inspect kernel login packages policy progress project qemu review sandbox sandbox/store secret session share/guard share/versions snapshot supervisor/launch supervisor/pool supervisor/publish supervisor/templatebuild transfer undo volume wire workcopy"},
	{"internal/process", "confine engine sandbox sandbox/store share supervisor supervisor/handoff supervisor/templatebuild"},
	{"internal/picture", ""},
	{"internal/vmtest", ""},
	{"cmd/bawn-guest", "guest"},
	{"cmd/bawn", "attack engine policy process progress project sandbox secret session"},
}

// folders are the folders with Go code in them.
func folders(t *testing.T) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && p != ".") {
			return filepath.SkipDir
		}
		if dir := filepath.ToSlash(filepath.Dir(p)); strings.HasSuffix(p, ".go") && dir != "." && !slices.Contains(list, dir) {
			list = append(list, dir)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestImportsPointOneWay(t *testing.T) {
	allowed := map[string][]string{}
	var seen []string
	for _, m := range layers {
		for i := range strings.FieldsSeq(m.imports) {
			if !slices.Contains(seen, "internal/"+i) {
				t.Errorf("the list is not in order: %s comes before %s", m.name, i)
			}
		}
		seen = append(seen, m.name)
		allowed[m.name] = strings.Fields(m.imports)
	}
	for _, dir := range folders(t) {
		list, ok := allowed[dir]
		if !ok {
			t.Errorf("%s is not in the list of packages", dir)
			continue
		}
		p, err := build.ImportDir(dir, 0)
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		leaf := strings.HasPrefix(dir, "internal/sys/")
		for _, i := range p.Imports {
			name, ours := strings.CutPrefix(i, module+"internal/")
			switch {
			case !ours, strings.HasPrefix(name, "sys/") && !leaf:
			case !slices.Contains(list, name):
				t.Errorf("%s imports internal/%s, which is not below it", dir, name)
			}
		}
		for _, name := range list {
			if !slices.Contains(p.Imports, module+"internal/"+name) {
				t.Errorf("%s is allowed to import internal/%s and does not", dir, name)
			}
		}
	}
}

// TestOneOwner: libraries with a wide surface stay behind one package.
func TestOneOwner(t *testing.T) {
	owners := map[string][]string{
		"gvisor.dev/gvisor":                 {"internal/netstack"},
		"github.com/hanwen/go-fuse":         {"internal/share"},
		"github.com/landlock-lsm":           {"internal/confine"},
		"github.com/google/go-containerreg": {"internal/image"},
		"github.com/Microsoft/hcsshim":      {"internal/ext4"},
		"github.com/spf13/cobra":            {"cmd/bawn"},
		"github.com/miekg/dns":              {"internal/egress/nameserver"},
		"github.com/vishvananda/netlink":    {"internal/guest/netif"},
		"go.yaml.in/yaml":                   {"internal/agents", "internal/compose", "internal/project"},
		"github.com/compose-spec":           {"internal/compose"},
		"github.com/zalando/go-keyring":     {"internal/secret"},
		"github.com/aws/aws-sdk-go-v2":      {"internal/sigv4"},
		"golang.org/x/mod":                  {"internal/packages"},
		"github.com/vektah/gqlparser":       {"internal/egress/apibody"},
		"github.com/hinshun/vt10x":          {"internal/picture"},
	}
	for _, dir := range folders(t) {
		p, err := build.ImportDir(dir, 0)
		if err != nil {
			continue // TestImportsPointOneWay reports it
		}
		for _, i := range p.Imports {
			for lib, packages := range owners {
				if strings.HasPrefix(i, lib) && !slices.Contains(packages, dir) {
					t.Errorf("%s imports %s, which only %v may", dir, i, packages)
				}
			}
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	for _, dir := range append(folders(t), ".") {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		fset, documented := token.NewFileSet(), 0
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
				continue
			}
			f, err := parser.ParseFile(fset, filepath.Join(dir, e.Name()), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Error(err)
				continue
			}
			if f.Doc != nil {
				documented++
				if len(doc.Synopsis(f.Doc.Text())) < 20 { //nolint:staticcheck // the sentence as written
					t.Errorf("%s: the package comment says nothing", dir)
				}
			}
		}
		if documented != 1 {
			t.Errorf("%s has %d package comments, want 1", dir, documented)
		}
	}
}

// TestEngineIsNoFrontEnd: the engine and what is below it read no flags and take no signals,
// and the engine has no terminal. The command line does not import the packages behind the engine.
func TestEngineIsNoFrontEnd(t *testing.T) {
	terminal := []string{"os.Stdin", "os.Stdout", "os.Stderr", "os.Exit", "fmt.Print", "fmt.Println", "fmt.Printf"}
	for _, dir := range folders(t) {
		p, err := build.ImportDir(dir, 0)
		if err != nil || dir == "cmd/bawn" {
			continue // TestImportsPointOneWay reports it
		}
		for _, i := range p.Imports {
			if i == "github.com/spf13/cobra" || i == "github.com/spf13/pflag" || dir == "internal/engine" && slices.Contains([]string{"os/signal", "golang.org/x/term"}, i) {
				t.Errorf("%s imports %s, which only a front end may", dir, i)
			}
		}
		if dir != "internal/engine" {
			continue
		}
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := s.X.(*ast.Ident); ok && slices.Contains(terminal, x.Name+"."+s.Sel.Name) {
						t.Errorf("%s/%s uses %s.%s: report an Event or return an Error", dir, file, x.Name, s.Sel.Name)
					}
				}
				return true
			})
		}
	}
	for _, m := range layers {
		if m.name != "cmd/bawn" {
			continue
		}
		for i := range strings.FieldsSeq(m.imports) {
			if !slices.Contains([]string{"attack", "engine", "process", "session", "policy", "progress", "project", "sandbox", "secret"}, i) {
				t.Errorf("cmd/bawn imports internal/%s, which is behind the engine", i)
			}
		}
	}
}

// TestProgramsAreFoundInOnePlace: outside the guest, only package proc looks programs up by
// name, since a name may lead to a program that a guest wrote. Others run it by proc.Command;
// exec.Command takes an absolute path, or this program itself.
func TestProgramsAreFoundInOnePlace(t *testing.T) {
	eachHostFile(t, func(dir string, fset *token.FileSet, f *ast.File) {
		if dir == "internal/sys/proc" {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if what := looksUp(n); what != "" {
				t.Errorf("%s: %s: use proc.Command or proc.Find", fset.Position(n.Pos()), what)
			}
			return true
		})
	})
}

// eachHostFile calls visit for each source file of the program that runs on the host, tests left out.
func eachHostFile(t *testing.T, visit func(dir string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	for _, dir := range folders(t) {
		if dir == "internal/vmtest" || strings.HasPrefix(dir, "internal/guest") || dir == "cmd/bawn-guest" {
			continue
		}
		p, err := build.ImportDir(dir, 0)
		if err != nil {
			continue // TestImportsPointOneWay reports it
		}
		for _, file := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			visit(dir, fset, f)
		}
	}
}

// TestServersAreBelievedByJudgedCertificates: on the host, a server is verified only after settings.UseCertificates, since
// the environment may name certificates that a guest wrote. proxyenv.Transport calls it for requests of HTTP; functions
// that speak TLS themselves call it.
func TestServersAreBelievedByJudgedCertificates(t *testing.T) {
	found := 0
	eachHostFile(t, func(dir string, fset *token.FileSet, f *ast.File) {
		if dir == "internal/attack" { // its probes run in the guest, and verify nothing
			return
		}
		for _, d := range f.Decls {
			judged := false
			ast.Inspect(d, func(n ast.Node) bool {
				e, ok := n.(ast.Expr)
				judged = judged || ok && (isSelector(e, "settings.UseCertificates") || isSelector(e, "proxyenv.Transport"))
				return true
			})
			ast.Inspect(d, func(n ast.Node) bool {
				what, always := believes(n)
				if what != "" {
					found++
				}
				if what != "" && (always || !judged) {
					t.Errorf("%s: %s: call settings.UseCertificates before, or use proxyenv.Transport", fset.Position(n.Pos()), what)
				}
				return true
			})
		}
	})
	if found < 5 { // three clients of HTTP, servers of secrets, proxies
		t.Errorf("only %d connections were found", found)
	}
}

// believes returns what a node does that verifies a server by the host's certificates, or "", and whether no call before
// it makes that right.
func believes(n ast.Node) (what string, always bool) {
	switch n := n.(type) {
	case *ast.SelectorExpr:
		for _, name := range []string{"tls.Client", "http.DefaultTransport", "remote.DefaultTransport"} {
			if isSelector(n, name) {
				return name, false
			}
		}
		for _, name := range []string{"tls.Dial", "tls.DialWithDialer", "tls.Dialer", "http.DefaultClient", "http.Get", "http.Head", "http.Post", "http.PostForm"} {
			if isSelector(n, name) {
				return name, true
			}
		}
	case *ast.CompositeLit:
		switch {
		case isSelector(n.Type, "http.Client") && !hasField(n, "Transport"):
			return "an http.Client without a transport", true
		case isSelector(n.Type, "http.Transport") && !hasField(n, "DialContext") && !hasField(n, "DialTLSContext"):
			return "an http.Transport that dials by itself", true
		}
	}
	return "", false
}

// hasField reports whether a composite literal sets a field of that name.
func hasField(n *ast.CompositeLit, name string) bool {
	return slices.ContainsFunc(n.Elts, func(e ast.Expr) bool {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return false
		}
		key, ok := kv.Key.(*ast.Ident)
		return ok && key.Name == name
	})
}

// looksUp returns what a node does to start a program that package proc has not found; ""
// for all others.
func looksUp(n ast.Node) string {
	switch n := n.(type) {
	case *ast.CompositeLit:
		if isSelector(n.Type, "exec.Cmd") {
			return "an exec.Cmd"
		}
	case *ast.SelectorExpr:
		for _, name := range []string{"exec.LookPath", "os.StartProcess", "syscall.ForkExec", "syscall.StartProcess"} {
			if isSelector(n, name) {
				return name
			}
		}
	case *ast.CallExpr:
		arg := 0
		switch {
		case isSelector(n.Fun, "exec.Command"):
		case isSelector(n.Fun, "exec.CommandContext"):
			arg = 1
		default:
			return ""
		}
		switch a := n.Args[arg].(type) {
		case *ast.BasicLit:
			if strings.HasPrefix(a.Value, `"/`) {
				return ""
			}
		case *ast.Ident:
			if a.Name == "self" {
				return ""
			}
		}
		return "exec.Command by a name or a variable"
	}
	return ""
}

// isSelector reports whether an expression is written PACKAGE.NAME.
func isSelector(e ast.Expr, want string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name+"."+s.Sel.Name == want
}
