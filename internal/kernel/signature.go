package kernel

import (
	"encoding/binary"
	"fmt"
	"os"
)

// A module's signature follows it (include/linux/module_signature.h): the
// signature, a header that ends with its length, and this text.
const (
	signatureText   = "~Module signature appended~\n"
	signatureHeader = 12 // bytes, of which the last four are the length, big-endian
)

// unsign removes the signature of a module of size bytes, if it has one. Under software
// emulation the guest takes some 40 ms to check one.
func unsign(f *os.File, size int64) error {
	const end = signatureHeader + len(signatureText)
	if size < int64(end) {
		return nil
	}
	b := make([]byte, end)
	if _, err := f.ReadAt(b, size-int64(end)); err != nil {
		return err
	}
	if string(b[signatureHeader:]) != signatureText {
		return nil
	}
	left := size - int64(end) - int64(binary.BigEndian.Uint32(b[signatureHeader-4:]))
	if left < 0 {
		return fmt.Errorf("the signature is longer than its module of %d bytes", size)
	}
	return f.Truncate(left)
}
