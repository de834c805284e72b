# What the scripts share that install something. They read it with `.`; it does nothing
# by itself.

say() { printf 'oncepay: %s\n' "$*" >&2; }

fail() {
	say "$@"
	exit 1
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		say "running: $*"
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		say "running: sudo $*"
		sudo "$@"
	else
		fail "this needs root, and there is no sudo. As root, run: $*"
	fi
}

# A list that cannot be fetched need not be the one that the package is in.
apt_update() {
	as_root apt-get update || say "not all package lists could be brought up to date; going on with those at hand"
}

apt_install() { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }

# install_package installs a package that has the same name everywhere, by the manager that
# there is; where none is known, it does nothing.
install_package() {
	for manager in apt-get dnf zypper pacman; do
		command -v "$manager" >/dev/null 2>&1 || continue
		case $manager in
		apt-get)
			apt_update
			apt_install "$1"
			;;
		dnf) as_root dnf install -y "$1" ;;
		zypper) as_root zypper --non-interactive install "$1" ;;
		pacman) as_root pacman -S --needed --noconfirm "$1" ;;
		esac
		return
	done
}
