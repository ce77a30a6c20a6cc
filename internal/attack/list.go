package attack

import "strings"

// attack is one attack, with both of its sides.
type attack struct {
	number          int
	kind, id, title string
	// try runs in the sandbox. It returns what it got, for the report. The error is nil or
	// a notApplicable; a refusal is no error.
	try func(*probe) (said string, err error)
	// evidence runs on the host, after the probe. It returns what shows that the attack
	// succeeded, or empty.
	evidence func(h *host, said string) string
	// needs is the variable whose name the sandbox must know, by the adapter. Where it does not,
	// the name leads nowhere, and that shows nothing.
	needs string
}

// notApplicable says why an attack cannot be tried.
type notApplicable string

func (n notApplicable) Error() string { return string(n) }

const (
	network = "network"
	secrets = "secrets"
	files   = "files"
)

// attacks is the whole list. IDs are also the names of servers, ports and first labels of
// the names of hosts that an attack asks for.
var attacks = []attack{
	{1, network, "name", "a connection to a name that no rule allows", (*probe).deniedName, arrived("name"), "ATTACK_DENIED"},
	{2, network, "resolver-udp", "a query to another resolver over UDP", (*probe).resolverUDP, arrived("resolver-udp"), ""},
	{2, network, "resolver-tcp", "a query to another resolver over TCP", (*probe).resolverTCP, arrived("resolver-tcp"), ""},
	{3, network, "address", "a connection to an address that no rule allows", tcpTo("address"), arrived("address"), ""},
	{4, network, "sni", "an allowed server with the name of another host in TLS", (*probe).otherSNI, arrived("sni"), ""},
	{4, network, "no-sni", "an allowed server without a name in TLS", (*probe).noSNI, arrived("no-sni"), ""},
	{4, network, "host", "HTTP with another Host", httpText("host", "GET / HTTP/1.1\r\nHost: {evil}\r\n\r\n"), arrived("host"), ""},
	{4, network, "absolute", "HTTP with another host in the request line", httpText("absolute", "GET http://{evil}/ HTTP/1.1\r\nHost: {good}\r\n\r\n"), arrived("absolute"), ""},
	{4, network, "connect", "HTTP CONNECT to another host", httpText("connect", "CONNECT {evil}:443 HTTP/1.1\r\nHost: {good}\r\n\r\n"), arrived("connect"), ""},
	{4, network, "pipelined", "a second, pipelined request with another Host", httpText("pipelined", "GET / HTTP/1.1\r\nHost: {good}\r\n\r\nGET / HTTP/1.1\r\nHost: {evil}\r\n\r\n"), arrived("pipelined"), ""},
	{4, network, "length", "a request hidden by Transfer-Encoding with Content-Length", httpText("length", "POST / HTTP/1.1\r\nHost: {good}\r\nContent-Length: 400\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: {evil}\r\n\r\n"), arrived("length"), ""},
	{4, network, "authority", "HTTP/2 with another :authority", (*probe).otherAuthority, arrived("authority"), ""},
	{5, network, "loop", "an allowed name that stands for the host's loopback", (*probe).loopName, arrived("loop"), "ATTACK_LOOP"},
	{6, network, "udp", "a datagram to an address that no rule allows", udpTo("udp", 64), arrived("udp"), ""},
	{6, network, "fragments", "a datagram in fragments", udpTo("fragments", 8000), arrived("fragments"), ""},
	{6, network, "ipv6", "a connection over IPv6", (*probe).ipv6, arrived("ipv6"), ""},
	{7, network, "gateway", "a service of the host, by the addresses that gateways have", (*probe).gateways, arrived("gateway"), ""},
	{7, network, "abstract", "an abstract Unix socket of the host", (*probe).abstractSocket, arrived("abstract"), ""},
	{7, network, "socket", "a Unix socket in the home directory, as a container engine's", (*probe).fileSocket, arrived("socket"), ""},
	{7, network, "metadata", "the metadata address of a cloud", func(*probe) (string, error) {
		return "", notApplicable("a counting server cannot have that address on the loopback")
	}, func(*host, string) string { return "" }, ""},
	{8, network, "redirect", "a redirect from an allowed server to one that is not", (*probe).redirect, arrived("redirect"), "ATTACK_DENIED"},
	{9, network, "nested", "a connection from a user namespace inside the sandbox", (*probe).nested, arrived("nested"), ""},
	{13, secrets, "environment", "a variable of the caller's environment", (*probe).environment, knows("the variable", func(h *host) string { return h.tokens.environment }), ""},
	{14, files, "absolute-path", "a file of the home directory, by its path", read(func(p *probe) string { return p.Secret }), readSecret, ""},
	{14, files, "ssh-key", "a private key in .ssh, by its path", read(func(p *probe) string { return p.Key }), knows("the key", func(h *host) string { return h.tokens.key }), ""},
	{14, files, "dotdot", "a file of the home directory, by ..", (*probe).dotdot, readSecret, ""},
	{14, files, "symlink", "the same, through a symbolic link", (*probe).symlink, readSecret, ""},
	{14, files, "hard-link", "the same, through a hard link", (*probe).hardLink, readSecret, ""},
	{14, files, "proc-root", "the same, through /proc/1/root and /proc/self/root", (*probe).procRoot, readSecret, ""},
	{14, files, "swap", "the same, through a directory that is exchanged for a link meanwhile", (*probe).swap, readSecret, ""},
	{14, files, "write", "a change of a file outside the project, or a new one", (*probe).write, (*host).outsideChanged, ""},
	{14, files, "setuid", "a set-user-ID file on the host", (*probe).setuid, (*host).setuidMade, ""},
	{14, files, "device", "a device node on the host", (*probe).device, (*host).deviceMade, ""},
	{14, files, "process", "the end of a process of the host", (*probe).kill, (*host).victimEnded, ""},
	{15, files, "git-hook", "a hook that git on the host runs", writeIn(".git/hooks/pre-commit"), changed(".git/hooks/pre-commit"), ""},
	{15, files, "git-config", "git's configuration of the project", writeIn(".git/config"), changed(".git/config"), ""},
	{15, files, "envrc", "a script that a shell of the host loads", writeIn(".envrc"), changed(".envrc"), ""},
	{15, files, "tasks", "tasks that an editor of the host runs", writeIn(".vscode/tasks.json"), changed(".vscode/tasks.json"), ""},
	{16, files, "dotenv", "secrets in the project's .env", read(func(*probe) string { return ".env" }), knows("the secret", func(h *host) string { return h.tokens.dotenv }), ""},
}

// arrived is the evidence of a server that counts.
func arrived(id string) func(*host, string) string {
	return func(h *host, _ string) string { return h.counts.first(id) }
}

// knows is the evidence of a token that the probe can only have from outside.
func knows(what string, token func(*host) string) func(*host, string) string {
	return func(h *host, said string) string {
		if strings.Contains(said, token(h)) {
			return "the probe read " + what
		}
		return ""
	}
}

func readSecret(h *host, said string) string {
	return knows("the file", func(h *host) string { return h.tokens.secret })(h, said)
}
