// Bawn-guest is process 1 of bawn's virtual machines (package guest). It is
// embedded in bawn and does nothing elsewhere.
package main

import (
	"os"

	"bawn.dev/bawn/internal/guest"
)

// release is set when linking.
var release = "devel"

func main() { os.Exit(guest.Main(release)) }
