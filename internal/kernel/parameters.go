package kernel

import "runtime"

// Parameters are what a sandbox's kernel starts with: without what no sandbox uses
// and what takes half a second under software emulation (docs/adr/0012). The
// parameters are of Documentation/admin-guide/kernel-parameters.txt; with its
// initcall_debug the kernel says how long each part of its start takes.
var Parameters = []string{
	// No self-tests of ciphers and hashes.
	"cryptomgr.notests",
	// Not the keys for the modules' signatures, which unsign takes off, nor random
	// numbers from jitter (the host gives a seed), nor one more self-test.
	"initcall_blacklist=load_system_certificate_list,jent_mod_init,crypto_kdf108_init",
}

// OneCPU are the parameters with which the kernel starts one CPU of several and is
// ready for the others, which the agent starts (docs/adr/0013).
func OneCPU() []string {
	p := []string{"maxcpus=1"}
	if runtime.GOARCH == "amd64" {
		p = append(p,
			"noreplace-smp", // or it takes its locks out, and puts them back for the second CPU
			// The loops of a jiffy, of 4 ms, at 4 GHz. It would measure them anew for each
			// CPU, 50 ms each; what waits by them may wait somewhat longer.
			"lpj=16000000")
	}
	return p
}
