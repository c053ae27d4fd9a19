/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Out-of-line copies of the VFS's static inlines and variadic functions that
 * the Rust side calls, as rust/helpers/ has them for the kernel crate. Each is
 * one call; what it means is documented where the inline function is.
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
#include <linux/highmem.h>
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
s64 vfs_rs_inode_ctime(const struct inode *inode, u32 *nsec);
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
void *vfs_rs_folio_address(struct folio *folio);
void vfs_rs_bvec_set_folio(struct bio_vec *bv, struct folio *folio, size_t len, size_t offset);

/* cred.h */
const struct cred *vfs_rs_override_creds(const struct cred *cred);
void vfs_rs_revert_creds(const struct cred *old);
bool vfs_rs_equal_creds(const struct cred *a, const struct cred *b);

/* kthread.h, memcontrol.h, blk-cgroup.h */
struct vfs_rs_charge {
	struct cgroup_subsys_state *io;
	struct mem_cgroup *memory;
};

void vfs_rs_charge_get(struct vfs_rs_charge *charge);
void vfs_rs_charge_put(const struct vfs_rs_charge *charge);
struct mem_cgroup *vfs_rs_charge_begin(const struct vfs_rs_charge *charge);
void vfs_rs_charge_end(struct mem_cgroup *outer);

/* workqueue.h */
struct workqueue_struct *vfs_rs_alloc_workqueue(const char *name, unsigned int flags);

/* wait_bit.h */
void vfs_rs_pending_add(atomic_t *count);
void vfs_rs_pending_done(atomic_t *count);
void vfs_rs_pending_wait(atomic_t *count);

/* uio.h */
unsigned int vfs_rs_direct_alignment(const struct file *file);
bool vfs_rs_has_drop_behind(const struct file *file);
bool vfs_rs_is_cached(const struct file *file);

ssize_t vfs_rs_read_buffer(struct file *file, void *buffer, size_t len, loff_t pos,
			   bool drop_behind);
ssize_t vfs_rs_read_vectors(struct file *file, const struct bio_vec *vectors, size_t count,
			    size_t len, loff_t pos);

#define VFS_RS_MAX_READS 8

struct vfs_rs_read {
	struct file *file;
	void *buffer;
	size_t len;
	loff_t pos;
};

struct vfs_rs_reads;

struct vfs_rs_reads *vfs_rs_reads_alloc(void);
void vfs_rs_reads_free(struct vfs_rs_reads *all);
void vfs_rs_reads_start(struct vfs_rs_reads *all, const struct vfs_rs_read *reads,
			unsigned int count);
bool vfs_rs_reads_wait(struct vfs_rs_reads *all, bool killable);
ssize_t vfs_rs_reads_result(const struct vfs_rs_reads *all, unsigned int index);

/* fsverity.h */
bool vfs_rs_verity_sha256(struct inode *inode, u8 *digest);

#endif
