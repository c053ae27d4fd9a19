// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The one program of a guest whose processor this machine only emulates, as process 1: loads the
 * modules, mounts the payload (ext4, /dev/vda) and on it each image that /payload/mounts names,
 * and compares every entry of the mount with the source tree beside it: type, mode, owner, link
 * count, time, size, device number, link target, extended attributes, and contents, once by read(2)
 * and once by mmap(2). The outcome goes to /dev/vdb as text. Run by qemu-test/run-arm64.
 *
 * /payload/mounts has a line for each mount: NAME OPTIONS.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define XATTR_ROOM 65536

static FILE *results;
static unsigned long entries, bytes, mismatches;

static void tell(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(results, format, args);
	va_end(args);
	fputc('\n', results);
}

static void mismatch(const char *path, const char *what)
{
	/* The first ones tell enough. */
	if (mismatches++ < 20)
		tell("mismatch %s: %s", path, what);
}

static _Noreturn void power_off(void)
{
	if (results) {
		fflush(results);
		fsync(fileno(results));
	}
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static _Noreturn void fatal(const char *what, const char *name)
{
	int error = errno;

	fprintf(stderr, "puzzlefs-guest: %s %s: %s\n", what, name, strerror(error));
	if (results)
		tell("fatal %s %s: %s", what, name, strerror(error));
	power_off();
}

static void load(const char *file)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fatal("cannot open", file);
	if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
		fatal("cannot load", file);
	close(fd);
}

static void load_modules(void)
{
	char line[PATH_MAX], path[PATH_MAX + 16];
	FILE *order = fopen("/modules/order", "r");

	if (!order)
		fatal("cannot open", "/modules/order");
	while (fgets(line, sizeof(line), order)) {
		line[strcspn(line, "\n")] = 0;
		snprintf(path, sizeof(path), "/modules/%s", line);
		load(path);
	}
	fclose(order);
}

/* Waits for a device, 60 s at the most. */
static int open_device(const char *path, int flags)
{
	for (int tries = 0; tries < 600; tries++) {
		int fd = open(path, flags | O_CLOEXEC);

		if (fd >= 0)
			return fd;
		usleep(100000);
	}
	fatal("cannot open", path);
}

static void compare_contents(const char *path, int a, int b, off_t size)
{
	static unsigned char from_source[1 << 16], from_mount[1 << 16];
	unsigned char *map;
	off_t at = 0;

	map = size ? mmap(NULL, size, PROT_READ, MAP_SHARED, b, 0) : NULL;
	if (map == MAP_FAILED) {
		mismatch(path, "cannot be mapped");
		map = NULL;
	}
	for (;;) {
		ssize_t wanted = read(a, from_source, sizeof(from_source));
		ssize_t got = 0;

		if (wanted < 0)
			fatal("cannot read the source of", path);
		while (got < wanted) {
			ssize_t now = read(b, from_mount + got, wanted - got);

			if (now <= 0)
				break;
			got += now;
		}
		if (got != wanted || memcmp(from_source, from_mount, wanted)) {
			mismatch(path, "other contents (read)");
			break;
		}
		if (!wanted) {
			if (read(b, from_mount, 1) != 0)
				mismatch(path, "longer than its source");
			break;
		}
		/* The pages in between are in the page cache by now. */
		if (map && memcmp(from_source, map + at, wanted)) {
			mismatch(path, "other contents (mmap)");
			break;
		}
		at += wanted;
	}
	bytes += at;
	if (map)
		munmap(map, size);
}

/* Sets values and order aside: every attribute of one must be the other's, and there are as many. */
static void compare_xattrs(const char *path, const char *a, const char *b)
{
	static char list[XATTR_ROOM], other[XATTR_ROOM], value[XATTR_ROOM], same[XATTR_ROOM];
	ssize_t len = llistxattr(a, list, sizeof(list)), other_len = llistxattr(b, other, sizeof(other));

	if (len != other_len) {
		mismatch(path, "other names of extended attributes");
		return;
	}
	for (char *name = list; len > 0 && name < list + len; name += strlen(name) + 1) {
		ssize_t wanted = lgetxattr(a, name, value, sizeof(value));

		if (wanted != lgetxattr(b, name, same, sizeof(same)) ||
		    memcmp(value, same, wanted < 0 ? 0 : wanted))
			mismatch(path, "other extended attributes");
	}
}

