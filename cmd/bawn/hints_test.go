package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/secret"
)

func TestWordsOfErrors(t *testing.T) {
	failed := errors.New("no")
	taken := sandbox.Port{Host: 8080, Guest: 80}
	cpus := &sandbox.FieldError{Field: "cpus", Problem: "0: must be 1 to 255"}
	for _, c := range []struct {
		err        error
		says, step string
	}{
		{failed, "no", ""},
		{fmt.Errorf("list of secrets: %w", &secret.UnsafeError{Why: failed}), "list of secrets: " + (&secret.UnsafeError{}).Error() + ": no", ""},
		{cpus, "--cpus 0: must be 1 to 255", ""},
		{fmt.Errorf("outer: %w", &sandbox.FieldError{Field: "mounts", Problem: "/a: it no longer exists"}), "outer: --mount /a: it no longer exists", ""},
		{&engine.Error{Reason: engine.NotFound, Sandbox: "shop", Err: failed}, "no", "bawn ls"},
		{&engine.Error{Reason: engine.NotFound, Path: "/p", Err: failed}, "no", "bawn run -- COMMAND creates one here; bawn ls lists those of other directories"},
		{&engine.Error{Reason: engine.Exists, Sandbox: "shop", Throwaway: true, Err: failed}, "a sandbox named shop exists already, and --rm would remove it", "bawn run --rm without --name"},
		{&engine.Error{Reason: engine.Damaged, Sandbox: "shop", Path: "/s/shop/spec.json", Err: failed}, "no", "bawn rm --force shop"},
		{&engine.Error{Reason: engine.StillRunning, Sandbox: "shop", Err: failed}, "no", "bawn stop shop, or bawn rm --force shop"},
		{&engine.Error{Reason: engine.NoDirectory, Path: "/a b", Err: failed}, "no", "mkdir '/a b', or use another directory"},
		{&engine.Error{Reason: engine.NotADirectory, Path: "/a/b", Err: failed}, "no", "use the directory that holds it: --dir /a"},
		{&engine.Error{Reason: engine.MountGone, Sandbox: "shop", Path: "/a\x1b", Err: failed}, "no", `mkdir '/a\x1b', or bawn run --name shop --mount '' to share no other directories`},
		{&engine.Error{Reason: engine.ShareNotReadOnly, Path: "/etc", Err: failed}, "no", "run bawn in a project directory; to read this one in the sandbox, share it read-only (--mount /etc:/mnt:ro)"},
		{
			fmt.Errorf("outer: %w", &engine.Error{Reason: engine.NeedsRestart, Sandbox: "shop", Fields: []string{"cpus", "hosts"}, Err: failed}),
			"outer: sandbox shop is running; changes to --add-host, --cpus take effect at its next start", "bawn stop shop, then run the same command again",
		},
		{&engine.Error{Reason: engine.NeedsRestart, Sandbox: "shop", Err: failed}, "no", "bawn stop shop, then run the same command again"},
		{&engine.Error{Reason: engine.PortInUse, Port: taken, Origin: engine.FromRequest, Err: failed}, "no", "use another port of the host: HOST:80"},
		{&engine.Error{Reason: engine.PortInUse, Port: taken, Origin: engine.FromSandbox, Sandbox: "shop", Err: failed}, "no", "bawn port --name shop --remove 8080 to no longer publish it"},
		{&engine.Error{Reason: engine.PortPrivileged, Port: taken, Origin: engine.FromProject, Err: failed}, "no", "write another port in bawn.yaml, then bawn trust; or --no-project-file to ignore the file"},
		{&engine.Error{Reason: engine.NotApproved, Path: "/p", Err: errors.New("/p\n has changed")}, `/p\n has changed`, "bawn trust /p to approve it, or --no-project-file to ignore it"},
		{&engine.Error{Reason: engine.ProjectInvalid, Path: "/p", Check: &project.Check{}, Err: failed}, "no", "correct the file (bawn trust /p shows it), or --no-project-file to ignore it"},
		{&engine.Error{Reason: engine.ProjectInvalid, Path: "/p", Err: failed}, "no", "correct the file, then bawn trust; or --no-project-file to ignore it"},
		{&engine.Error{Reason: engine.RulesSyntax, Path: "/f", Sandbox: "shop", Err: failed}, "no", "correct /f in an editor, or bawn policy reset --name shop to remove all its rules"},
		{&engine.Error{Reason: engine.RulesSyntax, Path: "/f", Err: failed}, "no", "correct /f in an editor, or bawn policy reset --all to remove all its rules"},
		{&engine.Error{Reason: engine.LimitReached, Err: failed}, "no", "bawn suspend another sandbox (bawn ls lists them), or set a larger limit in BAWN_MAX_SANDBOXES or BAWN_MAX_MEMORY"},
		{&engine.Error{Reason: engine.StartFailed, Sandbox: "shop", Err: failed}, "no", "bawn ls, then bawn logs shop"},
		{&engine.Error{Reason: engine.StartFailed, Sandbox: "shop", Throwaway: true, Err: failed}, "no", "run the same command without --rm, which keeps the sandbox and its logs"},
		{&engine.Error{Reason: engine.CommandFailed, Err: failed}, "no", "bawn ls"},
		{&engine.Error{Reason: engine.NotAnswering, Sandbox: "shop", Err: failed}, "no", "bawn logs shop, or bawn stop --force shop and run the same command again"},
		{&engine.Error{Reason: engine.SnapshotExists, Sandbox: "shop", Snapshot: "one", Err: failed}, "no", "use another name, or bawn snapshot rm shop one"},
		{&engine.Error{Reason: engine.SnapshotNotFound, Sandbox: "shop", Snapshot: "one", Err: failed}, "no", "bawn snapshot ls shop"},
		{&engine.Error{Reason: engine.SnapshotDamaged, Sandbox: "shop", Snapshot: "one", Err: failed}, "no", "use another snapshot (bawn snapshot ls shop lists them)"},
		{&engine.Error{Reason: engine.SnapshotFailed, Sandbox: "shop", Err: failed}, "no", "bawn logs --supervisor shop"},
		{&engine.Error{Reason: engine.CannotSave, Sandbox: "shop", Err: failed}, "no", ""}, // its text says it
		{&engine.Error{Reason: engine.StateWouldBeLost, Sandbox: "shop", Err: failed}, "no", "bawn snapshot create shop to save the present state first, or --force to discard it"},
		{&engine.Error{Reason: engine.Exists, Sandbox: "shop", Err: failed}, "no", "use another name, or bawn rm --force shop to remove that sandbox"},
		{&engine.Error{Reason: engine.ProjectCopyExists, Path: "/p-x", Err: failed}, "no", "use another name for the fork, or move what is there"},
		{&engine.Error{Reason: engine.ImageInUse, Err: failed}, "no", "bawn rm the sandboxes that use it (bawn inspect NAME shows the image of a sandbox)"},
		{&engine.Error{Reason: engine.PathEscapes, Sandbox: "shop", Err: failed}, "no", "if you mean the place that the path leads to, write that path"},
		{&engine.Error{Reason: engine.SpecialDestination, Sandbox: "shop", Path: "/a b", Err: failed}, "no", "bawn exec shop -- cat '/a b'"},
		{&engine.Error{Reason: engine.ApprovalInvalid, Path: "/p", Fields: []string{".devcontainer.json"}, Err: failed}, "no", "bawn trust --devcontainer=/p/.devcontainer.json /p"},
		{&engine.Error{Reason: engine.ApprovalUnreadable, Path: "/p", Fields: []string{".devcontainer.json"}, Err: failed}, "no", "bawn trust --forget --devcontainer=/p/.devcontainer.json /p"},
		{&engine.Error{Reason: engine.SigningNotSetUp, Sandbox: "shop", Err: failed}, "no", "correct that on the host, or --sign=false to go on without signatures"},
		{&engine.Error{Reason: engine.SigningNoRepository, Sandbox: "shop", Err: failed}, "no", "--allow git:origin:push=BRANCH names the branches that it may push to (or git:HOST/OWNER/REPO:push=...); or --sign=false to go on without signatures"},
		{&engine.Error{Reason: engine.NeedsRestart, Sandbox: "shop", Fields: []string{"sign"}, Err: failed}, "sandbox shop is running; changes to --sign take effect at its next start", "bawn stop shop, then run the same command again"},
		// What a verb says about an error comes first.
		{hint(&engine.Error{Reason: engine.StartFailed, Err: failed}, "look"), "no", "look"},
	} {
		if got := message(c.err); got != c.says {
			t.Errorf("%#v: says %q, want %q", c.err, got, c.says)
		}
		if got := nextStep(c.err); got != c.step {
			t.Errorf("%#v: try %q, want %q", c.err, got, c.step)
		}
	}
}

