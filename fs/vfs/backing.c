// SPDX-License-Identifier: GPL-2.0
/*
 * Opens and reads files of the filesystem below for the module's own use.
 *
 * Such a file is a backing file, as overlayfs has: it does not count against nr_files. The file
 * that it backs is an O_PATH file of the directory, which sends no fsnotify events; a backing file
 * inherits that. A permission event would be sent while folios are locked, and its listener can
 * wait for one of these folios.
 */
#include <linux/cred.h>
#include <linux/fadvise.h>
#include <linux/gfs2_ondisk.h>
#include <linux/magic.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/uio.h>

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
	/* There is no page cache to read from, and each read takes the file's lock. */
	if (IS_DAX(d_real_inode(path->dentry)) && inode->i_sb->s_magic != FUSE_SUPER_MAGIC)
		return ERR_PTR(-EOPNOTSUPP);
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
 * Without @wait, -EAGAIN is given if the directory's lock is not free or somebody has a lease on
 * the file; the holder of the lease has been asked to give it up.
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

/*
 * How files are read through their page cache.
 *
 * A caller has folios locked, and in a page fault mmap_lock as well. The holder of a file's lock
 * can wait for either, to copy from or to user memory: a write, FIEMAP, a read. Many filesystems
 * take this lock in ->read_iter() (XFS, NFS and others of the network), so that a read sees all of
 * a write or nothing of it. Blobs do not need this.
 *
 * A page fault has the same problem, and therefore never takes a file's lock: filemap_fault() reads
 * the page cache by ->read_folio() and ->readahead(). Files are read like this here. FUSE and GFS2
 * are read by ->read_iter(), because their page faults do more than that; neither has the lock of
 * the file while it copies from user memory.
 */
static bool vfs_rs_is_read_by_folio(const struct file *file)
{
	const struct address_space_operations *ops = file->f_mapping->a_ops;
	unsigned long magic = file_inode(file)->i_sb->s_magic;

	return ops->read_folio && magic != FUSE_SUPER_MAGIC && magic != GFS2_MAGIC;
}

/*
 * The page cache of the file that an overlay's file stands for; NULL if ->read_iter() is used. A
 * filesystem without a disk may need an open file of its own to read a folio.
 */
static struct address_space *vfs_rs_real_mapping(const struct file *file)
{
	struct dentry *dentry = file->f_path.dentry;
	struct inode *inode;

	if (!(dentry->d_flags & DCACHE_OP_REAL))
		return NULL;
	inode = d_real_inode(dentry);
	return inode->i_sb->s_bdev && inode->i_mapping->a_ops->read_folio ? inode->i_mapping : NULL;
}

/* Reads ahead into a page cache, at most so many bytes. */
static void vfs_rs_read_ahead(struct address_space *mapping, loff_t pos, size_t len)
{
	loff_t end = min(i_size_read(mapping->host), pos + (loff_t)min_t(size_t, len, SZ_2M));
	struct file_ra_state ra = {};
	DEFINE_READAHEAD(ractl, NULL, &ra, mapping, pos >> PAGE_SHIFT);

	if (end > pos)
		page_cache_ra_unbounded(&ractl, ((end - 1) >> PAGE_SHIFT) - (pos >> PAGE_SHIFT) + 1,
					0);
}

/* Reads from a page cache. */
static ssize_t vfs_rs_read_mapping(struct address_space *mapping, loff_t pos,
				   struct iov_iter *iter)
{
	size_t read = 0;

	while (iov_iter_count(iter) && pos < i_size_read(mapping->host)) {
		struct folio *folio = filemap_get_folio(mapping, pos >> PAGE_SHIFT);
		size_t offset, len, copied;

		if (IS_ERR(folio))
			vfs_rs_read_ahead(mapping, pos, iov_iter_count(iter));
		else
			folio_put(folio);
		filemap_invalidate_lock_shared(mapping);
		folio = read_mapping_folio(mapping, pos >> PAGE_SHIFT, NULL);
		filemap_invalidate_unlock_shared(mapping);
		if (IS_ERR(folio))
			return read ?: PTR_ERR(folio);
		offset = offset_in_folio(folio, pos);
		len = min3(folio_size(folio) - offset, iov_iter_count(iter),
			   (size_t)max(i_size_read(mapping->host) - pos, 0LL));
		copied = copy_folio_to_iter(folio, offset, len, iter);
		folio_put(folio);
		if (!copied)
			break;
		read += copied;
		pos += copied;
	}
	return read;
}

/* Reads a file; a read through the page cache does not take the file's lock. */
ssize_t vfs_rs_backing_read_iter(struct kiocb *iocb, struct iov_iter *iter)
{
	struct file *file = iocb->ki_filp;
	struct address_space *mapping = vfs_rs_real_mapping(file);
	ssize_t err;

	if (iocb->ki_flags & IOCB_DIRECT || (!mapping && !vfs_rs_is_read_by_folio(file)))
		return vfs_iocb_iter_read(file, iocb, iter);
	err = rw_verify_area(READ, file, &iocb->ki_pos, iov_iter_count(iter));
	if (err < 0)
		return err;
	if (mapping)
		return vfs_rs_read_mapping(mapping, iocb->ki_pos, iter);
	return filemap_read(iocb, iter, 0);
}

/* Starts to read into the page cache. */
void vfs_rs_will_need(struct file *file, loff_t offset, loff_t len)
{
	struct address_space *mapping = vfs_rs_real_mapping(file);

	if (mapping)
		vfs_rs_read_ahead(mapping, offset, len);
	else if (vfs_rs_is_read_by_folio(file))
		generic_fadvise(file, offset, len, POSIX_FADV_WILLNEED);
	else
		vfs_fadvise(file, offset, len, POSIX_FADV_WILLNEED);
}

/*
 * Drops what the page cache has of a file that is not as it should be. ->read_iter() of a network
 * filesystem would do so if the server has another version now.
 */
void vfs_rs_forget_cached(struct file *file)
{
	invalidate_mapping_pages(file->f_mapping, 0, -1);
}
