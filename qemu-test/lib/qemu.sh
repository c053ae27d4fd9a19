# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# Sourced: make the guest's disks, boot it, follow the cases in it.

# A directory of this run's own under build/; those of killed runs go.
guest_workdir() {
	local dir
	mkdir -p "$BUILD/guest" "$BUILD/logs"
	for dir in "$BUILD"/guest/[0-9]*; do
		[[ -d $dir && ! -d /proc/${dir##*/} ]] && rm -rf "$dir"
	done
	WORK=$BUILD/guest/$$
	mkdir -p "$WORK"
	trap guest_cleanup EXIT
	trap 'echo "stopped by a signal" >&2; exit 130' INT
	trap 'echo "stopped by a signal" >&2; exit 143' TERM HUP
}

qemu_pid=''
guest_cleanup() {
	if [[ $qemu_pid ]]; then kill -KILL "$qemu_pid" 2>/dev/null || true; fi
	rm -rf "$WORK"
}

# The kernel under test, what it is told beside the rest, how much slower than it
# the one that is booted is, the module, and the guest's memory.
KARGS=${PUZZLEFS_KARGS:-} SLOWNESS=1 MODULE=puzzlefs.ko MEMORY=${PUZZLEFS_GUEST_MEMORY:-2G}

# Boot the debug kernel instead. It has all drivers built in.
take_debug_kernel() {
	local kernel
	kernel=$(artefact_dir debug-kernel)
	KIMAGE=$kernel/vmlinuz KREL=$(<"$kernel/release")
	KARGS+=' puzzlefs.modules=none' SLOWNESS=6 MODULE=puzzlefs-debug.ko MEMORY=${PUZZLEFS_GUEST_MEMORY:-4G}
}

# make_payload FILE DIR: an ext4 image of DIR, ready for fs-verity.
make_payload() {
	local file=$1 dir=$2 size
	size=$(($(du -sm --apparent-size "$dir" | cut -f1) * 9 / 8 + $(find "$dir" | wc -l) / 128 + 64))
	rm -f "$file"
	"$QT/in-root" mke2fs -q -t ext4 -b 4096 -O verity -L payload -d "$dir" "$file" "${size}m"
}

# make_scratch FILE: an empty ext4 of 12 GB, sparse.
make_scratch() {
	rm -f "$1"
	truncate -s 12G "$1"
	"$QT/in-root" mke2fs -q -t ext4 -b 4096 -O verity -E lazy_itable_init=1,nodiscard -L scratch "$1"
}

# KVM only where this very kernel has booted under it. It is tried once a boot
# of the host, and forgotten in silence where it does not work.
accelerator() {
	local verdict answer
	if [[ ! -w /dev/kvm ]]; then
		echo tcg,thread=multi
		return
	fi
	verdict=$CACHE/kvm-$(cksum <<<"$KIMAGE $(</proc/sys/kernel/random/boot_id)" | cut -d' ' -f1)
	if [[ ! -f $verdict ]]; then
		find "$CACHE" -maxdepth 1 -name 'kvm-*' -mtime +7 -delete
		answer=$(timeout --kill-after=2 25 "$QT/in-root" qemu-system-x86_64 -accel kvm -cpu host \
			-nodefaults -no-user-config -display none -no-reboot -m 512M -smp 2 \
			-kernel "$KIMAGE" -initrd "$KINITRAMFS" \
			-append "console=ttyS0 panic=-1 puzzlefs.mode=probe" \
			-serial null -serial stdio </dev/null 2>/dev/null || true)
		if [[ $answer == *"puzzlefs-probe: ok"* ]]; then echo kvm; else echo tcg,thread=multi; fi >"$verdict"
	fi
	cat "$verdict"
}

# qemu_command MODE: into the array `qemu`. The serial lines are the caller's.
# What the kernel is told: where to log, and how long a healthy but emulated
# processor may take before the kernel suspects it. (Fewer levels of page tables
# and no mitigations: a seventh less to emulate.)
qemu_command() {
	local accel
	accel=$(accelerator)
	qemu=(
		"$QT/in-root" qemu-system-x86_64 -accel "$accel" -cpu "max,la57=off"
		-nodefaults -no-user-config -display none -no-reboot
		-m "$MEMORY" -smp 2 -device virtio-rng-pci
		-kernel "$KIMAGE" -initrd "$KINITRAMFS"
		-append "console=ttyS0,115200 panic=-1 oops=panic mitigations=off loglevel=${2:-7} log_buf_len=8M printk.devkmsg=on rcupdate.rcu_cpu_stall_timeout=300 watchdog_thresh=60 sysctl.kernel.hung_task_timeout_secs=300 puzzlefs.mode=$1 $KARGS ${CASE_KARGS:-}${PUZZLEFS_SEED:+ puzzlefs.seed=$PUZZLEFS_SEED}${PUZZLEFS_ROUNDS:+ puzzlefs.rounds=$PUZZLEFS_ROUNDS}"
	)
	local disk
	for disk in "$GUEST_IMAGE" "$WORK/payload.img" "$WORK/scratch.img" "$WORK/cases.img"; do
		qemu+=(-drive "file=$disk,if=virtio,format=raw,snapshot=on,cache=unsafe")
	done
}

# One guest at a time on a machine: emulation takes every processor.
lock_guest() {
	exec {guest_lock}>"$CACHE/.guest.lock"
	if ! flock --nonblock "$guest_lock"; then
		say "waiting for another run: it has a guest running"
		flock "$guest_lock"
	fi
}
unlock_guest() { exec {guest_lock}>&-; }

# How a case is told of.
passed=0 failed=0 skipped=0
report() {
	local verdict=$1 name=$2 rest=$3
	case $verdict in
	ok) passed=$((passed + 1)); echo "ok $name ($rest s)" ;;
	failed) failed=$((failed + 1)); echo "FAILED $name: $rest" ;;
	skipped) skipped=$((skipped + 1)); echo "skipped $name: $rest" ;;
	esac
}

