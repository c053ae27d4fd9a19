// SPDX-License-Identifier: GPL-2.0
/*
 * Opens files of the filesystem below for the module's own use.
 *
 * Such a file is a backing file, as overlayfs has: it does not count against nr_files. The file
 * that it backs is an O_PATH file of the directory, which sends no fsnotify events; a backing file
 * inherits that. A permission event would be sent while folios are locked, and its listener can
 * wait for one of these folios.
 */
#include <linux/cred.h>
#include <linux/delay.h>
#include <linux/namei.h>
#include <linux/sched/signal.h>

#include "backing.h"
#include "compat.h"

/* Opens a directory to look names up in; nothing is read through the file. */
struct file *vfs_rs_open_directory(const struct path *path, const struct cred *cred)
{
	return dentry_open(path, O_PATH | O_DIRECTORY, cred);
}

const struct path *vfs_rs_file_path(const struct file *file)
{
	return &file->f_path;
}

int vfs_rs_file_stack_depth(const struct file *file)
{
	return file_inode(file)->i_sb->s_stack_depth;
}

/*
 * A lookup of a name that nobody looked up before takes the directory's lock. Here it must not wait
 * for it without end: a page fault may have brought us here out of a listing of that directory into
 * memory mapped from a file of ours. The task has the lock then, and as soon as somebody waits to
 * write to the directory would not get it once more; nor would anybody else.
 */
static struct dentry *vfs_rs_lookup_locked(const struct path *dir, struct qstr *name)
{
	struct inode *inode = d_inode(dir->dentry);
	/* A few times of it, for a page is tried again, end before a task counts as blocked. */
	const unsigned long end = jiffies + 20 * HZ;
	unsigned int delay = 50; /* microseconds */
	struct dentry *dentry;

	while (!inode_trylock_shared(inode)) {
		if (fatal_signal_pending(current))
			return ERR_PTR(-EINTR);
		if (time_after(jiffies, end))
			return ERR_PTR(-EDEADLK);
		fsleep(delay);
		delay = min(2 * delay, 1000U);
	}
	dentry = lookup_one(mnt_idmap(dir->mnt), name, dir->dentry);
	inode_unlock_shared(inode);
	return dentry;
}

/* Gives a positive dentry with a reference. */
static struct dentry *vfs_rs_lookup_child(const struct path *dir, const char *name,
					  unsigned int len)
{
	struct qstr qstr = QSTR_LEN(name, len);
	int err = inode_permission(mnt_idmap(dir->mnt), d_inode(dir->dentry), MAY_EXEC);
	struct dentry *dentry = err ? ERR_PTR(err) : try_lookup_noperm(&qstr, dir->dentry);

	if (!IS_ERR_OR_NULL(dentry) && dentry->d_flags & DCACHE_OP_REVALIDATE) {
		dput(dentry);
		dentry = NULL;
	}
	if (!dentry)
		dentry = vfs_rs_lookup_locked(dir, &qstr);
	if (IS_ERR(dentry))
		return dentry;
	/* Pairs with the release in __d_set_inode_and_type(): it can become positive meanwhile. */
	if (d_flags_negative(smp_load_acquire(&dentry->d_flags))) {
		dput(dentry);
		return ERR_PTR(-ENOENT);
	}
	return dentry;
}

/* Opens a regular file by its path, for reading. */
static struct file *vfs_rs_open_path(const struct file *dir, const struct path *path,
				     const struct cred *cred)
{
	struct mnt_idmap *idmap = mnt_idmap(path->mnt);
	struct inode *inode = d_inode(path->dentry);
	int flags = O_RDONLY | O_LARGEFILE;
	int err;

	if (!d_is_reg(path->dentry))
		return ERR_PTR(-EINVAL);
	err = inode_permission(idmap, inode, MAY_OPEN | MAY_READ);
	if (err)
		return ERR_PTR(err);
	/* A reader of an image does not write to the filesystem below. */
	if (inode_owner_or_capable(idmap, inode))
		flags |= O_NOATIME;
	return vfs_compat_backing_file_open(dir, flags, path, cred);
}

/*
 * Opens a regular file in a directory for reading. The name is one component; no symbolic link is
 * followed, no device or pipe opened. The current task must have overridden its credentials.
 */
struct file *vfs_rs_open_backing(const struct file *dir, const char *name, unsigned int len)
{
	struct path path = { .mnt = dir->f_path.mnt };
	struct file *file;

	path.dentry = vfs_rs_lookup_child(&dir->f_path, name, len);
	if (IS_ERR(path.dentry))
		return ERR_CAST(path.dentry);
	file = vfs_rs_open_path(dir, &path, current_cred());
	dput(path.dentry);
	return file;
}
