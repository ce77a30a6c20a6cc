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

// prepare readies this machine to be saved as a template: it mounts the disks that all
// sandboxes of a kind have, and brings the files that their first command reads into
// memory. Nothing here may depend on a project, the user or the time.
func (a *agent) prepare(r wire.PrepareRequest) (any, error) {
	if err := a.mountCommon(r.ImageSerial, r.ModulesSerial); err != nil {
		return nil, err
	}
	for _, tag := range r.Tags {
		if err := a.devices.Share(tag); err != nil {
			return nil, err
		}
	}
	a.loadOptional(modprobe.Dir(modprobe.DiskDir))
	if err := finishBoot(modprobe.Dir(modprobe.DiskDir)); err != nil {
		return nil, err
	}
	a.warm()
	unix.Sync()
	return nil, nil
}

// finishBoot loads the driver that reports free memory to the host, so that the host can
// use it, and then starts the other CPUs. In this order, because the driver makes the
// kernel patch how it frees memory (see cpus.go).
func finishBoot(modules string) error {
	loadModule(modules, "virtio_balloon")
	return startCPUs()
}

// loadOptional starts what a sandbox need not wait for: the kernel's notes of connections and its
// announcements of watches, and the module that lists connections, by which a fork ends those of the
// original.
func (a *agent) loadOptional(modules string) {
	a.owners.Begin()
	a.watches.Begin()
	loadModule(modules, "tcp_diag")
}

// loadModule loads a module that a sandbox can do without: a failure is only logged.
func loadModule(modules, name string) {
	if err := modprobe.Load(modules, name); err != nil {
		log.Print(err)
	}
}

// warmCommands are run in the image so that the pages and directory entries that they read
// are in the template's memory. A sandbox of an image that lacks one starts as well, a
// little slower.
var warmCommands = [][]string{
	{"/bin/sh", "-c", "ls / >/dev/null; cat /etc/passwd >/dev/null; true"},
	{"/bin/bash", "-lc", "true"},
	{"/usr/bin/env", "true"},
	{"/usr/bin/id"},
}

// warmLimit bounds the run of one command.
const warmLimit = time.Minute

// warm runs warmCommands. A failure is only logged.
func (a *agent) warm() {
	for _, argv := range warmCommands {
		if err := a.runInImage(argv); err != nil {
			log.Printf("warm %s: %v", argv[0], err)
		}
	}
}

// runInImage runs a command in the image's root, which is read-only and has no /proc, /dev
// or network yet.
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
		return errors.New("it took too long")
	}
}
