package image

// Limits bound an OCI image, so that a hostile one cannot fill the disk or the memory of
// the host.
type Limits struct {
	Bytes   int64 // of all files and layers, uncompressed
	Entries int   // of all layers together
}

// DefaultLimits leave room for the largest images in everyday use.
var DefaultLimits = Limits{Bytes: 64 << 30, Entries: 4 << 20}
