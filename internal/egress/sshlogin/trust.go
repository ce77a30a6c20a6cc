package sshlogin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
)

// Which files of configuration ssh reads.
//
// Theory of operation. A file of configuration runs commands on the host (Match exec), and a guest makes bawn read it
// by a fetch. Files that people keep among their projects, behind a link or an Include (a repository of dotfiles), may
// be ones that a guest writes. ssh tells which files it reads (-v), those in blocks that do not count included, and
// runs the commands in them by $SHELL. So it reads them once with a shell that does nothing. A file that is not there
// yet could come before it reads them again: so the places where an Include looks are judged as well.

// maxConfig bounds a file of configuration, in bytes.
const maxConfig = 1 << 20

// readingLine begins the line by which ssh tells that it opened a file (readconf.c, read_config_file_depth).
const readingLine = "debug1: Reading configuration data "

// trustConfig returns an error unless every file that ssh reads for a server is one that no guest or other user can
// write.
func trustConfig(ctx context.Context, account, name string) error {
	idle, err := proc.IdleShell()
	if err != nil {
		return err
	}
	_, said, err := printSettings(ctx, account, name, idle)
	if err != nil {
		return err
	}
	files := filesRead(string(said))
	own := filepath.Join(home(), ".ssh/config")
	if f, err := regular.Open(own, 0); err == nil {
		f.Close()
		if !slices.Contains(files, own) {
			return fmt.Errorf("ssh does not tell that it reads %s", own)
		}
	}
	for _, file := range files {
		if err := trustConfigFile(file, account); err != nil {
			return fmt.Errorf("%s is not read: %w", file, err)
		}
	}
	return nil
}

// filesRead returns the files of configuration that ssh told.
func filesRead(said string) (files []string) {
	for line := range strings.Lines(said) {
		if file, ok := strings.CutPrefix(strings.TrimSpace(line), readingLine); ok {
			files = append(files, filepath.Clean(file))
		}
	}
	return files
}

// trustConfigFile judges one file, and the places where its includes look.
func trustConfigFile(file, account string) error {
	if err := proc.Trusted(file); err != nil {
		return err
	}
	b, err := regular.Read(file, maxConfig, 0)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		words := strings.FieldsFunc(string(line), func(c rune) bool { return strings.ContainsRune(" \t\r\n\f\"=", c) })
		if len(words) == 0 || !strings.EqualFold(words[0], "include") {
			continue
		}
		for _, pattern := range words[1:] {
			if err := trustPlace(pattern, file, account); err != nil {
				return fmt.Errorf("it includes %s: %w", pattern, err)
			}
		}
	}
	return nil
}

// trustPlace judges the folder where an Include looks for the files of a pattern (ssh_config(5)).
func trustPlace(pattern, file, account string) error {
	if strings.ContainsAny(pattern, "$%") || strings.HasPrefix(pattern, "~") && !strings.HasPrefix(pattern, "~/") {
		return errors.New("which file that is depends on variables, tokens or another user: write the path")
	}
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		pattern = pattern[:strings.LastIndexByte(pattern[:i], '/')+1]
	}
	places := []string{pattern}
	if rest, ok := strings.CutPrefix(pattern, "~/"); ok {
		places = []string{filepath.Join(home(), rest), filepath.Join(account, rest)}
	} else if !filepath.IsAbs(pattern) {
		places = []string{filepath.Join(home(), ".ssh", pattern), filepath.Join(account, ".ssh", pattern), filepath.Join(filepath.Dir(file), pattern)}
	}
	for _, p := range places {
		if err := proc.Trusted(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
