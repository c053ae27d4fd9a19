/* SPDX-License-Identifier: GPL-2.0 */
/* Differences between the C interfaces of the kernels that the module is built for. */
#ifndef _VFS_COMPAT_H
#define _VFS_COMPAT_H

#include <linux/backing-file.h>
#include <linux/file.h>
#include <linux/fs.h>

#ifndef VFS_HAS_SILENT_BACKING_FILES
/* Exported, but declared in fs/internal.h only. */
void backing_file_set_user_path(struct file *f, const struct path *path);
struct file *alloc_empty_backing_file(int flags, const struct cred *cred,
				      const struct file *user_file);

/* Before 7.3, backing_file_open() sends fsnotify events even if those of @user_file are off. */
static inline struct file *vfs_compat_backing_file_open(const struct file *user_file, int flags,
							const struct path *path,
							const struct cred *cred)
{
	struct file *file = alloc_empty_backing_file(flags, cred, user_file);
	int err;

	if (IS_ERR(file))
		return file;
	file_set_fsnotify_mode(file, FMODE_NONOTIFY);
	path_get(&user_file->f_path);
	backing_file_set_user_path(file, &user_file->f_path);
	file->__f_path.mnt = path->mnt;
	err = finish_open(file, path->dentry, NULL);
	if (err) {
		fput(file);
		file = ERR_PTR(err);
	}
	return file;
}
#else
#define vfs_compat_backing_file_open backing_file_open
#endif

#endif