func TestWordsOfNotices(t *testing.T) {
	for _, c := range []struct {
		n          engine.Notice
		says, step string
	}{
		{engine.Notice{Reason: engine.NotApproved, Path: "/a b", Text: "no\n"}, `no\n; to approve it: bawn trust '/a b'`, ""},
		{engine.Notice{Reason: engine.ImageFixed, Sandbox: "shop", Text: "no"}, "no, which differs from the one in bawn.yaml; to use that one: bawn rm shop, then run the same command again", ""},
		{engine.Notice{Reason: engine.ImageOlder, Sandbox: "shop", Text: "older"}, "older; to begin anew with that: bawn rm shop, then run the same command again", ""},
		{engine.Notice{Reason: engine.DevcontainerThere, Sandbox: "shop", Text: "no"}, "no; to use it: bawn rm shop, then bawn run --devcontainer", ""},
		{engine.Notice{Reason: engine.NeedsRestart, Sandbox: "shop", Text: "no"}, "no; to apply it now: bawn stop shop, then run the same command again", ""},
		{engine.Notice{Reason: engine.StartRepeated, Text: "again", Err: errors.New("a\x1b[2J")}, `again: a\x1b[2J`, ""},
		{engine.Notice{Reason: engine.StopSlow, Sandbox: "shop", Text: "no"}, "no", "bawn stop --force shop turns it off at once"},
		{engine.Notice{Reason: engine.GitDirOutside, Sandbox: "shop", Path: "/a/.git", Text: "no"}, "no", "--share-git shares what git needs of it, from the sandbox's next start on; --share-git=false goes on without"},
		{engine.Notice{Reason: engine.PathsHidden, Sandbox: "shop", Path: "/s", Text: "hidden from the sandbox: .env"}, "hidden from the sandbox: .env (--show PATTERN shows them, from the sandbox's next start on)", ""},
		{engine.Notice{Reason: engine.SecretMissing, Fields: []string{"A_KEY"}, Text: "no"}, "no; to set it: bawn secret set A_KEY --for HOST", ""},
		{engine.Notice{Reason: engine.HostDiskFull, Sandbox: "shop", Path: "/s", Text: "no"}, "no", "free space on the file system of /s, or bawn stop --force shop"},
		{engine.Notice{Reason: engine.RepositoryOutside, Sandbox: "shop", Path: "/a b/.git", Text: "no"}, "no", "--mount '/a b/.git' shares it, from the sandbox's next start on; its hooks and settings stay as they are on the host"},
		{engine.Notice{Reason: engine.ObjectsOutside, Sandbox: "shop", Path: "/a b", Text: "no"}, "no", "--mount '/a b:ro' shares it, from the sandbox's next start on; or copy the objects on the host with git repack -a -d, and remove .git/objects/info/alternates"},
		{engine.Notice{Reason: engine.RulesSyntax, Text: "a\nb", Err: &engine.Error{Reason: engine.RulesSyntax, Path: "/f", Err: errors.New("")}}, "a\nb", "correct /f in an editor, or bawn policy reset --all to remove all its rules"},
	} {
		if says, step := noticeWords(c.n); says != c.says || step != c.step {
			t.Errorf("%+v: %q, %q", c.n, says, step)
		}
	}
}

