package gitconfig

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newHome makes a home with that ~/.gitconfig, and a repository at the returned path.
func newHome(t *testing.T, config string) (project string) {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	project = filepath.Join(home, "real", "project")
	if out, err := exec.CommandContext(t.Context(), git, "init", "-q", project).CombinedOutput(); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	return project
}

func texts(list []Value) (all []string) {
	for _, v := range list {
		all = append(all, v.Text)
	}
	return all
}

// TestReadInTheOrderOfGit: the last value counts; a key without one is there.
func TestReadInTheOrderOfGit(t *testing.T) {
	newHome(t, "[user]\n\tName = first\n\tname = two\\nlines\n[gpg \"X\"]\n\tname\n")
	list, err := Read(t.Context(), "", `\.name$`)
	if err != nil || !slices.Equal(texts(list), []string{"first", "two\nlines", ""}) || list[0].Key != "user.name" || list[2].Key != "gpg.X.name" {
		t.Errorf("%q, %v", list, err)
	}
	if list, err := Read(t.Context(), "", "^no$"); err != nil || list != nil {
		t.Errorf("no such key: %q, %v", list, err)
	}
}

// TestConditionNamesALink: a condition may name the project by a path that goes through a link, as the shell does.
func TestConditionNamesALink(t *testing.T) {
	project := newHome(t, "[includeIf \"gitdir:~/link/\"]\n\tpath = more\n")
	home := os.Getenv("HOME")
	if err := os.WriteFile(filepath.Join(home, "more"), []byte("[user]\n\tname = Ada\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(home, "link")); err != nil {
		t.Fatal(err)
	}
	if list, err := Read(t.Context(), project, "^user"); err != nil || list != nil {
		t.Errorf("by the path without links: %q, %v", list, err)
	}
	t.Setenv("PWD", filepath.Join(home, "link", "project"))
	if list, err := Read(t.Context(), project, "^user"); err != nil || !slices.Equal(texts(list), []string{"Ada"}) {
		t.Errorf("by the path of the shell: %q, %v", list, err)
	}
}

// TestAttackRepositories: one that the guest has made gives no value, and does not keep the host waiting.
func TestAttackRepositories(t *testing.T) {
	project := newHome(t, "[user]\n\tname = Ada\n")
	config := filepath.Join(project, ".git", "config")
	if err := os.WriteFile(config, []byte("[user]\n\tname = Eve\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := Read(t.Context(), project, "^user"); err != nil || !slices.Equal(texts(list), []string{"Ada"}) {
		t.Errorf("%q, %v", list, err)
	}
	for _, text := range []string{"[broken\n", "[include]\n\tpath = /dev/zero\n", "[include]\n\tpath = \"\x1b]0;x\"\n[broken"} {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var failed *Error
		if list, err := Read(t.Context(), project, "^user"); !errors.As(err, &failed) || failed.Said == "" || strings.Contains(failed.Said, "\x1b") || list != nil {
			t.Errorf("%q: %q, %v", text, list, err)
		}
	}
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(config, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if list, err := Read(ctx, project, "^user"); !errors.Is(err, context.DeadlineExceeded) || list != nil {
		t.Errorf("a FIFO: %q, %v", list, err)
	}
	if list, err := Read(t.Context(), filepath.Join(project, "none"), "^user"); !errors.Is(err, os.ErrNotExist) || list != nil {
		t.Errorf("no directory: %q, %v", list, err)
	}
}

func TestListIsCutOff(t *testing.T) {
	if list, err := parse([]byte("file:a\x00user.name\nAda\x00file:b\x00")); err == nil {
		t.Errorf("%q", list)
	}
}

func TestNoGit(t *testing.T) {
	newHome(t, "")
	t.Setenv("PATH", t.TempDir())
	if _, err := os.Stat("/usr/sbin/git"); err == nil {
		t.Skip("git is among the administrator's programs")
	}
	if _, err := Read(t.Context(), "", "^user"); err == nil || !strings.Contains(err.Error(), "git") {
		t.Error(err)
	}
}
