package share

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// FuzzSaved is an attack by a saved state: whatever it says, a server that takes it over
// ends no worse than with stale nodes, and opens nothing outside its directory.
func FuzzSaved(f *testing.F) {
	f.Add([]byte(`{"next":4,"nodes":[{"i":1,"t":16384},{"i":2,"p":1,"n":"Zg==","t":32768,"l":1},{"i":3,"p":1,"n":"Li4=","t":16384}],"handles":[{"i":1,"n":2,"f":2}],"handle":1}`), false)
	f.Add([]byte(`{"next":9,"nodes":[{"i":1,"t":16384},{"i":2,"p":3,"n":"YQ==","t":16384},{"i":3,"p":2,"n":"YQ==","t":16384}]}`), true) // a circle
	f.Add([]byte(`{"next":9,"nodes":[{"i":1,"t":16384},{"i":2,"p":2,"n":"YQ==","t":16384,"w":"0:0:0755"}]}`), true)
	f.Fuzz(func(t *testing.T, state []byte, moved bool) {
		fs := newTest(t, Options{})
		if err := os.WriteFile(filepath.Join(fs.tempRoot(t), "f"), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
		defer func() {
			for _, h := range fs.handles {
				if h.fd >= 0 {
					_ = unix.Close(h.fd)
				}
			}
		}()
		var s Saved
		if json.Unmarshal(state, &s) != nil || fs.load(&s, moved) != nil {
			return
		}
		for _, v := range s.Nodes {
			var out fuse.AttrOut
			in := &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: v.ID}}
			if st := fs.GetAttr(nil, in, &out); st == fuse.OK && v.ID != rootID {
				if v.Ino == out.Ino || moved {
					continue
				}
				t.Errorf("node %d is inode %d, not %d", v.ID, out.Ino, v.Ino)
			}
		}
		fs.save()
	})
}
