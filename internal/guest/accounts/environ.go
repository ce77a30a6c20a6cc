package accounts

import (
	"slices"
	"strings"
)

// userPath and RootPath are the default search paths of Debian's login.
const (
	userPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
	RootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// environment is a list of KEY=VALUE, each key once.
type environment []string

// set adds variables, or replaces their values. What is not KEY=VALUE is left out.
func (e *environment) set(vars ...string) {
	for _, v := range vars {
		key, _, ok := strings.Cut(v, "=")
		if !ok || key == "" || strings.ContainsRune(v, 0) {
			continue
		}
		i := slices.IndexFunc(*e, func(o string) bool { return strings.HasPrefix(o, key+"=") })
		if i < 0 {
			*e = append(*e, v)
		} else {
			(*e)[i] = v
		}
	}
}

// unset removes a variable.
func (e *environment) unset(key string) {
	*e = slices.DeleteFunc(*e, func(o string) bool { return strings.HasPrefix(o, key+"=") })
}

// Getenv returns the value of a variable in a list of KEY=VALUE; "" where it is not set.
func Getenv(env []string, key string) string {
	for _, v := range env {
		if s, ok := strings.CutPrefix(v, key+"="); ok {
			return s
		}
	}
	return ""
}

// Setenv returns the list of KEY=VALUE with a variable added, or with its value replaced.
func Setenv(env []string, key, value string) []string {
	e := environment(slices.Clone(env))
	e.set(key + "=" + value)
	return e
}
