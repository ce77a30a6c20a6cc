package qemu

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/socketpair"
)

// Start runs the machine, confined, and returns when QEMU answers on QMP; the
// guest boots meanwhile. self is the path of this program, whose hidden verb
// confine.Verb must lead to confine.Main. When ctx ends before QEMU answers, QEMU is
// killed; later it has no effect.
//
// The files of Console, Ports and NIC are closed, also on failure, so that
// the caller's ends report the end of the machine. RAM and the disks' files stay the
// caller's.
func (m *Machine) Start(ctx context.Context, self string, spawner *proc.Spawner) (*Process, error) {
	defer m.closeSockets()
	if err := m.Check(); err != nil {
		return nil, err
	}
	p, monitor, err := m.spawn(self, spawner)
	if err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	if p.QMP, err = newQMP(ctx, monitor); err != nil {
		p.Kill()
		<-p.done
		if output := p.output.String(); output != "" {
			return nil, fmt.Errorf("start QEMU: it printed: %s", output)
		}
		return nil, fmt.Errorf("start QEMU: %w (%v)", err, p.cmd.ProcessState)
	}
	p.watchLife()
	return p, nil
}

// spawn starts the process, without a QMP connection yet, and returns this process's end
// of its monitor. It closes its copies of QEMU's descriptors: otherwise the end of a QEMU
// that never answered would not be noticed.
func (m *Machine) spawn(self string, spawner *proc.Spawner) (_ *Process, _ *net.UnixConn, err error) {
	monitor, monitorEnd, err := socketpair.New()
	if err != nil {
		return nil, nil, err
	}
	defer monitorEnd.Close()
	regs, regsEnd, err := socketpair.New()
	if err != nil {
		monitor.Close()
		return nil, nil, err
	}
	defer regsEnd.Close()
	defer func() {
		if err != nil {
			monitor.Close()
			regs.Close()
		}
	}()
	files := append([]*os.File{monitorEnd, regsEnd}, m.files()...) // fdQMP, fdRegisters, fdFirst
	cmd, err := confine.Command(self, m.Profile(), append([]string{m.Binary}, m.Args()...), files...)
	if err != nil {
		return nil, nil, err
	}
	p := &Process{
		cmd: cmd, output: &tail{}, done: make(chan struct{}),
		plugs: make([]bool, m.Plugs), plugOf: map[string]int{},
	}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	cmd.WaitDelay = time.Second // a descriptor that leaked to another process must not delay Wait
	if err := spawner.Start(cmd); err != nil {
		return nil, nil, err
	}
	m.closeSockets()
	if m.CanDetachShares() {
		p.registers = newRegisters(regs)
	} else {
		regs.Close()
	}
	go p.wait()
	return p, monitor, nil
}

// closeSockets closes QEMU's ends of the machine's sockets. It may run twice.
func (m *Machine) closeSockets() {
	if m.Console != nil {
		m.Console.Close()
	}
	for _, p := range m.Ports {
		if p.File != nil {
			p.File.Close()
		}
	}
	if m.NIC != nil && m.NIC.File != nil {
		m.NIC.File.Close()
	}
}
