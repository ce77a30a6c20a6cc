package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/devcontainer"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/sys/text"
)

// This file starts the services that run beside a sandbox that was made from compose files. They run in the
// guest's own Docker, by its docker compose, from a file that package compose made of what was approved.
// Before they start, their names are put into the guest's hosts file, since their addresses are fixed.

// ServicesFailed is the reason of an error: the services beside the sandbox did not start (Sandbox).
const ServicesFailed Reason = "devcontainer-services-failed"

// NoDocker is the reason of an error: there are services beside the sandbox, and its image has no Docker to run
// them (Sandbox).
const NoDocker Reason = "devcontainer-without-docker"

// hostsFile is that of the guest. Tests have another one.
var hostsFile = "/etc/hosts"

// dockerSocket is that of the guest's Docker. Tests have another one.
var dockerSocket = "/run/docker.sock"

// servicesFile is the name of the compose file in setupOnceFolder.
const servicesFile = "compose.json"

// noDockerStatus is how checkScript says that there is no Docker.
const noDockerStatus = 90

// checkScript looks for a Docker with the socket $1 that can run the services.
const checkScript = `[ -S "$1" ] && docker compose version >/dev/null 2>&1 || exit 90`

// keepScript writes its input to the file $2 in the folder $1.
const keepScript = `mkdir -p "$1" && cat >"$1/$2.new" && mv "$1/$2.new" "$1/$2"`

// hostsScript replaces the lines of the hosts file $1 that an earlier run has written by the rest of its
// arguments. The first line that has a name counts, but the first one of 127.0.0.1 is that of localhost.
const hostsScript = `
file=$1; shift
mark="# service of devcontainer.json"
first= last= old=
while IFS= read -r line || [ -n "$line" ]; do
	case $line in *"$mark") ;; *) old="$old$line
" ;; esac
done <"$file"
for line; do
	line="$line	$mark
"
	case $line in 127.*) last="$last$line" ;; *) first="$first$line" ;; esac
done
printf %s "$first$old$last" >"$file"`

// completedScript waits until the containers of the service $3 of the compose file $1 have ended well. $2 is the
// folder that relative paths start from.
const completedScript = `
ids=$(docker compose -f "$1" --project-directory "$2" ps -a -q "$3") && [ -n "$ids" ] || { echo "it has no container" >&2; exit 1; }
for id in $ids; do
	status=$(docker wait "$id") || exit 1
	[ "$status" = 0 ] || { echo "it ended with the exit status $status:" >&2; docker logs --tail 20 "$id" >&2; exit 1; }
done`

// hasServices reports whether services run beside the sandbox.
func hasServices(s *devcontainer.Setup) bool { return s.Stack != nil && s.Stack.Model != "" }

// servicesNote is the name of the note that these services were started: others have another one.
func servicesNote(s *devcontainer.Setup) string {
	if !hasServices(s) {
		return ""
	}
	return "services-" + sha256Of(fmt.Appendf(nil, "%s\n%q", s.Stack.Model, s.Stack.Hosts))[:16]
}

// services starts the services beside the sandbox, and notes it.
func (r *setupRun) services(ctx context.Context, note string) error {
	if err := r.findDocker(ctx); err != nil {
		return err
	}
	s := r.setup.Stack
	input, err := inputOf([]byte(s.Model))
	if err != nil {
		return err
	}
	defer input.Close()
	if _, err := r.withInput(ctx, input, keepScript, setupOnceFolder, servicesFile); err != nil {
		return err
	}
	args := []string{hostsFile}
	for _, h := range s.Hosts {
		args = append(args, h.Address+"\t"+strings.Join(h.Names, " "))
	}
	if _, err := r.asRoot(ctx, hostsScript, args...); err != nil {
		return err
	}
	if err := r.compose(ctx, "up", "--detach", "--quiet-pull"); err != nil {
		return err
	}
	if len(s.Healthy) > 0 {
		if err := r.compose(ctx, append([]string{"up", "--detach", "--no-deps", "--no-recreate", "--wait"}, s.Healthy...)...); err != nil {
			return err
		}
	}
	for _, name := range s.Completed {
		if err := r.guestDocker(ctx, "the service "+name, "/bin/sh", "-c", completedScript, "sh", r.servicesPath(), s.Folder(r.s.Spec.Project.Guest), name); err != nil {
			return err
		}
	}
	_, err = r.asRoot(ctx, noteScript, setupStartFolder, note)
	return err
}

// findDocker returns NoDocker if the guest cannot run services.
func (r *setupRun) findDocker(ctx context.Context) error {
	exit, err := r.root.Run(ctx, session.Command{Argv: []string{"/bin/sh", "-c", checkScript, "sh", dockerSocket}, Dir: "/", Env: r.dockerEnv(), WaitOutput: true})
	if err == nil && exit.Status == noDockerStatus {
		var names []string
		for _, o := range r.setup.Stack.Services {
			names = append(names, o.Name)
		}
		err = failf(NoDocker, r.s.Spec.Name, "the image of the service %s has no Docker with docker compose, which runs the other services (%s) in the sandbox", r.setup.Stack.Service, strings.Join(names, ", "))
	}
	return err
}

// dockerEnv returns the environment of Docker's commands: the image says where they are.
func (r *setupRun) dockerEnv() []string {
	env := slices.DeleteFunc(slices.Clone(withPath(r.s.Spec.Boot.ImageEnv)), func(v string) bool { return !strings.HasPrefix(v, "PATH=") })
	return append(env, r.s.Spec.Env...)
}

func (r *setupRun) servicesPath() string { return setupOnceFolder + "/" + servicesFile }

// compose runs a command of docker compose on the services.
func (r *setupRun) compose(ctx context.Context, args ...string) error {
	argv := append([]string{"docker", "compose", "-f", r.servicesPath(), "--project-directory", r.setup.Stack.Folder(r.s.Spec.Project.Guest)}, args...)
	return r.guestDocker(ctx, "docker compose "+args[0], argv...)
}

// guestDocker runs a command on the guest's Docker, and shows what it prints.
func (r *setupRun) guestDocker(ctx context.Context, what string, argv ...string) error {
	if _, err := fmt.Fprintf(r.out, "bawn: %s: %s\n", text.Line(strings.Join(r.setup.Stack.Files, ", ")), text.Line(what)); err != nil {
		return err
	}
	exit, err := r.root.Run(ctx, session.Command{Argv: argv, Dir: "/", Env: r.dockerEnv(), Stdout: r.out, Stderr: r.out, WaitOutput: true})
	if ctx.Err() != nil { // which has closed the connection
		return context.Cause(ctx)
	}
	if err == nil && exit.Status != 0 {
		err = failf(ServicesFailed, r.s.Spec.Name, "the services beside the sandbox did not start: %s failed (exit status %d)", what, exit.Status)
	}
	return err
}
