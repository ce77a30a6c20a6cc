// Brig-guest is process 1 of brig's virtual machines (package guest). It is
// embedded in brig and does nothing elsewhere.
package main

import (
	"os"

	"brig.dev/brig/internal/guest"
)

// release is set when linking.
var release = "devel"

func main() { os.Exit(guest.Main(release)) }
