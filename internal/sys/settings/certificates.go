package settings

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"bawn.dev/bawn/internal/sys/proc"
)

// Which authorities servers are believed by.
//
// Theory of operation. The environment (direnv) may name the certificates of the authorities, and so may lead to a
// directory that a guest writes. Package crypto/x509 reads them once in a process, when the first server is verified. So
// they are judged where a connection is made, and read right then: UseCertificates comes before each handshake with a
// server. A command that connects to no server does not depend on them. A start of a sandbox judges them too
// (CheckCertificates), since its supervisor is going to need them.

// certificateFile and certificateFolders are the variables that name a file and a list of folders with the
// authorities that servers are believed by (package crypto/x509).
const certificateFile, certificateFolders = "SSL_CERT_FILE", "SSL_CERT_DIR"

// used has the variables with which this process has read the certificates; nil before that.
var used struct {
	sync.Mutex
	variables *certificateSetting
}

// certificateSetting has the values of the two variables.
type certificateSetting struct{ file, folders string }

// UseCertificates reads the authorities that servers are believed by, for as long as this process lives. It must be called
// before a connection by TLS is made to a server that no other authorities are known for. With an error, that of
// CheckCertificates, they are not read, and there may be no connection; the next call judges them anew. Later calls cost
// nothing. It may be called by several goroutines at once.
func UseCertificates() error {
	used.Lock()
	defer used.Unlock()
	now := certificateSetting{os.Getenv(certificateFile), os.Getenv(certificateFolders)}
	if used.variables != nil && *used.variables == now {
		return nil
	}
	if err := CheckCertificates(); err != nil {
		return err
	}
	_, _ = x509.SystemCertPool() // if it cannot read them, no server is believed
	used.variables = &now
	return nil
}

// CheckCertificates returns an error if the environment takes the authorities that servers are believed by from a place
// that a guest or another user could have written.
func CheckCertificates() error {
	check := func(variable, path string, judge func(string) error) error {
		if path == "" {
			return nil
		}
		err := judge(path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("the certificates that %s names are not believed (%w): unset it, or name a place outside of what sandboxes share", variable, err)
	}
	if err := check(certificateFile, os.Getenv(certificateFile), proc.Trusted); err != nil {
		return err
	}
	for _, dir := range filepath.SplitList(os.Getenv(certificateFolders)) {
		if err := check(certificateFolders, dir, proc.TrustedFolder); err != nil {
			return err
		}
	}
	return nil
}
