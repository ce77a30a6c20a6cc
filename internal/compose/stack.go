package compose

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// The network in which the machine reaches the services. Its addresses are those for documentation, so no
// host has them (RFC 5737).
const (
	networkKey = "bawn-names"
	network    = "203.0.113.0/24"
	machine    = "203.0.113.1" // the network's gateway
	loopback   = "127.0.0.1"
)

// stack makes the compose file for the services that run beside the one that is worked in, to which it adds
// the ports that have to be published for them.
func (l *load) stack(own *Service) (*Stack, error) {
	run, err := l.chosen()
	if err != nil {
		return nil, err
	}
	s := &stacking{load: l, own: own, address: netip.MustParseAddr(machine), services: types.Services{}, at: map[string]string{},
		out: &Stack{Service: l.Service, Files: l.Files, Name: l.project.Name, Dir: l.dir}}
	for _, name := range run {
		if err := s.add(l.project.Services[name]); err != nil {
			return nil, fmt.Errorf("service %s: %w", name, err)
		}
	}
	s.name(run)
	if err := s.forward(); err != nil {
		return nil, err
	}
	l.conditions(s.out)
	if len(run) == 0 {
		return s.out, nil
	}
	s.out.Model, err = s.model()
	return s.out, err
}

// chosen returns the services that run, sorted: those that are asked for, or all that no profile keeps back,
// with what they and the service that is worked in depend on.
func (l *load) chosen() ([]string, error) {
	var todo []string
	for name, s := range l.project.Services {
		if l.Run == nil && len(s.Profiles) == 0 {
			todo = append(todo, name)
		}
	}
	for _, name := range l.Run {
		if _, ok := l.project.Services[name]; !ok {
			return nil, fmt.Errorf("runServices: there is no service %.200q", name)
		}
		todo = append(todo, name)
	}
	todo = append(todo, l.Service)
	run := map[string]bool{}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if s, ok := l.project.Services[name]; ok && !run[name] {
			run[name] = true
			todo = append(todo, slices.Collect(maps.Keys(s.DependsOn))...)
		}
	}
	delete(run, l.Service)
	return slices.Sorted(maps.Keys(run)), nil
}

// root returns the service whose network a service has.
func (l *load) root(name string) string {
	for range maxServices {
		of, ok := strings.CutPrefix(l.project.Services[name].NetworkMode, types.ServicePrefix)
		if !ok {
			break
		}
		name = of
	}
	return name
}

// shares reports whether a service has the network of the one that is worked in, which is the machine's.
func (l *load) shares(name string) bool { return l.root(name) == l.root(l.Service) }

// conditions notes for which services the one that is worked in waits.
func (l *load) conditions(s *Stack) {
	for _, name := range slices.Sorted(maps.Keys(l.own.DependsOn)) {
		switch l.own.DependsOn[name].Condition {
		case types.ServiceConditionHealthy:
			s.Healthy = append(s.Healthy, name)
		case types.ServiceConditionCompletedSuccessfully:
			s.Completed = append(s.Completed, name)
		}
	}
}

// stacking makes one Stack.
type stacking struct {
	*load
	own      *Service
	out      *Stack
	services types.Services
	address  netip.Addr        // that was given last
	at       map[string]string // addresses by the services
}

// add adds a service, changed to run without the one that is worked in.
func (s *stacking) add(c types.ServiceConfig) error {
	o := Other{Name: c.Name, Image: c.Image}
	if c.Build != nil {
		o.Image, o.Build = "", s.within(c.Build.Context)
	}
	if !plain(o.Image) || !plain(o.Build) {
		return fmt.Errorf("a text that is too long or cannot be shown")
	}
	o.Machine = s.asks(c)
	for key, of := range map[string]string{"ipc": c.Ipc, "pid": c.Pid, "uts": c.Uts, "cgroup": c.Cgroup} {
		if of == types.ServicePrefix+s.Service {
			return fmt.Errorf("%s: it cannot share that of %s, which is the machine's own", key, s.Service)
		}
	}
	s.detach(&c, &o)
	s.connect(&c)
	s.variables(&c)
	c.Develop, c.Profiles, c.Extends = nil, nil, nil
	s.services[c.Name] = c
	s.out.Services = append(s.out.Services, o)
	return nil
}

