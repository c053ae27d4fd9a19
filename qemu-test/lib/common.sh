# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# Sourced by every script here that runs on the host: where things are, how
# progress is told, how a failure is explained.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
QT=$TOP/qemu-test
CACHE=${PUZZLEFS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/puzzlefs}
BUILD=$TOP/build
# The tools that are built, and that guests get.
BIN=${PUZZLEFS_BIN:-$BUILD/bin}
# Debian's: one that a wrapper selects takes ten times as long to start.
PYTHON=/usr/bin/python3

# shellcheck source=qemu-test/versions
. "$QT/versions"

# Exit codes, as qemu-test/README.md lists them.
E_FAILED=1 E_USAGE=2 E_NOT_ROOT=3 E_DISK=4 E_NETWORK=5 E_PACKAGE=6
export E_FAILED E_USAGE E_NOT_ROOT E_DISK E_NETWORK E_PACKAGE

# Tenths of a second since the outermost script began; it hands its start down.
now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo "${t%???}"; }
: "${PUZZLEFS_START:=$(now_ms)}"
export PUZZLEFS_START

# seconds_since MS: with one decimal.
seconds_since() {
	local ms=$(($(now_ms) - $1))
	printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

say() { printf '[%6ss] %s\n' "$(seconds_since "$PUZZLEFS_START")" "$*"; }

# die [-CODE] MESSAGE: one line with the cause and the way out.
die() {
	local code=$E_FAILED
	if [[ $1 == -[0-9]* ]]; then
		code=${1#-}
		shift
	fi
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit "$code"
}

# take_kernel [NAME]: that row of the table in versions, by default its first, into the
# variables below. KERNEL_SUFFIX distinguishes files in build/ that belong to another kernel than
# the default.
take_kernel() {
	local row names=''
	KERNEL_SUFFIX='' KERNEL_PIN=''
	while read -r row; do
		[[ $row ]] || continue
		# shellcheck disable=SC2086 # without the table's tabs
		set -- "${1:-${row%%[[:space:]]*}}" $row
		names+=" $2"
		if [[ $2 == "$1" ]]; then
			KERNEL_PIN="${*:2}"
			[[ $names == " $2" ]] || KERNEL_SUFFIX=-$2
		fi
		set -- "$1"
	done <<<"$KERNELS"
	[[ $KERNEL_PIN ]] || die -$E_USAGE "KERNEL=$1: no such kernel (there are:$names)"
	read -r KERNEL KERNEL_ARCH KERNEL_FROM KERNEL_RELEASE KERNEL_VERSION KERNEL_SOURCE KERNEL_CC \
		KERNEL_ROOT <<<"$KERNEL_PIN"
	KERNEL_MAKE=(CC="$KERNEL_CC")
	SRCARCH=x86
	if [[ $KERNEL_ARCH == arm64 ]]; then
		SRCARCH=arm64
		KERNEL_MAKE=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- CC="aarch64-linux-gnu-$KERNEL_CC")
	fi
	export KERNEL
	# Where this kernel's paths are, for the shell.
	ENV_FILE=$BUILD/env$KERNEL_SUFFIX
}
# kernel_names: all of the table's.
kernel_names() { awk 'NF { print $1 }' <<<"$KERNELS"; }
take_kernel "${KERNEL:-}"

need_root() {
	[[ $EUID -eq 0 ]] ||
		die -$E_NOT_ROOT "must be run by root (chroot, mknod and mounts): try sudo make ..."
}

mkdir -p "$CACHE" 2>/dev/null || {
	need_root
	die "the cache, $CACHE, cannot be made: set PUZZLEFS_CACHE to another place"
}
CACHE=$(cd "$CACHE" && pwd -P)
export PUZZLEFS_CACHE=$CACHE

# stop_tree PID: ends a process and all that it has started.
stop_tree() {
	local child children
	children=$(pgrep -P "$1") || true
	kill "$1" 2>/dev/null || true
	for child in $children; do stop_tree "$child"; done
}

# step NAME LOG COMMAND...: run it in silence, tell how long it took. What it
# printed is in LOG, whose end is shown when it fails: all of it when
# STEP_SHOWS=all (a compiler's complaints are wanted whole), or V is set.
step() {
	local name=$1 log=$2 start status=0
	shift 2
	mkdir -p "${log%/*}"
	start=$(now_ms)
	printf '[%6ss] %s ...' "$(seconds_since "$PUZZLEFS_START")" "$name"
	"$@" >>"$log" 2>&1 </dev/null || status=$?
	if ((status == 0)); then
		printf ' done (%s s)\n' "$(seconds_since "$start")"
		[[ -z ${V:-} ]] || cat "$log" >&2
		return 0
	fi
	printf ' FAILED (%s s)\n' "$(seconds_since "$start")"
	explain_failure "$log" "$status"
	return "$status"
}

explain_failure() {
	local log=$1 status=$2
	if [[ ${STEP_SHOWS:-} == all || ${V:-} ]]; then
		cat "$log" >&2
		return
	elif [[ $(failure_cause "$log") != "$E_FAILED "* ]]; then
		# Its one line says it all.
		return
	fi
	{
		echo "--- the last lines of $log (exit status $status):"
		tail -n 25 "$log" | sed 's/^/    /'
		echo "---"
	} >&2
}

# failure_cause LOG: one of the codes above, and the line that goes with it.
failure_cause() {
	local log=$1 network package
	network='Temporary failure resolving|Could not resolve|Could not connect|Unable to connect'
	network+='|Connection (refused|timed out|failed)|Network is unreachable|Could not handshake'
	package='Unable to locate package|has no installation candidate|Version .* was not found'
	package+='|puzzlefs: no package'
	if grep -qE 'No space left on device|Disk quota exceeded|free space' "$log"; then
		echo "$E_DISK the disk of $CACHE is full: free some, or set PUZZLEFS_CACHE to a roomier place"
	elif grep -qE "$network" "$log"; then
		echo "$E_NETWORK the Debian mirror does not answer:" \
			"check the network, or set DEBIAN_MIRROR to one that does"
	elif grep -qE "$package|Unable to find a source package" "$log"; then
		echo "$E_PACKAGE $(grep -hE "$package" "$log" | tail -1):" \
			"mend qemu-test/versions, or set DEBIAN_MIRROR to a full mirror"
	else
		echo "$E_FAILED it cannot be made"
	fi
}

# remove_trees DIR...: as rm -rf, but never into what is mounted there, should
# something be.
remove_trees() {
	local dir mount
	for dir; do
		[[ -e $dir ]] || continue
		awk -v dir="$dir/" 'index($5 "/", dir) == 1 { print $5 }' /proc/self/mountinfo | tac |
			while read -r mount; do
				umount "$(printf '%b' "$mount")" || umount -l "$(printf '%b' "$mount")"
			done
		rm -rf --one-file-system "$dir"
	done
}

# take_lock FD WHAT: the lock on an open file, for as long as it is open; whoever waits says so.
take_lock() {
	flock --nonblock "$1" || {
		say "waiting for another run: $2"
		flock "$1"
	}
}

# with_lock NAME WHAT COMMAND...: one at a time on this cache; whoever waits
# says so. The lock goes with the process that holds it.
with_lock() {
	local name=$1 what=$2 fd status=0
	shift 2
	exec {fd}>"$CACHE/.$name.lock"
	take_lock "$fd" "$what"
	# The command must not hand the lock on to what it leaves running.
	"$@" || status=$?
	exec {fd}>&-
	return "$status"
}

# The artefact that a step makes is in CACHE/NAME-KEY and complete when it has its stamp. lib/artefacts.py
# defines the key and reads the headers of steps.
artefacts() {
	local inputs
	[[ -x $PYTHON ]] || die -$E_PACKAGE "python3 is not installed: run qemu-test/provision"
	read -r -a inputs -d '' <<<"$(sed -n 's/^# inputs: *//p' "$QT"/steps/*)" || true
	(export KERNEL_ROOT "${inputs[@]}" && exec "$PYTHON" -ISB "$QT/lib/artefacts.py" "$@")
}
step_header() { artefacts header "$@"; }
step_needs() { artefacts needs "$1"; }
artefact_key() { artefacts key "$1"; }

artefact_dir() {
	local key
	key=$(artefact_key "$1") || exit
	echo "$CACHE/$1-$key"
}

artefact_complete() {
	local dir=$1
	[[ -f $dir/.complete && $(<"$dir/.complete") == "$dir" ]]
}

# What cargo builds goes to build/tools. A new clone begins with what an earlier
# one made of the same crates by the same compiler, ours left out: the cache
# keeps a copy.
CARGO_TARGET=$BUILD/tools
cargo_seed() {
	local lock
	lock=$(cat "$TOP"/{schema,userspace-tools,fuzz}/Cargo.lock | sha256sum | cut -c1-12)
	echo "$(cargo_seeds)$lock"
}
# What the names of all seeds begin with that this compiler made.
cargo_seeds() { echo "$CACHE/crates-$(artefact_key build-root)-"; }

# Takes the seed of these very crates, or the latest: cargo knows what of it is of use.
take_cargo_seed() {
	local seed seeds
	[[ ! -d $CARGO_TARGET ]] || return 0
	seed=$(cargo_seed)
	if [[ -f $seed/.complete ]]; then
		touch "$seed/.complete"
	else
		seeds=$(cargo_seeds)
		seed=$(find "$CACHE" -maxdepth 2 -path "$seeds*/.complete" -printf '%T@ %h\n' | sort -rn |
			head -1 | cut -d' ' -f2-)
		[[ $seed ]] || return 0
	fi
	mkdir -p "$BUILD"
	# Another run may have removed it, or been first.
	if cp -a --reflink=auto "$seed/target" "$CARGO_TARGET.$$"; then
		mv -T "$CARGO_TARGET.$$" "$CARGO_TARGET" 2>/dev/null || true
	fi
	rm -rf "$CARGO_TARGET.$$"
}

# Keeps a copy of the crates, in the place of older ones.
leave_cargo_seed() {
	local seed tmp older
	seed=$(cargo_seed)
	[[ -d $CARGO_TARGET && ! -f $seed/.complete ]] || return 0
	tmp=$seed.tmp.$$
	mkdir -p "$tmp"
	cp -a --reflink=auto "$CARGO_TARGET" "$tmp/target"
	find "$tmp/target" \( -name incremental -o -name doc \) -prune -exec rm -rf {} +
	find "$tmp/target" -depth -name '*puzzlefs*' -exec rm -rf {} +
	echo "$seed" >"$tmp/.complete"
	# Another run may have been first.
	mv -T "$tmp" "$seed" 2>/dev/null || rm -rf "$tmp"
	for older in "$CACHE"/crates-*; do
		[[ $older == "$seed" || $older == *.tmp.* ]] || rm -rf "$older"
	done
}

# What a build has made of these very sources is kept in the cache, too, as
# CACHE/built-NAME-KEY, for the next clone. A key is of the files below the
# paths, which are the clone's, of the script that builds, and of an artefact: of a
# kernel, that is the release that the mirror had, too.
built_key() { # ARTEFACT PATH...
	local artefact=$1
	shift
	{
		artefact_key "$artefact"
		cat "$(artefact_dir "$artefact")/release" 2>/dev/null || true
		cat "$0"
		cd "$TOP" || exit
		find "$@" -type f -print0 | sort -z | xargs -0 sha256sum
	} | sha256sum | cut -c1-12
}

# take_built NAME KEY DIR FILE...: into a directory; fails if they are not all there.
take_built() {
	local from=$CACHE/built-$1-$2 dir=$3 file
	shift 3
	[[ -f $from/.complete ]] || return
	touch "$from/.complete"
	mkdir -p "$dir"
	for file; do
		# Another run may be about to remove it. By a rename: an older one may be running.
		cp -a "$from/$file" "$dir/.new.$$" 2>/dev/null || return
		mv "$dir/.new.$$" "$dir/$file"
	done
}

# keep_built NAME KEY DIR FILE...: in the place of all but the two used last. Unless the key, as the
# script's `key_now` gives it, is another by now: the sources were changed meanwhile.
keep_built() {
	[[ $(key_now) == "$2" ]] || return 0
	local to=$CACHE/built-$1-$2 tmp=$CACHE/built-$1-$2.tmp.$$ dir=$3 old
	[[ ! -f $to/.complete ]] || return 0
	mkdir -p "$tmp"
	(shift 3 && cd "$dir" && cp -a "$@" "$tmp/")
	echo "$to" >"$tmp/.complete"
	sync -f "$tmp"
	# Another run may have been first.
	mv -T "$tmp" "$to" 2>/dev/null || rm -rf "$tmp"
	find "$CACHE" -mindepth 2 -maxdepth 2 -path "$CACHE/built-$1-????????????/.complete" \
		-printf '%T@ %h\n' |
		sort -rn | tail -n +4 | while read -r _ old; do rm -rf "$old"; done
}

# The mirror of the main archive: $DEBIAN_MIRROR or the one of the host's apt.
debian_mirror() {
	if [[ -n ${DEBIAN_MIRROR:-} ]]; then
		echo "${DEBIAN_MIRROR%/}"
		return
	fi
	local uri
	uri=$(mirrors_in_apt_configuration | resolved_mirrors | grep -vE -- '-security/?$|/debian-debug/?$' |
		head -1 || true)
	[[ -n $uri ]] ||
		die -$E_NETWORK "no Debian archive in this host's apt configuration: set DEBIAN_MIRROR to one"
	echo "${uri%/}"
}

# Of apt's lists of mirrors (mirror+file:), the first in each.
resolved_mirrors() {
	local uri
	while read -r uri; do
		case $uri in
		mirror+file:*)
			uri=${uri#mirror+file:}
			awk '/^[^#]/ { print $1; exit }' "/${uri##/}" 2>/dev/null || true
			;;
		*) echo "$uri" ;;
		esac
	done
}

# Both forms of apt's sources: deb822 stanzas and one-line entries. Only
# stanzas that name the "main" component of a Debian suite count.
mirrors_in_apt_configuration() {
	local file suites='bookworm|trixie|forky|sid|stable|testing|unstable'
	for file in /etc/apt/sources.list.d/*.sources; do
		[[ -f $file ]] || continue
		awk -v RS= '
			/(^|\n)Enabled: *no/ { next }
			/(^|\n)Types:[^\n]*deb/ && /(^|\n)Components:[^\n]* main/ &&
			/(^|\n)Suites:[^\n]* (bookworm|trixie|forky|sid|stable|testing|unstable)/ {
				n = split($0, line, "\n")
				for (i = 1; i <= n; i++)
					if (sub(/^URIs: */, "", line[i])) {
						split(line[i], uri, " ")
						print uri[1]
					}
			}' "$file"
	done
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[[ -f $file ]] || continue
		sed -nE 's/^deb +(\[[^]]*\] +)?([^ ]+) +('$suites')[^ ]* +([^#]* )?main\b.*/\2/p' "$file"
	done
}
