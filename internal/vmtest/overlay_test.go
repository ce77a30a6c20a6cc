//go:build vm

package vmtest

import "testing"

// TestOverlays: overlays can be mounted with their upper directory where container engines and
// build tools put it, by root and in a user namespace.
func TestOverlays(t *testing.T) {
	dir := shared(t)
	const script = `
w=$(mktemp -d "$1/overlay.XXXXXX")
trap 'rm -r "$w"' EXIT
mkdir "$w/upper" "$w/work" "$w/merged" "$w/lower"
echo below > "$w/lower/gone"
mount -t overlay overlay -o "lowerdir=$w/lower:/etc/skel,upperdir=$w/upper,workdir=$w/work$2" "$w/merged"
echo above > "$w/merged/new"
rm "$w/merged/gone" "$w/merged/.profile"
mkdir "$w/merged/dir"
mv "$w/merged/dir" "$w/merged/moved"
cat "$w/upper/new"; ls "$w/merged"; stat -c %F "$w/upper/gone"
umount "$w/merged"`
	const want = "above\nmoved\nnew\ncharacter special file\n"
	for _, at := range []string{"/tmp", "/var/tmp", "/root", "/srv", "$HOME", "/var/lib/containers", "/var/lib/containerd", "/var/lib/rancher", "/var/lib/docker"} {
		if r := bawn(t, dir, "run", "--", "sh", "-c", `sudo sh -euc "$0" sh "`+at+`" ""`, script); r.out != want || r.code != 0 {
			t.Errorf("%s: %+v", at, r)
		}
	}
	for _, at := range []string{"/tmp", "/var/tmp", "$HOME"} {
		if r := bawn(t, dir, "run", "--", "sh", "-c", `unshare -Urm sh -euc "$0" sh "`+at+`" ",userxattr"`, script); r.out != want || r.code != 0 {
			t.Errorf("%s in a user namespace: %+v", at, r)
		}
	}
	// What the image has at these places, and how they look.
	const look = `sudo test -s /root/.profile && stat -c '%a %U %n' /tmp /var/tmp /root /home; findmnt -no PROPAGATION /home; test -w ~ && test -w .`
	if got, want := sh(t, dir, look), "1777 root /tmp\n1777 root /var/tmp\n700 root /root\n755 root /home\nshared\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