// noStep are the reasons of the engine that have no entry in steps: the text says what to
// do, or they are reasons of notices.
var noStep = []string{
	"InvalidSpec", "InvalidTarget", "ShareOfKernel", "WrongPhase", "CannotSave",
	"SoftwareEmulation", "BuilderRenewed", "BuilderKeepsImage", "KVMUnsettled", "PoolMemberFailed", "StartRepeated", "StartNote", "StopSlow", "RuleOverruled", "RuleRemote", "RuleWidened", "HostDiskFull", "HostDiskFreed",
	"RepositoryOutside", "GitDirOutside", "ObjectsOutside", "PathsHidden", "AgentUpdate", "SecretMissing", "VolumeMade", "LocalDirUseful", "ImageOlder", "DevcontainerThere",
	"GuestMessage", "NotCopied", "KeptRunning",
}

// TestEveryReasonHasAStep reads the names of the engine's reasons from its source.
func TestEveryReasonHasAStep(t *testing.T) {
	table, err := os.ReadFile("hints.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range reasonNames(t) {
		seen++
		has := strings.Contains(string(table), "engine."+name+":")
		if has == slices.Contains(noStep, name) {
			t.Errorf("engine.%s: in steps %v, in noStep %v", name, has, !has)
		}
	}
	if seen < 40 {
		t.Errorf("only %d reasons were found", seen)
	}
}

// reasonNames are the names of the constants of type engine.Reason.
func reasonNames(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("../../internal/engine/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && isReason(v) {
				names = append(names, v.Names[0].Name)
			}
			return true
		})
	}
	return names
}

// isReason reports whether a declaration is N Reason = "..." or N = Reason(...).
func isReason(v *ast.ValueSpec) bool {
	if id, ok := v.Type.(*ast.Ident); ok {
		return id.Name == "Reason" && ast.IsExported(v.Names[0].Name)
	}
	if len(v.Values) != 1 {
		return false
	}
	call, ok := v.Values[0].(*ast.CallExpr)
	if !ok {
		return false
	}
	id, ok := call.Fun.(*ast.Ident)
	return ok && id.Name == "Reason"
}
