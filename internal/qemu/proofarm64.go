package qemu

import "encoding/binary"

// proofExitARM64 is QEMU's exit status when the guest powered off.
const proofExitARM64 = 0

// proofGuestARM64 returns a flat image that powers off by PSCI (Arm DEN 0022,
// SYSTEM_OFF). Without a kernel's header QEMU loads it as it is. Seen in an emulated
// host; untested on real hardware.
func proofGuestARM64() []byte {
	var b []byte
	for _, op := range []uint32{
		0x52800100, // mov w0, #0x0008
		0x72b08000, // movk w0, #0x8400, lsl #16
		0xd4000002, // hvc #0
		0x14000000, // b .
	} {
		b = binary.LittleEndian.AppendUint32(b, op)
	}
	return append(b, make([]byte, 4096-len(b))...)
}
