/* SPDX-License-Identifier: GPL-2.0 */
/* Opens files of the filesystem below for the module's own use. */
#ifndef _VFS_BACKING_H
#define _VFS_BACKING_H

#include <linux/fs.h>

struct file *vfs_rs_open_directory(const struct path *path, const struct cred *cred);
const struct path *vfs_rs_file_path(const struct file *file);
int vfs_rs_file_stack_depth(const struct file *file);
struct file *vfs_rs_open_backing(const struct file *dir, const char *name, unsigned int len,
				 bool wait);
ssize_t vfs_rs_backing_read_iter(struct kiocb *iocb, struct iov_iter *iter);
void vfs_rs_will_need(struct file *file, loff_t offset, loff_t len);
void vfs_rs_forget_cached(struct file *file);

#endif
