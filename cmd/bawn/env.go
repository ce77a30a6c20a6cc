package main

import (
	"fmt"
	"os"
	"strings"
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

// ambient are the variables that go in unasked: how to show text, and the
// time zone. None can hold a secret.
var ambient = []string{"TERM", "LANG", "COLORTERM", "TZ"}

// commandEnv returns the environment of a command, as KEY=VALUE.
func commandEnv(named []string) ([]string, error) {
	env, err := parseEnv(named)
	if err != nil {
		return nil, err
	}
	for _, name := range ambient {
		if v := os.Getenv(name); v != "" {
			env = append([]string{name + "=" + v}, env...)
		}
	}
	return env, nil
}
