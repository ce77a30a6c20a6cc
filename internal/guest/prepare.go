package guest

import (
	"errors"
	"log"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/modprobe"
	"bawn.dev/bawn/internal/wire"
)

// prepare readies this machine to be saved as a template: what all sandboxes of
// a kind have is mounted, and what their first command reads is in memory.
// Nothing here may depend on a project, a person or the time.
func (a *agent) prepare(r wire.PrepareRequest) (any, error) {
	if err := a.mountCommon(r.ImageSerial, r.ModulesSerial); err != nil {
		return nil, err
	}
	for _, tag := range r.Tags {
		if err := a.devices.Share(tag); err != nil {
			return nil, err
		}
	}
	a.late(modprobe.Dir(modprobe.DiskDir))
	if err := readyMachine(modprobe.Dir(modprobe.DiskDir)); err != nil {
		return nil, err
	}
	a.warm()
	unix.Sync()
	return nil, nil
}

// readyMachine loads the driver that tells the host which memory is free, so that the
// host has it again, and starts the other CPUs: in this order, as for the driver the
// kernel rewrites how it frees memory (see cpus.go).
func readyMachine(modules string) error {
	loadLate(modules, "virtio_balloon")
	return startCPUs()
}

// late starts what a sandbox need not wait for: notes of connections, and the module
// that lists connections, for a fork to end those that are not its own.
func (a *agent) late(modules string) {
	a.owners.Begin()
	loadLate(modules, "tcp_diag")
}

// loadLate loads a module without which a sandbox works, too.
func loadLate(modules, name string) {
	if err := modprobe.Load(modules, name); err != nil {
		log.Print(err)
	}
}

// warmCommands are run in the image, for the pages and directory entries that
// they read. An image that lacks one starts as well, a little later.
var warmCommands = [][]string{
	{"/bin/sh", "-c", "ls / >/dev/null; cat /etc/passwd >/dev/null; true"},
	{"/bin/bash", "-lc", "true"},
	{"/usr/bin/env", "true"},
	{"/usr/bin/id"},
}

// warmLimit bounds one of them.
const warmLimit = time.Minute

func (a *agent) warm() {
	for _, argv := range warmCommands {
		if err := a.runInImage(argv); err != nil {
			log.Printf("warm %s: %v", argv[0], err)
		}
	}
}

// runInImage runs a command at the image's root, which is read-only and has no
// /proc, /dev or network yet.
func (a *agent) runInImage(argv []string) error {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := a.processes.Start(argv[0], argv, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/nonexistent"},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
		Sys:   &syscall.SysProcAttr{Chroot: imageDir, Setsid: true},
	})
	if err != nil {
		return err
	}
	select {
	case <-p.Done:
		return nil
	case <-time.After(warmLimit):
		a.processes.SignalGroup(p, syscall.SIGKILL)
		<-p.Done
		return errors.New("took too long")
	}
}
