package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// This file asks the user questions at the terminal. All questions go through prompter.ask,
// which drops what was typed before the question was shown: a line that was typed for
// another program, or pasted with something else, is no answer.

// confirm asks the user whether to add rules; without a terminal the answer is no.
func confirm(question string) bool {
	if !attended() {
		fmt.Fprintln(os.Stderr, "bawn: no rules were added, since there is no terminal to ask at (--yes adds them without asking)")
		return false
	}
	return askYes(question)
}

// attended reports whether there is a terminal to ask at.
func attended() bool { return isTerminal(os.Stdin) && isTerminal(os.Stderr) }

// askYes asks the user at the terminal; only y and yes, in any case, agree.
func askYes(question string) bool {
	answer, err := newPrompter(os.Stdin, os.Stderr).ask(context.Background(), question+" [y/N] ")
	answer = strings.ToLower(answer)
	return err == nil && (answer == "y" || answer == "yes")
}

// askWord asks the user at the terminal to type a word, which a habit of answering yes does
// not.
func askWord(question, word string) bool {
	answer, err := newPrompter(os.Stdin, os.Stderr).ask(context.Background(), fmt.Sprintf("%s Type %q to confirm: ", question, word))
	return err == nil && strings.EqualFold(answer, word)
}

// prompter reads answers of the user at a terminal, one at a time.
type prompter struct {
	tty *os.File
	out io.Writer
	r   *bufio.Reader
}

func newPrompter(tty *os.File, out io.Writer) *prompter {
	return &prompter{tty, out, bufio.NewReader(tty)}
}

// ask shows a question and returns the answer without the white space around it. What was
// typed before is dropped. When ctx ends first, the read continues in the background: it
// cannot be interrupted, and the prompter must not be used again.
func (p *prompter) ask(ctx context.Context, question string) (string, error) {
	p.discard()
	if _, err := fmt.Fprint(p.out, question); err != nil {
		return "", err
	}
	line, err := p.line(ctx)
	return strings.TrimSpace(line), err
}

// discard drops what was typed and not read (termios(3), tcflush).
func (p *prompter) discard() {
	_, _ = p.r.Discard(p.r.Buffered())
	_ = unix.IoctlSetInt(int(p.tty.Fd()), unix.TCFLSH, unix.TCIFLUSH)
}

// line reads the next line.
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
