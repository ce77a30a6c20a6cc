package guest

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestHostFilesKeepEdits: a start changes our lines only, and a fork's name ours only.
func TestHostFilesKeepEdits(t *testing.T) {
	const loopback = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	const mark = "\t# written by bawn\n"
	for _, c := range []struct {
		name                         string
		hosts, hostname              string // as they are
		wantHosts, wantFile, machine string
	}{
		{
			"the default image", loopback, "localhost\n",
			loopback + "127.0.1.1\tbox" + mark, "box\n", "box",
		},
		{
			"an image without the files", "", "",
			"127.0.0.1\tlocalhost" + mark + "::1\tlocalhost ip6-localhost ip6-loopback" + mark + "127.0.1.1\tbox" + mark, "box\n", "box",
		},
		{
			"edited, and forked", "10.0.0.1 mine\n" + loopback + "127.0.1.1\toriginal" + mark + "10.0.0.2 db # ours", "original\n",
			"10.0.0.1 mine\n" + loopback + "10.0.0.2 db # ours\n127.0.1.1\tbox" + mark, "box\n", "box",
		},
		{
			"a host name of one's own", loopback + "127.0.1.1\tbox" + mark, "# mine\nweb\n",
			loopback + "127.0.1.1\tbox web" + mark, "# mine\nweb\n", "web",
		},
		{
			"a host name of one's own, forked", loopback + "127.0.1.1\toriginal web" + mark, "web\n",
			loopback + "127.0.1.1\tbox web" + mark, "web\n", "web",
		},
		{
			"a host name that is none", loopback + "127.0.1.1\tbox" + mark, "two words\n",
			loopback + "127.0.1.1\tbox" + mark, "box\n", "box",
		},
		{
			"written by an earlier build", "127.0.0.1\tlocalhost\n127.0.1.1\told\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.1.1 mine\n", "old\n",
			"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.1.1 mine\n127.0.1.1\tbox" + mark, "box\n", "box",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Mkdir(root+"/etc", 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{"hosts": c.hosts, "hostname": c.hostname} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(root+"/etc/"+file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // a second start changes nothing
				name, err := nameHost(root, "box")
				if err != nil || name != c.machine {
					t.Errorf("the machine's name is %q, %v", name, err)
				}
				hosts, _ := os.ReadFile(root + "/etc/hosts")
				file, _ := os.ReadFile(root + "/etc/hostname")
				if string(hosts) != c.wantHosts || string(file) != c.wantFile {
					t.Errorf("hosts:\n%shostname: %q", hosts, file)
				}
			}
		})
	}
}

// TestLongHostsFile: a long list of blocked hosts in an image's /etc/hosts stays whole.
func TestLongHostsFile(t *testing.T) {
	root := t.TempDir()
	list := strings.Repeat("0.0.0.0 blocked.example\n", 100_000) // 2.4 MB
	if err := errors.Join(os.Mkdir(root+"/etc", 0o755), os.WriteFile(root+"/etc/hosts", []byte(list), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := nameHost(root, "box"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(root + "/etc/hosts")
	if err != nil || !strings.Contains(string(b), list) {
		t.Errorf("%d bytes of %d are left, %v", len(b), len(list), err)
	}
}
