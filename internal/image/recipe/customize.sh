# Run by mmdebstrap when all packages are in, with the new system's folder as $1:
# take away what belongs to this host or to no one, and what only takes space.
set -eu
cd "$1"

# Copied from this host by mmdebstrap; the agent writes its own.
rm -f etc/hostname etc/resolv.conf
printf 'localhost\n' >etc/hostname
: >etc/resolv.conf
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >etc/hosts

# Settings for this build only: the way to the mirror is the host's affair.
rm -f etc/apt/apt.conf.d/99mmdebstrap etc/apt/sources.list etc/apt/sources.list.d/*
printf '%s' "$BAWN_SOURCES" >etc/apt/sources.list.d/debian.sources
if [ -n "$BAWN_APT_CONF" ]; then
	printf '%s' "$BAWN_APT_CONF" >etc/apt/apt.conf.d/90bawn
fi
chmod 0644 etc/hostname etc/resolv.conf etc/hosts etc/apt/sources.list.d/debian.sources

# Packages register manuals of any section (update-alternatives(1)), and find no directory where none of the image's ships one.
mkdir -p usr/share/man/man1 usr/share/man/man2 usr/share/man/man3 usr/share/man/man4 usr/share/man/man5 usr/share/man/man6 usr/share/man/man7 usr/share/man/man8

# Debian has fd as fdfind, because of another program of that name.
ln -sf fdfind usr/bin/fd
ln -sf vim.tiny usr/bin/vim

# The locales that a session can have (internal/guest/accounts). Every other one becomes
# C.UTF-8. More are made by adding lines to /etc/locale.gen and running locale-gen.
for l in de_DE en_GB en_US es_ES fr_FR it_IT ja_JP ko_KR nl_NL pl_PL pt_BR ru_RU sv_SE tr_TR uk_UA zh_CN; do
	echo "$l.UTF-8 UTF-8"
done >etc/locale.gen
chroot . locale-gen >&2

# Large and without use here: a debugging aid of GCC, shims of containerd that
# no docker of this release starts. (A reinstallation brings them back.)
rm -f usr/bin/*-lto-dump-* usr/bin/lto-dump* usr/bin/containerd-shim usr/bin/containerd-shim-runc-v1

# Left over from the installation, and different each time.
rm -f etc/machine-id var/lib/dbus/machine-id var/cache/debconf/*-old var/lib/dpkg/*-old
rm -rf var/cache/ldconfig/* var/cache/man/* var/tmp/*
# mmdebstrap keeps its own apt settings in tmp until it is done.
find tmp -mindepth 1 -maxdepth 1 ! -name 'mmdebstrap*' -exec rm -rf {} +
find var/log -type f -exec truncate -s 0 {} +
: >etc/machine-id
