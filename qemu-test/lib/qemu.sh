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

guest_cleanup() {
	local jobs
	jobs=$(jobs -p)
	# shellcheck disable=SC2086 # a list
	if [[ $jobs ]]; then kill $jobs 2>/dev/null || true; fi
	rm -rf "$WORK"
}

# The kernel under test, what it is told beside the rest, how much slower than it
# the one that is booted is, the module, and the guest's memory.
KARGS=${PUZZLEFS_KARGS:-} SLOWNESS=1 MODULE=${PUZZLEFS_MODULE:-puzzlefs$KERNEL_SUFFIX.ko} \
	MEMORY=${PUZZLEFS_GUEST_MEMORY:-2G}

# Boot the debug kernel instead. It has all drivers built in.
take_debug_kernel() {
	local kernel
	kernel=$(artefact_dir debug-kernel)
	KIMAGE=$kernel/vmlinuz KREL=$(<"$kernel/release")
	KARGS+=' puzzlefs.modules=none' SLOWNESS=6 MODULE=puzzlefs-debug.ko \
		MEMORY=${PUZZLEFS_GUEST_MEMORY:-4G}
}

# put_sample PAYLOAD: the image that sample-image has made, and its inventory. PUZZLEFS_SAMPLE is
# where those of another root filesystem are.
put_sample() {
	local from=${PUZZLEFS_SAMPLE:-$BUILD}
	ln "$from/sample.inventory" "$from/sample.tag" "$1/"
	cp -al "$from/store" "$1/store"
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
# of the host. Where it does not work, the host is the cause, and no other kernel is tried.
accelerator() {
	local host verdict answer
	if [[ ! -w /dev/kvm ]]; then
		echo tcg,thread=multi
		return
	fi
	host=$CACHE/kvm-$(</proc/sys/kernel/random/boot_id)
	verdict=$host-$(cksum <<<"$KIMAGE" | cut -d' ' -f1)
	if [[ ! -f $host-none && ! -f $verdict ]]; then
		find "$CACHE" -maxdepth 1 -name 'kvm-*' -mtime +7 -delete
		answer=$(timeout --kill-after=2 25 "$QT/in-root" qemu-system-x86_64 -accel kvm -cpu host \
			-nodefaults -no-user-config -display none -no-reboot -m 512M -smp 2 \
			-kernel "$KIMAGE" -initrd "$KINITRAMFS" \
			-append "console=ttyS0 panic=-1 puzzlefs.mode=probe" \
			-serial null -serial stdio </dev/null 2>/dev/null || true)
		[[ $answer == *"puzzlefs-probe: ok"* ]] || verdict=$host-none
		: >"$verdict"
	fi
	if [[ -f $host-none ]]; then echo tcg,thread=multi; else echo kvm; fi
}

# qemu_command MODE: into the array `qemu`. The serial lines are the caller's.
# What the kernel is told: where to log, and how long a healthy but emulated
# processor may take before the kernel suspects it. (Fewer levels of page tables
# and no mitigations: a seventh less to emulate. Instructions that copy or clear memory
# by the byte, however long it is, are fast in a processor, and slow in an emulated one:
# without them, cold reads take half the time.)
qemu_command() {
	local accel cpu=max,la57=off
	accel=$(accelerator)
	if [[ $accel == tcg* ]]; then cpu+=,erms=off,fsrm=off; fi
	local arguments=(
		"console=ttyS0,115200" panic=-1 oops=panic mitigations=off loglevel="${2:-7}" log_buf_len=8M
		printk.devkmsg=on rcupdate.rcu_cpu_stall_timeout=300 watchdog_thresh=60
		sysctl.kernel.hung_task_timeout_secs=300 puzzlefs.mode="$1" "$KARGS"
		${PUZZLEFS_SEED:+puzzlefs.seed="$PUZZLEFS_SEED"}
		${PUZZLEFS_ROUNDS:+puzzlefs.rounds="$PUZZLEFS_ROUNDS"} "${CASE_KARGS:-}"
	)
	qemu=(
		"$QT/in-root" qemu-system-x86_64 -accel "$accel" -cpu "$cpu"
		-nodefaults -no-user-config -display none -no-reboot
		-m "$MEMORY" -smp 2 -device virtio-rng-pci
		-kernel "$KIMAGE" -initrd "$KINITRAMFS"
		-append "${arguments[*]}"
	)
	# Counts of instructions, at the marks that a bench sets, go to this file.
	if [[ ${PUZZLEFS_INSTRUCTIONS:-} && $accel == tcg* ]]; then
		qemu+=(-plugin "$BUILD/bin/instructions.so,to=$PUZZLEFS_INSTRUCTIONS")
	fi
	local disk
	for disk in "$GUEST_IMAGE" "$WORK/payload.img" "$WORK/scratch.img"; do
		qemu+=(-drive "file=$disk,if=virtio,format=raw,snapshot=on,cache=unsafe")
	done
}

# The guests of one run at a time on a machine: emulation takes every processor.
lock_guest() {
	exec {guest_lock}>"$CACHE/.guest.lock"
	take_lock "$guest_lock" "it has a guest running"
}
unlock_guest() { exec {guest_lock}>&-; }

# How a case is told of: at once, for there may be another guest that tells of its own.
passed=0 failed=0 skipped=0
report() { # VERDICT NAME REST [LINE...]
	local verdict=$1 name=$2 rest=$3 told
	shift 3
	case $verdict in
	ok) passed=$((passed + 1)) told="ok $name ($rest s)" ;;
	failed) failed=$((failed + 1)) told="FAILED $name: $rest" ;;
	skipped) skipped=$((skipped + 1)) told="skipped $name: $rest" ;;
	esac
	printf '%s' "$told"$'\n' "${@/%/$'\n'}"
}

# run_guests COUNT: so many at once take the cases of the arrays `together` and `alone`; lib/guests.py
# follows them. Adds up the counts; the figures that cases took are left in $WORK/metrics.
run_guests() {
	local entry name initramfs need p f s qemu
	printf '%s' "${together[@]/%/$'\n'}" >"$WORK/together"
	for entry in "${alone[@]}"; do
		name=$cases/$(basename "${entry%:*}")
		# Of a case that runs for format 3.
		[[ $name != *-v3.* ]] || name=${name%-v3.*}.${name##*.}
		initramfs=$KINITRAMFS
		for need in $(header "$name" needs); do
			[[ ! -f $WORK/initrd-$need ]] || initramfs=$WORK/initrd-$need
		done
		printf '%s\t%s\t%s\n' "$entry" "$initramfs" "$(header "$name" kernel-args)"
	done >"$WORK/alone"
	# The probe of KVM needs the real initramfs: its verdict is kept.
	accelerator >/dev/null
	KINITRAMFS=@INITRAMFS@ CASE_KARGS=@ARGUMENTS@ qemu_command cases
	lock_guest
	# In the background, because a trap does not run while bash waits for a command. It dies with us.
	SLOWNESS=$SLOWNESS KINITRAMFS=$KINITRAMFS setpriv --pdeathsig KILL \
		"$PYTHON" -IB "$QT/lib/guests.py" "$WORK" "$BUILD/logs" "$1" -- "${qemu[@]}" </dev/null &
	wait "$!" || true
	unlock_guest
	if read -r p f s <"$WORK/counts"; then
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	else
		report failed guests "they were not followed to their end"
	fi
}

case_name() { local name=${1%:*}; name=${name##*/}; echo "${name%.*}"; }