// detach takes out what refers to the service that is worked in.
func (s *stacking) detach(c *types.ServiceConfig, o *Other) {
	c.DependsOn = maps.Clone(c.DependsOn)
	delete(c.DependsOn, s.Service)
	c.Links = slices.DeleteFunc(slices.Clone(c.Links), func(link string) bool {
		name, _, _ := strings.Cut(link, ":")
		return name == s.Service
	})
	c.VolumesFrom = slices.DeleteFunc(slices.Clone(c.VolumesFrom), func(from string) bool {
		name, _, _ := strings.Cut(from, ":")
		if name == s.Service {
			o.Machine = append(o.Machine, "no volumes of "+s.Service+", which has its own (volumes_from)")
		}
		return name == s.Service
	})
}

// connect gives a service the machine's network, or a fixed address in the network of the names.
func (s *stacking) connect(c *types.ServiceConfig) {
	if s.shares(c.Name) {
		addPorts(s.own, c.Name, c.Ports)
		c.NetworkMode, c.Networks, c.Ports, c.Links = "host", nil, nil, nil
		c.Hostname, c.DomainName, c.MacAddress = "", "", ""
		s.at[c.Name] = loopback
		return
	}
	switch c.NetworkMode {
	case "host":
		s.at[c.Name] = loopback
		return
	case "", "default", "bridge":
	default: // none, or that of another one
		return
	}
	if c.Networks == nil {
		c.Networks = map[string]*types.ServiceNetworkConfig{"default": nil}
	}
	c.NetworkMode, c.Networks = "", maps.Clone(c.Networks)
	in := &types.ServiceNetworkConfig{}
	if c.GetScale() == 1 {
		s.address = s.address.Next()
		in.Ipv4Address = s.address.String()
		s.at[c.Name] = in.Ipv4Address
	}
	c.Networks[networkKey] = in
	c.ExtraHosts = maps.Clone(c.ExtraHosts)
	if c.ExtraHosts == nil {
		c.ExtraHosts = types.HostsList{}
	}
	for _, name := range slices.Sorted(maps.Keys(s.project.Services)) {
		if !s.shares(name) {
			continue
		}
		for _, n := range s.namesOf(name) {
			if _, own := c.ExtraHosts[n]; !own {
				c.ExtraHosts[n] = []string{machine}
			}
		}
	}
}

// variables lets a service start without the files of variables that the sandbox does not see.
func (s *stacking) variables(c *types.ServiceConfig) {
	c.EnvFiles = slices.Clone(c.EnvFiles)
	for i := range c.EnvFiles {
		if name := s.within(c.EnvFiles[i].Path); s.hidden(name) {
			c.EnvFiles[i].Required = false
			if !slices.Contains(s.own.NotRead, name) {
				s.own.NotRead = append(s.own.NotRead, name)
			}
		}
	}
}

// asks returns what a service asks of the machine, in words.
func (s *stacking) asks(c types.ServiceConfig) (list []string) {
	if c.Privileged {
		list = append(list, "privileged")
	}
	for key, value := range map[string]string{"network_mode": c.NetworkMode, "pid": c.Pid, "ipc": c.Ipc, "userns_mode": c.UserNSMode, "uts": c.Uts, "cgroup": c.Cgroup} {
		if value == "host" {
			list = append(list, key+": host")
		}
	}
	for _, key := range []struct {
		name string
		has  bool
	}{{"devices", len(c.Devices) > 0}, {"gpus", len(c.Gpus) > 0}, {"cap_add", len(c.CapAdd) > 0}, {"security_opt", len(c.SecurityOpt) > 0}} {
		if key.has {
			list = append(list, key.name)
		}
	}
	for _, v := range c.Volumes {
		outside := strings.HasPrefix(v.Source, "~") || !filepath.IsLocal(s.within(v.Source))
		if v.Type == types.VolumeTypeBind && outside {
			list = append(list, fmt.Sprintf("a mount of %.200s", v.Source))
		}
	}
	slices.Sort(list)
	return list
}

// hostName matches what may be in a hosts file.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62})$`)

// localName matches the names of the machine itself, and those by which it reaches bawn.
var localName = regexp.MustCompile(`(?i)^((ip6-)?(localhost|loopback)6?(\..*)?|(.*\.)?bawn\.internal)$`)

