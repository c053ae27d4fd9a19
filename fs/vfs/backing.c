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
#include <linux/namei.h>

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
 * Looks a name up in a directory and gives a positive dentry with a reference.
 *
 * A lookup of a name that the dcache does not have takes the directory's lock. With @wait, the
 * caller must hold no lock that the lock's holder could wait for. Without, the lookup gives -EAGAIN
 * if the lock is not free: the holder may be listing the directory into memory mapped from a file
 * of ours, and then waits for a folio that the caller has locked.
 */
static struct dentry *vfs_rs_lookup_child(const struct path *dir, const char *name,
					  unsigned int len, bool wait)
{
	struct mnt_idmap *idmap = mnt_idmap(dir->mnt);
	struct inode *inode = d_inode(dir->dentry);
	struct qstr qstr = QSTR_LEN(name, len);
	struct dentry *dentry;
	int err;

	if (wait)
		return lookup_one_positive_killable(idmap, &qstr, dir->dentry);
	err = inode_permission(idmap, inode, MAY_EXEC);
	dentry = err ? ERR_PTR(err) : try_lookup_noperm(&qstr, dir->dentry);
	if (!IS_ERR_OR_NULL(dentry) && dentry->d_flags & DCACHE_OP_REVALIDATE) {
		dput(dentry);
		dentry = NULL;
	}
	if (!dentry) {
		if (!inode_trylock_shared(inode))
			return ERR_PTR(-EAGAIN);
		dentry = lookup_one(idmap, &qstr, dir->dentry);
		inode_unlock_shared(inode);
	}
	if (IS_ERR(dentry))
		return dentry;
	/* Pairs with the release in __d_set_inode_and_type(): it can become positive meanwhile. */
	if (d_flags_negative(smp_load_acquire(&dentry->d_flags))) {
		dput(dentry);
		return ERR_PTR(-ENOENT);
	}
	return dentry;
}

/* Opens a regular file by its path for reading. Without @wait, a lease on it gives -EAGAIN. */
static struct file *vfs_rs_open_path(const struct file *dir, const struct path *path,
				     const struct cred *cred, bool wait)
{
	struct mnt_idmap *idmap = mnt_idmap(path->mnt);
	struct inode *inode = d_inode(path->dentry);
	int flags = O_RDONLY | O_LARGEFILE | (wait ? 0 : O_NONBLOCK);
	struct file *file;
	int err;

	if (!d_is_reg(path->dentry))
		return ERR_PTR(-EINVAL);
	err = inode_permission(idmap, inode, MAY_OPEN | MAY_READ);
	if (err)
		return ERR_PTR(err);
	/* A reader of an image does not write to the filesystem below. */
	if (inode_owner_or_capable(idmap, inode))
		flags |= O_NOATIME;
	file = vfs_compat_backing_file_open(dir, flags, path, cred);
	/* Nobody else has the file yet. */
	if (!IS_ERR(file))
		file->f_flags &= ~O_NONBLOCK;
	return file;
}

/*
 * Opens a regular file in a directory for reading. The name is one component; no symbolic link is
 * followed, no device or pipe opened. The current task must have overridden its credentials.
 *
 * Without @wait, -EAGAIN is given if the directory's lock is not free or somebody has a lease on the
 * file; the holder of the lease has been asked to give it up.
 */
struct file *vfs_rs_open_backing(const struct file *dir, const char *name, unsigned int len,
				 bool wait)
{
	struct path path = { .mnt = dir->f_path.mnt };
	struct file *file;

	path.dentry = vfs_rs_lookup_child(&dir->f_path, name, len, wait);
	if (IS_ERR(path.dentry))
		return ERR_CAST(path.dentry);
	file = vfs_rs_open_path(dir, &path, current_cred(), wait);
	dput(path.dentry);
	return file;
}
