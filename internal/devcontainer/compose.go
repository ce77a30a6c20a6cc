package devcontainer

import (
	"maps"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"bawn.dev/bawn/internal/compose"
)

// Compose says what is made of the compose files in Setup.
type Compose struct {
	Service string   // that is worked in
	Run     []string // services to run beside it; nil are all
	// Forward are ports of other services (NAME:PORT in forwardPorts).
	Forward []compose.Forward

	user bool // the file says who runs commands
}

// composeFiles reads the names of compose files: one, or a list.
func (p *parser) composeFiles(v *hujson.Value) {
	if !empty(v) {
		p.out.Setup.ComposeFiles = p.texts(v)
		if len(p.out.Setup.ComposeFiles) > compose.MaxFiles {
			p.failAt(v, "more than %d compose files", compose.MaxFiles)
		}
	}
}

// texts reads one text, or a list of them.
func (p *parser) texts(v *hujson.Value) (list []string) {
	one := []hujson.Value{*v}
	if _, ok := v.Value.(*hujson.Array); ok {
		one = p.list(v)
	}
	for i := range one {
		if s, ok := p.text(&one[i]); ok {
			list = append(list, s)
		}
	}
	return list
}

func (p *parser) composeService(v *hujson.Value) {
	if s, ok := p.text(v); ok && p.out.Compose != nil {
		p.out.Compose.Service = s
	}
}

// runServices reads which services run. An empty list is none beside the one that is worked in.
func (p *parser) runServices(v *hujson.Value) {
	if l, ok := v.Value.(hujson.Literal); p.out.Compose == nil || ok && l.Kind() == 'n' {
		return
	}
	p.out.Compose.Run = append([]string{}, p.texts(v)...)
}

// otherPort reads a port of another service.
func (p *parser) otherPort(v *hujson.Value, service, port string) {
	n, ok := p.portNumber(v, port)
	f := compose.Forward{Service: service, Port: n}
	if ok && !slices.Contains(p.out.Compose.Forward, f) {
		p.out.Compose.Forward = append(p.out.Compose.Forward, f)
	}
}

func (p *parser) checkCompose(root *hujson.Value) {
	c := p.out.Compose
	switch {
	case c == nil:
	case c.Service == "":
		p.failAt(root, "dockerComposeFile without service: write which of its services is worked in")
	case p.out.Image != "" || p.out.Build != nil:
		p.failAt(root, "dockerComposeFile beside an image or a build: the service has its own; keep one")
	}
}

// UseService adds to the setup what the compose files say. What the file itself says takes precedence.
func (c *Config) UseService(r *compose.Result, places Places) error {
	s, setup := &r.Service, &c.Setup
	setup.Stack = r.Stack
	setup.addEnv(s.Env)
	if !c.Compose.user {
		setup.Root = isRoot(s.User)
	}
	setup.HostEnv = append(setup.HostEnv, s.HostEnv...)
	slices.Sort(setup.HostEnv)
	setup.HostEnv = slices.Compact(setup.HostEnv)
	setup.Hidden = s.NotRead
	for _, f := range r.Taken {
		if len(f.Vars) > 0 {
			setup.EnvFiles = append(setup.EnvFiles, f.File+": "+strings.Join(slices.Sorted(maps.Keys(f.Vars)), ", "))
		}
	}
	if len(s.HostEnv) > 0 {
		setup.EnvFilesNotTaken = r.NotTaken
	}
	for _, what := range s.NoUse {
		setup.Unknown = append(setup.Unknown, printable(what)+" (of the service "+r.Stack.Service+")")
	}
	return setup.placeProject(s, places)
}

// addEnv adds variables of the container to those of the file, which may refer to them.
func (s *Setup) addEnv(env []string) {
	own := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		own[name] = value
	}
	vars := maps.Clone(own)
	for _, v := range s.Env {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = withOwn(value, own)
	}
	s.Env = envList(vars)
}

// placeProject sets by which path the service has the project, and where commands run.
func (s *Setup) placeProject(service *compose.Service, places Places) error {
	if s.Mount != "" { // the file says so
		return nil
	}
	for _, m := range service.Project {
		if s.Mount == "" && (s.Workspace == "" || beneath(m, s.Workspace)) {
			s.Mount = m
		}
	}
	if s.Workspace == "" && s.Mount != "" && beneath(s.Mount, service.Dir) {
		s.Workspace = service.Dir
	}
	return s.mountProject(places)
}
