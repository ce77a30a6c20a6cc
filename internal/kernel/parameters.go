package kernel

import "runtime"

// Parameters are the command-line parameters of each sandbox's kernel. They turn off
// parts of its start that no sandbox uses and that take half a second under software
// emulation (docs/adr/0012). See Documentation/admin-guide/kernel-parameters.txt; with
// initcall_debug the kernel prints how long each part of its start takes.
var Parameters = []string{
	// No self-tests of ciphers and hashes.
	"cryptomgr.notests",
	// No keys for the modules' signatures, which unsign removes, no random numbers
	// from jitter (the host gives a seed), and not one more self-test.
	"initcall_blacklist=load_system_certificate_list,jent_mod_init,crypto_kdf108_init",
}

// OneCPU returns the parameters with which the kernel starts one of several CPUs, and the
// agent the others later (docs/adr/0013).
func OneCPU() []string {
	p := []string{"maxcpus=1"}
	if runtime.GOARCH == "amd64" {
		p = append(p,
			"noreplace-smp", // else it removes its locks, and restores them for the second CPU
			// The delay loops of a jiffy of 4 ms at 4 GHz. The kernel would measure them for
			// each CPU, 50 ms each; delays may become somewhat longer.
			"lpj=16000000")
	}
	return p
}