// namesOf returns the names by which others reach a service.
func (l *load) namesOf(name string) (list []string) {
	c := l.project.Services[name]
	all := []string{name, c.ContainerName, c.Hostname}
	for _, key := range slices.Sorted(maps.Keys(c.Networks)) {
		if n := c.Networks[key]; n != nil {
			all = append(all, n.Aliases...)
		}
	}
	for _, link := range l.own.Links {
		if of, alias, _ := strings.Cut(link, ":"); of == name {
			all = append(all, alias)
		}
	}
	for _, n := range all {
		if len(list) < maxList && hostName.MatchString(n) && !localName.MatchString(n) && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// name lists the names of all services with their addresses. A name has one: that of the first.
func (s *stacking) name(run []string) {
	names := map[string][]string{}
	given := map[string]bool{}
	s.at[s.Service] = loopback
	for _, name := range append([]string{s.Service}, run...) {
		at, ok := s.at[name]
		if !ok {
			at, ok = s.at[s.root(name)]
		}
		for _, n := range s.namesOf(name) {
			if ok && !given[n] {
				given[n] = true
				names[at] = append(names[at], n)
			}
		}
	}
	for _, at := range slices.Sorted(maps.Keys(names)) {
		s.out.Hosts = append(s.out.Hosts, Host{Address: at, Names: names[at]})
	}
}

// forward publishes the ports of other services that the host has to reach, in the machine and on the host.
func (s *stacking) forward() error {
	for _, f := range s.Forward {
		c, ok := s.services[f.Service]
		switch {
		case f.Service == s.Service || ok && s.at[f.Service] == loopback:
			s.publish(f.Port, f.Port)
			continue
		case !ok:
			return fmt.Errorf("forwardPorts: the service %.200q is not there, or does not run", f.Service)
		}
		guest := publishedAt(c, f.Port)
		if guest == 0 {
			guest = f.Port
			c.Ports = append(slices.Clone(c.Ports), types.ServicePortConfig{Mode: "ingress", HostIP: loopback, Target: uint32(f.Port), Published: fmt.Sprint(f.Port), Protocol: "tcp"})
			s.services[f.Service] = c
		}
		s.publish(f.Port, guest)
	}
	return nil
}

// publishedAt returns the port of the machine at which a service publishes one of its own, or 0.
func publishedAt(c types.ServiceConfig, port uint16) uint16 {
	var all Service
	addPorts(&all, c.Name, c.Ports)
	for _, p := range all.Ports {
		if p.Guest == port && p.Host != 0 {
			return p.Host
		}
	}
	return 0
}

func (s *stacking) publish(host, guest uint16) {
	if !slices.ContainsFunc(s.own.Ports, func(p Port) bool { return p.Host == host }) {
		s.own.Ports = append(s.own.Ports, Port{Host: host, Guest: guest})
	}
}

// model returns the compose file of the services.
func (s *stacking) model() (string, error) {
	p := *s.project
	if _, taken := p.Networks[networkKey]; taken {
		return "", fmt.Errorf("the network %s has a name that bawn needs: name it otherwise", networkKey)
	}
	p.Services, p.Jobs, p.Models = s.services, nil, nil
	p.Networks, p.Volumes = types.Networks{}, types.Volumes{}
	for _, c := range s.services {
		for key := range c.Networks {
			n := s.project.Networks[key]
			n.External = false // the machine has none but its own
			p.Networks[key] = n
		}
		for _, v := range c.Volumes {
			if named, ok := s.project.Volumes[v.Source]; ok && v.Type == types.VolumeTypeVolume {
				named.External = false
				p.Volumes[v.Source] = named
			}
		}
	}
	p.Networks[networkKey] = types.NetworkConfig{Name: p.Name + "_" + networkKey, Internal: true, Ipam: types.IPAMConfig{Config: []*types.IPAMPool{{Subnet: network, Gateway: machine}}}}
	b, err := p.MarshalJSON()
	if err != nil {
		return "", err
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		return "", err
	}
	for key := range v {
		if strings.HasPrefix(key, "x-") {
			delete(v, key)
		}
	}
	b, err = json.MarshalIndent(complete(v), "", "  ")
	return string(b) + "\n", err
}

// complete returns a value of a compose file as another version of Compose reads it: its texts have no
// variables, and a directory that is mounted is made if it is not there.
func complete(v any) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "$", "$$")
	case []any:
		for i := range v {
			v[i] = complete(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = complete(v[key])
		}
		if bind, ok := v["bind"].(map[string]any); ok && v["type"] == types.VolumeTypeBind {
			if _, said := bind["create_host_path"]; !said {
				bind["create_host_path"] = true
			}
		}
	}
	return v
}

// Folder returns the folder of the guest that relative paths of the compose file start from.
func (s *Stack) Folder(project string) string { return path.Join(project, s.Dir) }
