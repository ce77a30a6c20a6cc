package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/publish"
)

// ChangePorts closes published ports, by their numbers on the host, and opens others:
// all of it, or nothing. It takes effect at once where the sandbox runs, and is kept for
// the next start. It returns the ports that are then published.
func (e *Engine) ChangePorts(ctx context.Context, name string, add []sandbox.Port, remove []uint16) ([]sandbox.Port, error) {
	d, err := e.folder(name)
	if err != nil {
		return nil, err
	}
	l, err := e.lockStart(ctx, d)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	spec, err := d.Spec()
	if err != nil {
		return nil, err
	}
	running, open, err := openPorts(ctx, d, spec)
	if err != nil {
		return nil, err
	}
	closing, err := published(name, open, remove)
	if err != nil {
		return nil, err
	}
	client := control.NewClient(d.DialControl)
	if running {
		if add, err = client.ChangePorts(ctx, add, remove); err != nil {
			return nil, err
		}
	}
	keepPorts(spec, closing, add)
	if err := spec.Check(); err != nil {
		return nil, err
	}
	if len(add)+len(remove) > 0 {
		if err := d.WriteSpec(spec); err != nil {
			return nil, err
		}
	}
	if !running {
		return spec.Ports, nil
	}
	now, err := client.Status(ctx)
	return now.Ports, err
}

// openPorts returns the ports that are open or, if the sandbox does not run, that the next
// start opens.
func openPorts(ctx context.Context, d store.Dir, spec *sandbox.Spec) (running bool, open []sandbox.Port, err error) {
	st, err := d.State()
	if err != nil {
		return false, nil, err
	}
	if st.Phase != sandbox.Running {
		return false, spec.Ports, nil
	}
	now, err := control.NewClient(d.DialControl).Status(ctx)
	return true, now.Ports, err
}

// published finds published ports by their numbers on the host.
func published(name string, open []sandbox.Port, hosts []uint16) ([]sandbox.Port, error) {
	var list []sandbox.Port
	for _, h := range hosts {
		i := slices.IndexFunc(open, func(p sandbox.Port) bool { return p.Host == h })
		if i < 0 {
			return nil, &Error{Reason: PortNotPublished, Sandbox: name, Port: sandbox.Port{Host: h}, Err: fmt.Errorf("port %d is not published", h)}
		}
		list = append(list, open[i])
	}
	return list, nil
}

// keepPorts changes the ports of a spec. Ports that are added count as the user's, even if
// bawn.yaml had added them before.
func keepPorts(spec *sandbox.Spec, closed, added []sandbox.Port) {
	for _, p := range closed {
		spec.Ports = withoutPort(spec.Ports, p)
	}
	for _, p := range added {
		spec.Ports = addPort(spec.Ports, p)
		spec.Added.Ports = slices.DeleteFunc(spec.Added.Ports, func(o sandbox.Port) bool { return o.Host == p.Host })
	}
}

// withoutPort leaves a published port out, or what it was published for: any port of
// the host that is free.
func withoutPort(list []sandbox.Port, p sandbox.Port) []sandbox.Port {
	return slices.DeleteFunc(slices.Clone(list), func(o sandbox.Port) bool {
		return o.Host == p.Host || o.Host == 0 && o.Guest == p.Guest
	})
}

// portsFree returns an error if a port of the spec is taken on the host. It runs before the
// machine is started and before the spec is saved.
func portsFree(spec *sandbox.Spec, c *SpecChange) error {
	for _, p := range spec.Ports {
		err := publish.Check(spec.Loopbacks(), p)
		if err == nil {
			continue
		}
		failed := &Error{Reason: cmp.Or(ReasonOf(err), PortInUse), Sandbox: spec.Name, Port: p, Origin: FromSandbox, Err: err}
		switch {
		case c != nil && slices.Contains(c.Publish, p):
			failed.Origin = FromRequest
		case slices.Contains(spec.Added.Ports, p):
			failed.Origin = FromProject
		}
		return failed
	}
	return nil
}
