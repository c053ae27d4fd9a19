# SPDX-License-Identifier: MIT OR Apache-2.0
# One Debian root filesystem in PuzzleFS and its peers, on one ext4 whose disk delays every read: time of
# some workloads, requests that reach the disk, and how often the reader sleeps.
# timeout: 7200
#
# Not a test: nothing is compared with a limit. `qemu-test/bench/slow` prints the tables. /payload/images
# has an image for each system, from bench/slow-images, and `plan`, which sets the arrays `delays` (in ms),
# `systems` and `workloads`, and the variables `rounds`, `large` (the path of a large file of the root) and
# `profile`, which is not 0 if bench/instructions.c counts the instructions of each run of the reader.

# shellcheck source=qemu-test/bench/lib/measure.sh
. /payload/cases/lib/measure.sh
images=/payload/images
delays=() systems=() workloads=() rounds='' large='' profile=0
# shellcheck source=/dev/null
. "$images/plan"

# The number of runs of the reader until now.
runs=0
# Each mount(8) is timed: attach_composefs calls two.
mount_time=0 mount_sleeps=0
mount() {
	local time sleeps
	read -r time _ sleeps < <("$reader" run / mount "$@")
	runs=$((runs + 1))
	mount_time=$((mount_time + time)) mount_sleeps=$((mount_sleeps + sleeps))
}

# A loop device with direct I/O has no cache of its own, so that the delay is all that is added.
export DM_DISABLE_UDEV=1 # dmsetup itself makes the device node
truncate -s 6G disk.img
loop=$(losetup --find --show --direct-io=on disk.img)
sectors=$(blockdev --getsz "$loop")
delay_reads() { # MILLISECONDS
	local table="0 $sectors delay $loop 0 $1 $loop 0 0"
	if [[ -e /dev/mapper/slow ]]; then
		dmsetup suspend slow
		dmsetup load slow --table "$table"
		dmsetup resume slow
	else
		dmsetup create slow --table "$table"
	fi
}
delay_reads 0
statistics=/sys/dev/block/$(dmsetup info --columns --noheadings --separator : -o major,minor slow)/stat
# Nothing but the workloads reads or writes: no inode tables are zeroed later, no access times change.
mkfs.ext4 -q -O verity -E lazy_itable_init=0,lazy_journal_init=0 -N 65536 /dev/mapper/slow
mkdir disk m
command mount -t ext4 -o noatime /dev/mapper/slow disk
disk=$CASE_DIR/disk
cp -a "$images/." disk
sync

at=$CASE_DIR/m
attach() {
	mount_time=0 mount_sleeps=0
	case $1 in
	ext4) mount --bind "$disk/ext4" "$at" ;;
	puzzlefs*-digest) mount -t puzzlefs -o verify=digest "$disk/${1%-digest}:debian" "$at" ;;
	puzzlefs*) mount -t puzzlefs -o verify=none "$disk/$1:debian" "$at" ;;
	erofs-loop) mount -t erofs -o loop,ro "$disk/erofs" "$at" ;;
	erofs*)
		mount -t erofs -o ro "$disk/$1" "$at"
		assert_eq "$(findmnt -no SOURCE "$at")" "$disk/$1" "source of $1"
		;;
	squashfs) mount -t squashfs -o loop,ro "$disk/squashfs" "$at" ;;
	composefs) attach_composefs "$disk/sample.composefs" "$disk/sample.objects" "$at" ;;
	*) fail "$1: no such system" ;;
	esac
}
# files_of SYSTEM: those of its image, if they are few.
files_of() {
	case $1 in
	ext4 | composefs | puzzlefs-3*) ;;
	puzzlefs*) find "$disk/${1%-digest}/blobs" -type f ;;
	*) echo "$disk/${1%-loop}" ;;
	esac
}

declare -A wanted=()
took() { # WORKLOAD READER-ARGUMENT...
	local workload=$1 count
	read -r time count sleeps < <("$reader" "${@:2}")
	runs=$((runs + 1))
	# All systems have read the same.
	: "${wanted[$workload]:=$count}"
	[[ ${wanted[$workload]} == "$count" ]] || fail "$system $workload: $count, not ${wanted[$workload]}"
}
work() { # SYSTEM WORKLOAD
	case $2 in
	mount) time=$mount_time sleeps=$mount_sleeps ;;
	walk | read) took "$2" "$2" m ;;
	random) took random random "m/$large" 300 ;;
	python) took python run m /usr/bin/python3 -c 'import json, socket, ssl' ;;
	readers) took readers readers m 8 ;;
	*) fail "$2: no such workload" ;;
	esac
}
# The physical limit: reads the files of the image from the first byte to the last, past the page cache.
limit() { # SYSTEM
	local file once slept
	# dd itself is not read from the disk meanwhile.
	dd if=/dev/zero of=/dev/null count=1 status=none
	time=0 sleeps=0
	while read -r file; do
		read -r once _ slept < <("$reader" run / dd "if=$file" of=/dev/null bs=1M iflag=direct status=none)
		runs=$((runs + 1))
		time=$((time + once)) sleeps=$((sleeps + slept))
	done < <(files_of "$1")
}
# latency: the time of a read of 4 KiB, with one after the other: dm-delay counts in ticks of the timer.
latency() {
	local once
	dd if=/dev/zero of=/dev/null count=1 status=none
	read -r once _ < <("$reader" run / dd if=/dev/mapper/slow of=/dev/null bs=4k count=100 iflag=direct \
		status=none)
	runs=$((runs + 1))
	metric "latency.$delay" "$((once / 100000))"
}
# Reads that have completed, and their sectors.
reads() { awk '{ print $1, $3 }' "$statistics"; }

# Symbols of the kernel and the module, by their addresses in this boot.
symbols() {
	python3 - <<-END
		import base64, zlib
		with open("/proc/kallsyms") as file:
		    lines = [line.split() for line in file]
		text = "".join(f"{address} {name}\n" for address, kind, name, *_ in lines if kind in "tTwW")
		text = base64.b64encode(zlib.compress(text.encode())).decode()
		for at in range(0, len(text), 2000):
		    print(f"symbols.{at:08}", text[at:at + 2000])
	END
}

# The first mount of a filesystem would load its module.
modprobe -a erofs overlay squashfs
for delay in "${delays[@]}"; do
	delay_reads "$delay"
	latency
	for ((round = 1; round <= rounds; round++)); do
		for system in "${systems[@]}"; do
			for workload in "${workloads[@]}"; do
				[[ $workload != limit || $(files_of "$system") ]] || continue
				drop_caches
				first=$runs
				read -r requests_before sectors_before < <(reads)
				if [[ $workload == limit ]]; then
					limit "$system"
				else
					attach "$system"
					if [[ $workload != mount ]]; then
						first=$runs
						read -r requests_before sectors_before < <(reads)
					fi
					work "$system" "$workload"
					# With what is still being read ahead.
					detach "$system" m
				fi
				read -r requests sectors_read < <(reads)
				metric "$system.$workload.$delay.$round" "$((time / 1000)) $((requests - requests_before)) \
$(((sectors_read - sectors_before) * 512)) $sleeps $first $runs"
			done
		done
	done
done
((!profile)) || symbols >>"$RESULT_DIR/metrics"
delay_reads 0
umount disk
dmsetup remove slow
losetup -d "$loop"
