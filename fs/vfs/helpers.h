/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Wrappers that Rust calls, as rust/helpers/ has them for the kernel crate: of static inlines,
 * macros, variadic functions, bit fields, and members of anonymous structures and unions, for which
 * each bindgen invents names. Each is one call or access; the kernel documents it.
 */
#ifndef _VFS_HELPERS_H
#define _VFS_HELPERS_H

#include <linux/backing-dev.h>
#include <linux/blkdev.h>
#include <linux/cgroup.h>
#include <linux/exportfs.h>
#include <linux/fadvise.h>
#include <linux/fileattr.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fsverity.h>
#include <linux/gfs2_ondisk.h>
#include <linux/highmem.h>
#include <linux/magic.h>
#include <linux/migrate.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/pseudo_fs.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/uio.h>
#include <linux/workqueue.h>
#include <linux/xattr.h>

/* fs_context.h */
int vfs_rs_fc_value_type(const struct fs_parameter *param);
const char *vfs_rs_fc_string(const struct fs_parameter *param);

/* fs.h, super */
void vfs_rs_file_set_ra_pages(struct file *file, unsigned int pages);
bool vfs_rs_maps_executable(const struct vm_area_desc *area);
bool vfs_rs_inode_is_new(struct inode *inode);
void vfs_rs_inode_set_fop(struct inode *inode, const struct file_operations *fop);
void vfs_rs_inode_set_link(struct inode *inode, char *target);
const unsigned char *vfs_rs_dentry_name(const struct dentry *dentry, u32 *len);
struct inode *vfs_rs_alloc_inode(struct super_block *sb, struct kmem_cache *cache);
void vfs_rs_inode_set_mtime(struct inode *inode, s64 sec, u32 nsec);
void vfs_rs_inode_set_ctime(struct inode *inode, s64 sec, u32 nsec);
void vfs_rs_inode_set_atime(struct inode *inode, s64 sec, u32 nsec);
void vfs_rs_inode_set_owner(struct inode *inode, u32 uid, u32 gid);
void vfs_rs_cache_no_acl(struct inode *inode);
void vfs_rs_inode_set_size(struct inode *inode, loff_t size);
bool vfs_rs_inode_share_mapping(struct inode *inode, struct address_space *mapping);
loff_t vfs_rs_inode_size(const struct inode *inode);
time64_t vfs_rs_inode_ctime_sec(const struct inode *inode);
u32 vfs_rs_inode_ctime_nsec(const struct inode *inode);
bool vfs_rs_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino,
		     unsigned int type);
bool vfs_rs_dir_emit_dots(struct file *file, struct dir_context *ctx);
struct kmem_cache *vfs_rs_inode_cache_create(const char *name, unsigned int size,
					     void (*ctor)(void *));
bool vfs_rs_ratelimit(void);
void vfs_rs_cond_resched(void);
int vfs_rs_fatal_signal_pending(struct task_struct *task);

/* pagemap.h */
void vfs_rs_mapping_allow_large_folios(struct address_space *mapping);
gfp_t vfs_rs_mapping_gfp_constraint(const struct address_space *mapping, gfp_t gfp);
struct folio *vfs_rs_filemap_alloc_folio(gfp_t gfp, unsigned int order);
void vfs_rs_folio_put(struct folio *folio);
struct folio *vfs_rs_readahead_folio(struct readahead_control *rac);
loff_t vfs_rs_readahead_pos(struct readahead_control *rac);
size_t vfs_rs_readahead_length(struct readahead_control *rac);
struct address_space *vfs_rs_folio_mapping(const struct folio *folio);
loff_t vfs_rs_folio_pos(const struct folio *folio);
size_t vfs_rs_folio_size(const struct folio *folio);
bool vfs_rs_folio_test_large(const struct folio *folio);
void vfs_rs_folio_zero_range(struct folio *folio, size_t start, size_t len);
void vfs_rs_memcpy_to_folio(struct folio *folio, size_t offset, const u8 *from, size_t len);
bool vfs_rs_folio_test_highmem(const struct folio *folio);
void *vfs_rs_folio_address(const struct folio *folio);
void vfs_rs_bvec_set_folio(struct bio_vec *bv, struct folio *folio, size_t len, size_t offset);

/* cred.h */
const struct cred *vfs_rs_override_creds(const struct cred *cred);
void vfs_rs_revert_creds(const struct cred *old);
const struct cred *vfs_rs_current_cred(void);

/* namei.h, dcache.h, mount.h */
struct dentry *vfs_rs_lookup_one_positive_killable(struct mnt_idmap *idmap, const char *name,
						   unsigned int len, struct dentry *base);
struct dentry *vfs_rs_try_lookup_noperm(const char *name, unsigned int len, struct dentry *base);
struct dentry *vfs_rs_lookup_one(struct mnt_idmap *idmap, const char *name, unsigned int len,
				 struct dentry *base);
struct mnt_idmap *vfs_rs_mnt_idmap(const struct vfsmount *mnt);
int vfs_rs_inode_trylock_shared(struct inode *inode);
void vfs_rs_inode_unlock_shared(struct inode *inode);
bool vfs_rs_dentry_is_negative(const struct dentry *dentry);
bool vfs_rs_d_is_reg(const struct dentry *dentry);
bool vfs_rs_d_is_dir(const struct dentry *dentry);
struct inode *vfs_rs_d_real_inode(const struct dentry *dentry);
bool vfs_rs_is_dax(const struct inode *inode);
const struct path *vfs_rs_file_path(const struct file *file);
struct file *vfs_rs_backing_file_open(const struct file *user_file, int flags,
				      const struct path *path, const struct cred *cred);

/* fsverity.h */
int vfs_rs_fsverity_get_digest(struct inode *inode, u8 *digest, enum hash_algo *algorithm);

/* uio.h, pagemap.h, highmem.h, sched.h */
void vfs_rs_init_sync_kiocb(struct kiocb *iocb, struct file *file);
size_t vfs_rs_iov_iter_count(const struct iov_iter *iter);
size_t vfs_rs_copy_folio_to_iter(struct folio *folio, size_t offset, size_t bytes,
				 struct iov_iter *iter);
struct folio *vfs_rs_filemap_get_folio(struct address_space *mapping, pgoff_t index);
void vfs_rs_filemap_invalidate_lock_shared(struct address_space *mapping);
void vfs_rs_filemap_invalidate_unlock_shared(struct address_space *mapping);
void vfs_rs_invalidate_kernel_vmap_range(void *address, int size);
bool vfs_rs_set_in_iowait(bool in_iowait);

/* memcontrol.h, cgroup.h, kthread.h */
struct mem_cgroup *vfs_rs_get_memory_group(void);
void vfs_rs_put_memory_group(struct mem_cgroup *group);
struct mem_cgroup *vfs_rs_set_active_memory_group(struct mem_cgroup *group);
struct cgroup_subsys_state *vfs_rs_get_io_group(struct task_struct *task);
struct cgroup_subsys_state *vfs_rs_get_io_group_of(struct mem_cgroup *group);
void vfs_rs_put_io_group(struct cgroup_subsys_state *group);
void vfs_rs_associate_io_group(struct cgroup_subsys_state *group);

/* workqueue.h, wait_bit.h */
struct workqueue_struct *vfs_rs_alloc_workqueue(const char *name, unsigned int flags);
void vfs_rs_wait_until_zero(atomic_t *count);

#endif
