// Command picture records a session in a terminal and draws its last screen as an SVG, for the
// README (`make picture`).
//
//	picture -out FILE [-cols N] [-rows N] [-title TEXT] < COMMANDS
//
// Each line of COMMANDS is run by sh(1) in a terminal of that size, and drawn with its output. A
// line that begins with "! " must fail, all others must succeed; else nothing is written. The text
// of the screen is printed on standard output.
//
// A terminal emulator (github.com/hinshun/vt10x) turns the output into a screen: record.go. svg.go
// draws it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"

	"bawn.dev/bawn/internal/sys/atomicfile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

// run records the commands of in and writes the picture.
func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	var file, title string
	var cols, rows int
	f := flag.NewFlagSet("picture", flag.ContinueOnError)
	f.StringVar(&file, "out", "", "the `FILE` to write")
	f.StringVar(&title, "title", "A session in a terminal", "what the picture shows, for people who cannot see it")
	f.IntVar(&cols, "cols", 80, "columns of the terminal")
	f.IntVar(&rows, "rows", 24, "its rows; those below the last text are left out")
	if err := f.Parse(args); err != nil {
		return err
	}
	if file == "" || min(cols, rows) <= 0 || max(cols, rows) > math.MaxUint16 {
		return fmt.Errorf("-out must name a file, and -cols and -rows must be 1 to %d", math.MaxUint16)
	}
	commands, err := parse(in)
	if err != nil {
		return err
	}
	s, err := record(ctx, cols, rows, commands)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteMode(file, s.svg(title), 0o644); err != nil {
		return err
	}
	_, err = io.WriteString(out, s.text())
	return err
}