console_tail() {
	echo "    --- the console's last lines:"
	tail -n 30 "$console" | tr -d '\r' | cut -c1-200 | sed 's/^/    /'
}

# run_guest FILE:TIMEOUT...: boot once and run these cases in order. Leaves in
# `remaining` those that a dead guest did not come to; the one that it died of
# is reported here.
run_guest() {
	local todo=("$@") entry line kind rest name='' case_start=0 deadline status fd output=()
	remaining=()
	for entry in "${todo[@]}"; do echo "${entry%:*} ${entry##*:}"; done >"$WORK/cases.img"
	truncate -s %4096 "$WORK/cases.img"
	# Named by what it came to; the last one is build/logs/console.log.
	console=$WORK/console.log
	local qemu
	qemu_command cases
	qemu+=(-serial "file:$console" -serial stdio)
	lock_guest
	: >"$console"
	# QEMU dies with us, however we end.
	exec {fd}< <(exec {guest_lock}>&-; exec setpriv --pdeathsig KILL "${qemu[@]}" </dev/null 2>"$WORK/qemu.log")
	qemu_pid=$!
	deadline=$((SECONDS + 180 * SLOWNESS))
	local done_count=0 why=''
	while :; do
		status=0
		IFS= read -r -t "$((deadline - SECONDS > 0 ? deadline - SECONDS : 1))" -u "$fd" line || status=$?
		if ((status > 128)) || ((SECONDS > deadline)); then
			why="the guest hung: killed after $((SECONDS - case_start)) s"
			break
		elif ((status)); then
			why="the guest died"
			break
		fi
		line=${line%$'\r'}
		kind=${line%% *} rest=${line#* }
		case $kind in
		@boot) deadline=$((SECONDS + 60 * SLOWNESS)) ;;
		@fatal) why=$rest; break ;;
		@begin)
			name=${rest% *}
			output=()
			case_start=$SECONDS
			# The guest has its own limit; ours is for a guest that cannot.
			deadline=$((SECONDS + ${rest##* } + ${PUZZLEFS_GRACE:-45} * SLOWNESS))
			;;
		@metric) metrics[${rest%% *}]=${rest#* } ;;
		@out) output+=("    $rest") ;;
		@klog) output+=("    [kernel] $rest") ;;
		@end)
			read -r _ kind line rest <<<"$rest"
			case $kind in
			ok) report ok "$name" "$line" ;;
			*) report "$kind" "$name" "$rest" ;;
			esac
			((${#output[@]} == 0)) || printf '%s\n' "${output[@]}"
			done_count=$((done_count + 1)) name='' output=()
			deadline=$((SECONDS + 60 * SLOWNESS))
			;;
		@done) break ;;
		esac
	done
	if [[ $why ]]; then
		kill -KILL "$qemu_pid" 2>/dev/null || true
	elif ! timeout 20 tail --pid="$qemu_pid" -f /dev/null; then
		kill -KILL "$qemu_pid" 2>/dev/null || true
	fi
	wait "$qemu_pid" 2>/dev/null || true
	qemu_pid=''
	exec {fd}<&-
	unlock_guest
	cp "$console" "$BUILD/logs/console.log"
	if [[ $why ]]; then
		if [[ -z $name ]]; then
			# Not a case's fault: the boot's, or between two cases.
			entry=${todo[done_count]:-}
			name=${entry:+$(case_name "$entry")}
			report failed "${name:-shutdown}" "${why/the guest/the guest, with no case running,}"
		else
			report failed "$name" "$why"
			((${#output[@]} == 0)) || printf '%s\n' "${output[@]}"
		fi
		console_tail
		[[ ! -s $WORK/qemu.log ]] || sed 's/^/    [qemu] /' "$WORK/qemu.log"
		cp "$console" "$BUILD/logs/console-${name:-boot}.log"
		remaining=("${todo[@]:done_count + 1}")
	fi
}

case_name() { local name=${1%:*}; name=${name##*/}; echo "${name%.*}"; }
