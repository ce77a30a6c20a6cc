package compose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
)

// service returns what the service that is worked in asks for. Its ports may become more (stack).
func (l *load) service() (Service, error) {
	s := Service{Image: l.own.Image, User: l.own.User, Dir: l.own.WorkingDir}
	err := l.build(&s)
	if err == nil {
		err = l.environment(&s)
	}
	if err == nil {
		err = l.volumes(&s)
	}
	if err != nil {
		return s, fmt.Errorf("service %s: %w", l.Service, err)
	}
	addPorts(&s, l.Service, l.own.Ports)
	l.withoutEffect(&s)
	for _, v := range []string{s.Image, s.User, s.Dir} {
		if !plain(v) {
			return s, fmt.Errorf("service %s: a text that is too long or cannot be shown", l.Service)
		}
	}
	return s, nil
}

// plain reports whether a text can be shown and is not too long.
func plain(s string) bool {
	return len(s) <= maxValue && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }) < 0
}

// within returns a path of the compose files relative to the project: beginning with .. if it does not lie
// in there.
func (l *load) within(p string) string {
	if path.IsAbs(p) {
		if rel, err := filepath.Rel(l.Project, path.Clean(p)); err == nil {
			return rel
		}
	}
	return path.Join(l.dir, p)
}

// build reads how the image of the service is built, if it is.
func (l *load) build(s *Service) error {
	b := l.own.Build
	if b == nil {
		return nil
	}
	switch {
	case b.DockerfileInline != "":
		return errors.New("build: dockerfile_inline is not taken: write it to a file, and name that")
	case strings.Contains(b.Context, "://") || strings.HasPrefix(b.Context, "git@"):
		return errors.New("build: the context must be a folder of the project")
	case len(b.Args) > maxList:
		return fmt.Errorf("build: more than %d arguments", maxList)
	}
	s.Image = ""
	s.Build = &Build{Context: l.within(b.Context), Target: b.Target}
	s.Build.Dockerfile = path.Join(s.Build.Context, b.Dockerfile)
	if path.IsAbs(b.Dockerfile) {
		s.Build.Dockerfile = l.within(b.Dockerfile)
	}
	for _, name := range slices.Sorted(maps.Keys(b.Args)) {
		if value := b.Args[name]; value != nil {
			s.Build.Args = append(s.Build.Args, name+"="+*value)
			continue
		}
		if value, ok := l.env[name]; ok {
			s.Build.Args = append(s.Build.Args, name+"="+value)
			continue
		}
		l.unset[name] = true
	}
	for _, key := range keysBeside(b, "context", "dockerfile", "target", "args") {
		s.NoUse = append(s.NoUse, "build."+key)
	}
	return nil
}

// variableName matches the names of variables, which may have the dots and hyphens of programs in Java.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// environment reads the variables of the service: those of its files, then its own.
func (l *load) environment(s *Service) error {
	vars := map[string]string{}
	for _, f := range l.own.EnvFiles {
		if err := l.envFile(s, f, vars); err != nil {
			return fmt.Errorf("env_file %.200q: %w", f.Path, err)
		}
	}
	for name, value := range l.own.Environment {
		if value != nil {
			vars[name] = *value
		} else if value, ok := l.env[name]; ok {
			vars[name] = value
		} else if _, ok := vars[name]; !ok {
			l.unset[name] = true
		}
	}
	if len(vars) > maxVariables {
		return fmt.Errorf("more than %d variables", maxVariables)
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if !variableName.MatchString(name) || !plain(name) {
			return fmt.Errorf("%.100q is not the name of a variable", name)
		}
		if !plain(vars[name]) {
			return fmt.Errorf("the variable %.100s is too long or cannot be shown", name)
		}
		s.Env = append(s.Env, name+"="+vars[name])
	}
	return nil
}

// envFile adds the variables of a file.
func (l *load) envFile(s *Service, f types.EnvFile, vars map[string]string) error {
	name := l.within(f.Path)
	if !filepath.IsLocal(name) {
		return errors.New("it does not lie in the project")
	}
	if l.hidden(name) {
		s.NotRead = append(s.NotRead, name)
		return nil
	}
	text, err := l.Read(name)
	if errors.Is(err, fs.ErrNotExist) && !bool(f.Required) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.variables(name, text, vars, l.env, f.Format)
}

// variables adds the variables of a file to vars. In their values, a variable stands for what it has in vars, or
// in outer.
func (l *load) variables(name string, text []byte, vars, outer map[string]string, format string) error {
	if err := l.spent.substitution(string(text)); err != nil {
		return err
	}
	var tooLong error
	err := dotenv.ParseWithFormat(bytes.NewReader(text), name, vars, func(name string) (string, bool) {
		value, ok := vars[name]
		if !ok {
			value, ok = outer[name]
			l.used[name] = true
		}
		if !ok {
			l.unset[name] = true
		}
		if err := l.spent.search(len(value)); err != nil { // each value may have an earlier one twice
			tooLong = err
			return "", true
		}
		return value, ok
	}, format)
	if err == nil {
		err = tooLong
	}
	if err != nil {
		return shown(err)
	}
	return nil
}

func (l *load) hidden(name string) bool { return l.Hidden != nil && l.Hidden(name) }

