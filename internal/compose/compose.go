// Package compose reads the compose files (compose-spec.io) that a devcontainer.json names: the service
// that is worked in, which becomes the sandbox itself, and the services beside it, which run in the
// sandbox's own Docker.
//
// The files are hostile input, for the guest may write to them. The reader is compose-go, that of Docker,
// which here gets the bytes of the files and reads nothing of the disk by itself: files that others name
// (include, extends of a file), the project's .env and the service's env_file come through Request.Read
// (sources.go). No variable of the host is read.
//
// Theory of operation. The service's commands run in the machine, so the machine has the service's place
// in the network of the others:
//
//   - A service that shares the service's network (network_mode: service:NAME, in either direction) shares
//     the machine's: network_mode is host, and both reach each other by localhost.
//   - Each other service is in one network more, with a fixed address, which its names stand for in the
//     machine's hosts file. So they hold however often a container is started or made again.
//   - The others reach the service, and those that share its network, at the machine's address in that
//     network, by their names (extra_hosts).
//
// The network has no way out (internal), so that a service that the file gives none gets none by it.
package compose

// Limits of what is read.
const (
	MaxFiles = 16        // compose files of a request, and of an entry of include
	MaxFile  = 256 << 10 // of a file that Request.Read returns, in bytes

	maxServices = 64
	maxValue    = 16 << 10 // of a variable, an image's name or a path, in bytes
	maxNodes    = 20_000   // of the YAML of all files, as spent counts them
	maxList     = 64       // ports, volumes and names of the service, and arguments of its build

	maxVariables = 256  // of the service
	maxEnvValues = 1024 // variables of .env, and of what include names in its place
	maxSources   = 128  // files that others include or extend, each once for each .env that counts for it
)

// Request says what to read.
type Request struct {
	Files   []string // compose files relative to the project, in their order
	Service string   // that is worked in
	// Run are the services that run beside it, with what they depend on; nil are all.
	Run []string
	// Forward are ports of other services that the host has to reach.
	Forward []Forward
	// Project is the path of the project, on the host and in the guest.
	Project string
	// Read returns a file of the project, of at most MaxFile bytes.
	Read func(name string) ([]byte, error)
	// Hidden reports whether the sandbox does not see a file of the project. nil: it sees all.
	Hidden func(name string) bool
	// Values returns those variables of a hidden file (.env, env_file of include) that the person lets the
	// compose files have. taken is false if they are to have none of it. nil: of no file.
	Values func(name string) (vars map[string]string, taken bool, err error)
}

// Forward is a port of another service.
type Forward struct {
	Service string
	Port    uint16
}

// Result is what the files ask for.
type Result struct {
	Service Service
	Stack   *Stack // never nil
	// Taken are the variables of hidden files that the compose files name, of those that Request.Values gave.
	Taken []FileValues
	// NotTaken are hidden files whose variables would have had a place in the compose files. They may not exist.
	NotTaken []string
}

// FileValues are variables of a file of the project.
type FileValues struct {
	File string            `json:"file"`
	Vars map[string]string `json:"vars"`
}

// Service is what the service that is worked in asks of the sandbox.
type Service struct {
	Image string
	Build *Build // in place of Image
	Env   []string
	User  string
	Dir   string // working directory; may be empty

	Ports   []Port
	Project []string // paths at which the service has the project
	Volumes []Volume

	HostEnv []string // variables that would have had a value of the host's environment
	NotRead []string // files of variables that are hidden from the sandbox, and not taken
	NoUse   []string // what has no effect, in words
}

// Build describes the image of the service. Paths are relative to the project and may lead out of it.
type Build struct {
	Context, Dockerfile, Target string
	Args                        []string
}

// Port is a port of the guest that is published on the host; Host 0 is a free one.
type Port struct{ Host, Guest uint16 }

// Volume is a named volume.
type Volume struct {
	Name, Target string
	ReadOnly     bool
}

// Stack are the services beside the one that is worked in.
type Stack struct {
	Service  string   `json:"service"`            // the one that is worked in
	Files    []string `json:"files"`              // relative to the project
	Name     string   `json:"name"`               // of the project, for Compose
	Dir      string   `json:"dir"`                // that relative paths start from, relative to the project
	Services []Other  `json:"services,omitempty"` // those that run
	// Model is the compose file for the guest's Docker, in JSON; empty if there is nothing to run.
	Model string `json:"model,omitempty"`
	Hosts []Host `json:"hosts,omitempty"`
	// Healthy and Completed are services that the one that is worked in waits for.
	Healthy   []string `json:"healthy,omitempty"`
	Completed []string `json:"completed,omitempty"`
}

// Other is one service beside the one that is worked in.
type Other struct {
	Name  string `json:"name"`
	Image string `json:"image,omitempty"`
	Build string `json:"build,omitempty"` // directory
	// Machine is what it asks of the machine that it runs on, in words.
	Machine []string `json:"machine,omitempty"`
}

// Host has names of an address of the guest.
type Host struct {
	Address string   `json:"address"`
	Names   []string `json:"names"`
}
