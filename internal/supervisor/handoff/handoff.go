// Package handoff is what a process passes to a supervisor that it starts, or to a pool
// member that it turns into a sandbox, and what it hears back: the hidden verbs, the
// inherited descriptors, the environment, the start events and the claim.
//
// Launchers (packages launch and pool) and the daemon (package supervisor) both import
// it, so neither needs the other.
package handoff

import (
	"log/slog"
	"os"

	"bawn.dev/bawn/internal/sys/proxyenv"
)

// The hidden verbs of bawn whose processes belong to running sandboxes.
const (
	SuperviseVerb  = "__supervise"   // the supervisor of a sandbox
	ShareVerb      = "__share"       // the server of one shared directory
	TemplateVerb   = "__template"    // builds a template, then tops up the pool
	PoolMemberVerb = "__pool-member" // the supervisor of a pool member
	TopUpVerb      = "__top-up"      // tops up the pool
	AgentsVerb     = "__agents"      // updates the agents of a sandbox
	CachesVerb     = "__caches"      // fetches the packages that the caches of a sandbox lack
)

// Inherited descriptors: the first after standard error (os/exec, ExtraFiles).
const (
	EventFD = 3 // the pipe on which a supervisor reports start events to its launcher
	LockFD  = 4 // the sandbox's lock
	ShareFD = 3 // the socket on which a share server takes its orders
)

// keptEnv are the variables that a supervisor inherits: where things lie, how names resolve,
// by which proxies the host reaches others, and where the person's ssh-agent, keys of GnuPG and screen are (git over SSH,
// commands of secrets, signatures of commits). These may have a password: only the user can
// read a process's environment, and QEMU and the share servers get another one. Whatever
// else the user has set (tokens among it) stays out of a process that lives for weeks.
var keptEnv = append([]string{
	"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "TZ", "TMPDIR",
	"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK", "GNUPGHOME", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
	"BAWN_ACCEL", "BAWN_DEBUG", "BAWN_GDB", templateEnv, "GODEBUG", "RES_OPTIONS",
}, proxyenv.Variables...)

// templateEnv is the variable that turns templates off if its value is "off".
const templateEnv = "BAWN_TEMPLATES"

// registryEnv are the variables that name registries of packages. Their URLs may have passwords, so
// only a process that fetches packages, and then ends, inherits them.
var registryEnv = []string{"npm_config_registry", "NPM_CONFIG_REGISTRY", "NPM_CONFIG_USERCONFIG", "GOPROXY", "GONOPROXY", "GOPRIVATE", "GOENV"}

// Env returns the environment of a supervisor, taken from this process's.
func Env() []string { return kept(keptEnv) }

// RegistryEnv returns what the environment of a process that fetches packages has beside that.
func RegistryEnv() []string { return kept(registryEnv) }

// kept returns those of the variables that this process has.
func kept(names []string) []string {
	var env []string
	for _, k := range names {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// TemplatesEnabled reports whether sandboxes may start from templates.
func TemplatesEnabled() bool { return os.Getenv(templateEnv) != "off" }

// LogOptions returns the options of a supervisor's log: with BAWN_DEBUG set, debug
// messages are logged too.
func LogOptions() *slog.HandlerOptions {
	if os.Getenv("BAWN_DEBUG") != "" {
		return &slog.HandlerOptions{Level: slog.LevelDebug}
	}
	return nil
}

// BackgroundNice is the priority of a session that prepares a machine nobody waits for
// (sched(7), autogroup): it gets a third of an ordinary session's share, so that it comes
// to an end also on a host that is always busy.
const BackgroundNice = 5
