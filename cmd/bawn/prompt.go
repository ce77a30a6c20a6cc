package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// This file asks the user questions at the terminal.

// confirm asks the user whether to add rules; without a terminal the answer is no.
func confirm(question string) bool {
	if !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
		fmt.Fprintln(os.Stderr, "bawn: no rules were added, since there is no terminal to ask at (--yes adds them without asking)")
		return false
	}
	return askYes(question)
}

// askYes asks the user at the terminal.
func askYes(question string) bool {
	fmt.Fprintf(os.Stderr, "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Fscanln(os.Stdin, &answer)
	return strings.HasPrefix(strings.ToLower(answer), "y")
}

// prompter reads answers of the user at a terminal.
type prompter struct {
	tty *os.File
	r   *bufio.Reader
}

func newPrompter(tty *os.File) *prompter { return &prompter{tty: tty, r: bufio.NewReader(tty)} }

// discard drops what was typed and not read (termios(3), tcflush).
func (p *prompter) discard() {
	_, _ = p.r.Discard(p.r.Buffered())
	_ = unix.IoctlSetInt(int(p.tty.Fd()), unix.TCFLSH, unix.TCIFLUSH)
}

// line reads the next line. When ctx ends first, the read continues in the background: it
// cannot be interrupted.
func (p *prompter) line(ctx context.Context) (string, error) {
	type read struct {
		text string
		err  error
	}
	c := make(chan read, 1)
	go func() {
		text, err := p.r.ReadString('\n')
		c <- read{text, err}
	}()
	select {
	case r := <-c:
		return r.text, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
