package main

import (
	"fmt"
	"os"
	"strings"

	"bawn.dev/bawn/internal/engine"
)

// parseEnv turns NAME and NAME=VALUE into KEY=VALUE. A NAME that is not set
// here is left out, as docker does.
func parseEnv(list []string) ([]string, error) {
	var env []string
	for _, e := range list {
		name, _, has := strings.Cut(e, "=")
		if name == "" || strings.ContainsAny(name, " \t\x00") {
			return nil, fmt.Errorf("--env %q: write NAME or NAME=VALUE", e)
		}
		if strings.ContainsRune(e, 0) {
			return nil, fmt.Errorf("--env %s: the value holds a zero byte", name)
		}
		if !has {
			v, ok := os.LookupEnv(name)
			if !ok {
				continue
			}
			e = name + "=" + v
		}
		env = append(env, e)
	}
	return env, nil
}

// ambient are the variables that go in unasked: how to show text, what the terminal can do, and the time
// zone. None can hold a secret. Programs look at the terminal's name and version, not only at TERM, before they use
// links, images and extended keys (Shift+Enter).
var ambient = []string{
	"TERM_PROGRAM", "TERM_PROGRAM_VERSION", "VTE_VERSION", "KONSOLE_VERSION", "WT_SESSION", "COLORFGBG",
	"NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR",
	"TERM", "COLORTERM", "TZ", "LANG", "LANGUAGE", "LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION",
	"LC_MEASUREMENT", "LC_MESSAGES", "LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME",
}

// commandEnv returns the environment of a command, as KEY=VALUE.
func commandEnv(named []string) ([]string, error) {
	env, err := parseEnv(named)
	if err != nil {
		return nil, err
	}
	var unasked []string
	for _, name := range ambient {
		if v := os.Getenv(name); v != "" {
			unasked = append(unasked, name+"="+v)
		}
	}
	if v := engine.InlineTerminfo(os.Getenv("TERM")); v != "" {
		unasked = append(unasked, "TERMINFO="+v)
	}
	return append(unasked, env...), nil
}