static void compare(const char *a, const char *b);

static void compare_directories(const char *a, const char *b)
{
	struct dirent **in_a, **in_b;
	int count = scandir(a, &in_a, NULL, alphasort), other = scandir(b, &in_b, NULL, alphasort);
	char *path_a, *path_b;

	if (count < 0)
		fatal("cannot list", a);
	if (count != other)
		mismatch(b, "another number of entries");
	for (int i = 0; i < count; i++) {
		const char *name = in_a[i]->d_name;

		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		if (i < other && strcmp(name, in_b[i]->d_name))
			mismatch(b, "other names");
		if (asprintf(&path_a, "%s/%s", a, name) < 0 || asprintf(&path_b, "%s/%s", b, name) < 0)
			fatal("no memory for", name);
		compare(path_a, path_b);
		free(path_a);
		free(path_b);
	}
	for (int i = 0; i < count; i++)
		free(in_a[i]);
	for (int i = 0; i < other; i++)
		free(in_b[i]);
	free(in_a);
	if (other >= 0)
		free(in_b);
}

static void compare(const char *a, const char *b)
{
	struct stat source, mount;

	entries++;
	if (lstat(a, &source))
		fatal("cannot stat", a);
	if (lstat(b, &mount)) {
		mismatch(b, "is not there");
		return;
	}
	if (source.st_mode != mount.st_mode)
		mismatch(b, "another type or mode");
	if (source.st_uid != mount.st_uid || source.st_gid != mount.st_gid)
		mismatch(b, "another owner");
	if (source.st_mtim.tv_sec != mount.st_mtim.tv_sec || source.st_mtim.tv_nsec != mount.st_mtim.tv_nsec)
		mismatch(b, "another time");
	if (source.st_nlink != mount.st_nlink)
		mismatch(b, "another link count");
	compare_xattrs(b, a, b);
	if (S_ISDIR(source.st_mode)) {
		compare_directories(a, b);
		return;
	}
	if (source.st_size != mount.st_size)
		mismatch(b, "another size");
	if (S_ISREG(source.st_mode)) {
		int fd_a = open(a, O_RDONLY | O_CLOEXEC), fd_b = open(b, O_RDONLY | O_CLOEXEC);

		if (fd_a < 0)
			fatal("cannot open", a);
		if (fd_b < 0)
			mismatch(b, "cannot be opened");
		else
			compare_contents(b, fd_a, fd_b, source.st_size);
		close(fd_a);
		close(fd_b);
	} else if (S_ISLNK(source.st_mode)) {
		char target_a[PATH_MAX], target_b[PATH_MAX];
		ssize_t len = readlink(a, target_a, sizeof(target_a));

		if (len != readlink(b, target_b, sizeof(target_b)) || memcmp(target_a, target_b, len))
			mismatch(b, "another target");
	} else if ((S_ISCHR(source.st_mode) || S_ISBLK(source.st_mode)) && source.st_rdev != mount.st_rdev) {
		mismatch(b, "another device");
	}
}

int main(void)
{
	char name[256], options[1024];
	FILE *mounts;

	if (getpid() != 1) {
		fprintf(stderr, "this is the first program of a guest\n");
		return 2;
	}
	mkdir("/dev", 0755);
	mkdir("/payload", 0755);
	mkdir("/mnt", 0755);
	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)
		fatal("cannot mount", "/dev");
	load_modules();
	results = fdopen(open_device("/dev/vdb", O_WRONLY), "w");
	close(open_device("/dev/vda", O_RDONLY));
	if (mount("/dev/vda", "/payload", "ext4", MS_RDONLY, NULL))
		fatal("cannot mount", "/payload");
	load("/payload/puzzlefs.ko");
	mounts = fopen("/payload/mounts", "r");
	if (!mounts)
		fatal("cannot open", "/payload/mounts");
	while (fscanf(mounts, "%255s %1023s", name, options) == 2) {
		if (mount("/payload/store", "/mnt", "puzzlefs", 0, options))
			fatal("cannot mount", name);
		compare("/payload/tree", "/mnt");
		if (umount("/mnt"))
			fatal("cannot unmount", name);
	}
	if (syscall(SYS_delete_module, "puzzlefs", O_NONBLOCK))
		fatal("cannot unload", "puzzlefs");
	tell("done %lu %lu %lu", entries, bytes, mismatches);
	power_off();
}
