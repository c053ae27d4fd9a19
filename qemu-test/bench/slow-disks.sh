# SPDX-License-Identifier: MIT OR Apache-2.0
# One Debian root filesystem in PuzzleFS and its peers, on one ext4 whose disk delays every request: time
# of some workloads, requests that reach the disk, and how often the reader sleeps.
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

# The disk is null_blk in memory: a timer of high resolution ends each request, and nothing wakes a thread.
# dm-delay counts in ticks of 4 ms, and the workers of a loop device add up to 5 ms in an emulated guest.
modprobe null_blk nr_devices=0
mountpoint -q /sys/kernel/config || command mount -t configfs configfs /sys/kernel/config
null=/sys/kernel/config/nullb/slow statistics=/sys/block/slow/stat disk=$CASE_DIR/disk
mkdir disk m
make_disk() { # MILLISECONDS
	mkdir "$null"
	echo "$(($(du -sm "$images" | cut -f1) * 5 / 4 + 256))" >"$null/size"
	echo 1 >"$null/memory_backed"
	echo 4096 >"$null/blocksize"
	echo 256 >"$null/hw_queue_depth"
	echo 2048 >"$null/max_sectors"
	echo 2 >"$null/irqmode"
	echo "$(($1 * 1000000))" >"$null/completion_nsec"
	echo 1 >"$null/power"
	# Nothing but the workloads reads or writes: no inode tables are zeroed later, no access times change.
	mkfs.ext4 -q -O verity -J size=16 -E lazy_itable_init=0,lazy_journal_init=0 -N 65536 /dev/slow
	command mount -t ext4 -o noatime /dev/slow disk
	cp -a "$images/." disk
}
remove_disk() {
	umount disk
	echo 0 >"$null/power"
	rmdir "$null"
}

at=$CASE_DIR/m
attach() {
	mount_time=0 mount_sleeps=0
	case $1 in
	ext4) mount --bind "$disk/ext4" "$at" ;;
	puzzlefs*-digest) mount -t puzzlefs -o verify=digest "$disk/${1%-digest}:debian" "$at" ;;
	puzzlefs*-order) mount -t puzzlefs -o verify=none,prefetch "$disk/$1:debian" "$at" ;;
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
	nginx) took nginx run m /usr/sbin/nginx -V 2>/dev/null ;;
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
# latency: the time of a read of 4 KiB, with one after the other.
latency() {
	local once
	dd if=/dev/zero of=/dev/null count=1 status=none
	read -r once _ < <("$reader" run / dd if=/dev/slow of=/dev/null bs=4k count=100 iflag=direct status=none)
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
	make_disk "$delay"
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
	remove_disk
done
((!profile)) || symbols >>"$RESULT_DIR/metrics"