// volumes reads where the service has the project, and its volumes.
func (l *load) volumes(s *Service) error {
	if len(l.own.Volumes) > maxList {
		return fmt.Errorf("more than %d volumes", maxList)
	}
	for _, v := range l.own.Volumes {
		if !plain(v.Source) || !plain(v.Target) {
			return errors.New("volumes: a path that is too long or cannot be shown")
		}
		if !path.IsAbs(v.Target) || strings.ContainsAny(v.Target, "\n\t") {
			return fmt.Errorf("volumes: %.200q is not an absolute path", v.Target)
		}
		at := fmt.Sprintf("the volume %s:%s", v.Source, v.Target)
		switch {
		case v.Type == types.VolumeTypeBind:
			l.bind(s, v)
		case v.Type != types.VolumeTypeVolume:
			s.NoUse = append(s.NoUse, fmt.Sprintf("the mount of the type %.20q at %s", v.Type, v.Target))
		case v.Source == "":
			s.NoUse = append(s.NoUse, fmt.Sprintf("the volume without a name at %s (in the project: --local-dir keeps it on the sandbox's own disk)", v.Target))
		case l.usedBeside(v.Source):
			s.NoUse = append(s.NoUse, at+", which a service beside it has, too")
		default:
			s.Volumes = append(s.Volumes, Volume{Name: l.project.Volumes[v.Source].Name, Target: v.Target, ReadOnly: v.ReadOnly})
		}
	}
	return nil
}

// around matches the project and the directories that it lies in, relative to it.
var around = regexp.MustCompile(`^(\.|\.\.(/\.\.)*)$`)

// bind reads a mount of a directory: one in which the project lies says where the service has that.
func (l *load) bind(s *Service, v types.ServiceVolumeConfig) {
	source := l.within(v.Source)
	if !strings.HasPrefix(v.Source, "~") && around.MatchString(source) {
		from := path.Join(l.Project, source)
		s.Project = append(s.Project, path.Join(v.Target, strings.TrimPrefix(l.Project, from)))
		return
	}
	where := "of the host: --mount shares it"
	if filepath.IsLocal(source) && !strings.HasPrefix(v.Source, "~") {
		where = "of the project, which the guest has at " + path.Join(l.Project, source)
	}
	s.NoUse = append(s.NoUse, fmt.Sprintf("the mount of %s at %s (%s)", v.Source, v.Target, where))
}

// usedBeside reports whether another service has that volume.
func (l *load) usedBeside(volume string) bool {
	for name, s := range l.project.Services {
		if name != l.Service && slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool {
			return v.Type == types.VolumeTypeVolume && v.Source == volume
		}) {
			return true
		}
	}
	return false
}

// addPorts adds the published ports of a service that has the sandbox's network.
func addPorts(s *Service, name string, ports []types.ServicePortConfig) {
	for _, p := range ports {
		host, err := strconv.ParseUint("0"+p.Published, 10, 16)
		if err != nil || p.Protocol != "" && p.Protocol != "tcp" || p.Target == 0 || p.Target > 1<<16-1 || len(s.Ports) >= maxList {
			s.NoUse = append(s.NoUse, fmt.Sprintf("the port %s:%d/%s of %s", p.Published, p.Target, p.Protocol, name))
			continue
		}
		s.Ports = append(s.Ports, Port{Host: uint16(host), Guest: uint16(p.Target)})
	}
}

// The keys of a service that have an effect, or none that anybody misses in a machine.
var usedKeys = []string{
	"build", "container_name", "depends_on", "env_file", "environment", "hostname", "image", "links", "network_mode", "networks", "ports", "user", "volumes", "working_dir",
	"attach", "develop", "expose", "healthcheck", "init", "labels", "logging", "profiles", "pull_policy", "restart", "stdin_open", "stop_grace_period", "stop_signal", "tty",
	"command", "entrypoint", // idle
}

// withoutEffect lists what of the service has no effect.
func (l *load) withoutEffect(s *Service) {
	s.NoUse = append(s.NoUse, keysBeside(l.own, usedKeys...)...)
	for key, command := range map[string]types.ShellCommand{"command": l.own.Command, "entrypoint": l.own.Entrypoint} {
		if !idle(command) {
			s.NoUse = append(s.NoUse, fmt.Sprintf("the %s %.200q, which nothing starts: run it yourself, or by postStartCommand", key, strings.Join(command, " ")))
		}
	}
	if mode := l.own.NetworkMode; mode != "" && !strings.HasPrefix(mode, types.ServicePrefix) {
		s.NoUse = append(s.NoUse, fmt.Sprintf("network_mode %.100q", mode))
	}
	slices.Sort(s.NoUse)
}

// idle reports whether a command only keeps a container running.
func idle(command types.ShellCommand) bool {
	text := strings.Join(command, " ")
	return text == "" || strings.Contains(text, "sleep ") || strings.HasPrefix(text, "tail -f /dev/null") || text == "bash" || text == "/bin/bash" || text == "sh" || text == "/bin/sh"
}

// keysBeside returns the keys that a part of the file has, without those.
func keysBeside(part any, without ...string) (list []string) {
	b, err := json.Marshal(part)
	var keys map[string]any
	if err != nil || json.Unmarshal(b, &keys) != nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !slices.Contains(without, key) {
			list = append(list, key)
		}
	}
	return list
}
