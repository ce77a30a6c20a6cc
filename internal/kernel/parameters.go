package kernel

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
