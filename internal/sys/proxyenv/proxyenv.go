// Package proxyenv knows by which variables of the environment programs find a proxy.
package proxyenv

import (
	"os"
	"strings"
)

// variable is the variable in which the names go on to a process without the variables
// themselves: their values may have passwords.
const variable = "BAWN_HOST_PROXY"

// names are the variables, by the convention of curl(1) and others.
var names = []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}

// Names returns the variables that are set and not empty, in this process or in the one
// that gave it Pass.
func Names() (list []string) {
	for _, n := range names {
		if os.Getenv(n) != "" {
			list = append(list, n)
		}
	}
	if list == nil {
		list = strings.Fields(os.Getenv(variable))
	}
	return list
}

// Pass returns a setting for the environment of another process, in which Names returns
// the same; empty if no proxy is set.
func Pass() string {
	list := Names()
	if len(list) == 0 {
		return ""
	}
	return variable + "=" + strings.Join(list, " ")
}

// Hint says that bawn uses no proxy, for a message about a connection that failed or for a
// report about this host; empty if no proxy is set. used are the names of the variables.
func Hint(used []string) string {
	if len(used) == 0 {
		return ""
	}
	return "bawn connects directly, without the proxy that " + strings.Join(used, ", ") + " names"
}
