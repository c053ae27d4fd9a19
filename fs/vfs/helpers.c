// SPDX-License-Identifier: GPL-2.0
/* Wrappers of static inlines, macros and members that Rust cannot reach; see helpers.h. */
#include <linux/bvec.h>
#include <linux/cred.h>
#include <linux/highmem.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/wait_bit.h>

#include "compat.h"
#include "helpers.h"

/* Members of anonymous structures and unions. Each bindgen invents names for these. */
const char *vfs_rs_fc_string(const struct fs_parameter *param)
{
	return param->string;
}

void vfs_rs_inode_set_fop(struct inode *inode, const struct file_operations *fop)
{
	inode->i_fop = fop;
}

void vfs_rs_inode_set_link(struct inode *inode, char *target)
{
	inode->i_link = target;
}

const unsigned char *vfs_rs_dentry_name(const struct dentry *dentry, u32 *len)
{
	*len = dentry->d_name.len;
	return dentry->d_name.name;
}

struct address_space *vfs_rs_folio_mapping(const struct folio *folio)
{
	return folio->mapping;
}

const struct path *vfs_rs_file_path(const struct file *file)
{
	return &file->f_path;
}

void vfs_rs_file_set_ra_pages(struct file *file, unsigned int pages)
{
	file->f_ra.ra_pages = pages;
}

bool vfs_rs_maps_executable(const struct vm_area_desc *area)
{
	return vma_desc_test(area, VMA_EXEC_BIT);
}

size_t vfs_rs_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

struct dentry *vfs_rs_lookup_one_positive_killable(struct mnt_idmap *idmap, const char *name,
						   unsigned int len, struct dentry *base)
{
	return lookup_one_positive_killable(idmap, &QSTR_LEN(name, len), base);
}

struct dentry *vfs_rs_try_lookup_noperm(const char *name, unsigned int len, struct dentry *base)
{
	return try_lookup_noperm(&QSTR_LEN(name, len), base);
}

struct dentry *vfs_rs_lookup_one(struct mnt_idmap *idmap, const char *name, unsigned int len,
				 struct dentry *base)
{
	return lookup_one(idmap, &QSTR_LEN(name, len), base);
}

/* Bit fields. vfs_rs_set_in_iowait() returns the value before. */
int vfs_rs_fc_value_type(const struct fs_parameter *param)
{
	return param->type;
}

bool vfs_rs_set_in_iowait(bool in_iowait)
{
	bool outer = current->in_iowait;

	current->in_iowait = in_iowait;
	return outer;
}

/* Macros, and functions whose flags are macros that bindgen cannot evaluate. */
struct inode *vfs_rs_alloc_inode(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

struct kmem_cache *vfs_rs_inode_cache_create(const char *name, unsigned int size,
					     void (*ctor)(void *))
{
	return kmem_cache_create(name, size, 0,
				 SLAB_HWCACHE_ALIGN | SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, ctor);
}

/* Points an inode to the mapping of another one, if it has not been yet. */
bool vfs_rs_inode_share_mapping(struct inode *inode, struct address_space *mapping)
{
	return cmpxchg(&inode->i_mapping, &inode->i_data, mapping) == &inode->i_data;
}

bool vfs_rs_is_dax(const struct inode *inode)
{
	return IS_DAX(inode);
}

void vfs_rs_cond_resched(void)
{
	cond_resched();
}

bool vfs_rs_ratelimit(void)
{
	/* How many lines were left out is not worth a line of its own. */
	static struct ratelimit_state state =
		RATELIMIT_STATE_INIT_FLAGS("vfs_rs", DEFAULT_RATELIMIT_INTERVAL,
					   DEFAULT_RATELIMIT_BURST, RATELIMIT_MSG_ON_RELEASE);

	return __ratelimit(&state);
}

void vfs_rs_wait_until_zero(atomic_t *count)
{
	wait_var_event(count, !atomic_read_acquire(count));
}

struct workqueue_struct *vfs_rs_alloc_workqueue(const char *name, unsigned int flags)
{
	return alloc_workqueue("%s", flags, 0, name);
}

struct folio *vfs_rs_filemap_alloc_folio(gfp_t gfp, unsigned int order)
{
	return filemap_alloc_folio(gfp, order, NULL);
}

const struct cred *vfs_rs_override_creds(const struct cred *cred)
{
	return override_creds(cred);
}

void vfs_rs_revert_creds(const struct cred *old)
{
	revert_creds(old);
}

const struct cred *vfs_rs_current_cred(void)
{
	return current_cred();
}

bool vfs_rs_dentry_is_negative(const struct dentry *dentry)
{
	/* Pairs with the release in __d_set_inode_and_type(): it can become positive meanwhile. */
	return d_flags_negative(smp_load_acquire(&dentry->d_flags));
}

/*
 * Control groups: static inlines, and structures that the kernel crate does not have if
 * CONFIG_MEMCG or CONFIG_BLK_CGROUP is not set. There are no groups then.
 */
struct mem_cgroup *vfs_rs_get_memory_group(void)
{
	return get_mem_cgroup_from_mm(NULL);
}

void vfs_rs_put_memory_group(struct mem_cgroup *group)
{
	mem_cgroup_put(group);
}

struct mem_cgroup *vfs_rs_set_active_memory_group(struct mem_cgroup *group)
{
	return set_active_memcg(group);
}

struct cgroup_subsys_state *vfs_rs_get_io_group(struct task_struct *task)
{
#ifdef CONFIG_BLK_CGROUP
	return task_get_css(task, io_cgrp_id);
#else
	return NULL;
#endif
}

struct cgroup_subsys_state *vfs_rs_get_io_group_of(struct mem_cgroup *group)
{
#if defined(CONFIG_BLK_CGROUP) && defined(CONFIG_MEMCG)
	return group ? cgroup_get_e_css(group->css.cgroup, &io_cgrp_subsys) : NULL;
#else
	return NULL;
#endif
}

void vfs_rs_put_io_group(struct cgroup_subsys_state *group)
{
	css_put(group);
}

void vfs_rs_associate_io_group(struct cgroup_subsys_state *group)
{
	kthread_associate_blkcg(group);
}

/* Static inlines. */
bool vfs_rs_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

void vfs_rs_inode_set_mtime(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_mtime(inode, sec, nsec);
}

void vfs_rs_inode_set_ctime(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_ctime(inode, sec, nsec);
}

void vfs_rs_inode_set_atime(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_atime(inode, sec, nsec);
}

void vfs_rs_inode_set_owner(struct inode *inode, u32 uid, u32 gid)
{
	i_uid_write(inode, uid);
	i_gid_write(inode, gid);
}

void vfs_rs_inode_set_size(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

loff_t vfs_rs_inode_size(const struct inode *inode)
{
	return i_size_read(inode);
}

time64_t vfs_rs_inode_ctime_sec(const struct inode *inode)
{
	return inode_get_ctime_sec(inode);
}

u32 vfs_rs_inode_ctime_nsec(const struct inode *inode)
{
	return inode_get_ctime_nsec(inode);
}

int vfs_rs_inode_trylock_shared(struct inode *inode)
{
	return inode_trylock_shared(inode);
}

void vfs_rs_inode_unlock_shared(struct inode *inode)
{
	inode_unlock_shared(inode);
}

void vfs_rs_cache_no_acl(struct inode *inode)
{
	cache_no_acl(inode);
}

bool vfs_rs_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino,
		     unsigned int type)
{
	return dir_emit(ctx, name, len, ino, type);
}

bool vfs_rs_dir_emit_dots(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dots(file, ctx);
}

bool vfs_rs_d_is_reg(const struct dentry *dentry)
{
	return d_is_reg(dentry);
}

bool vfs_rs_d_is_dir(const struct dentry *dentry)
{
	return d_is_dir(dentry);
}

struct inode *vfs_rs_d_real_inode(const struct dentry *dentry)
{
	return d_real_inode(dentry);
}

struct mnt_idmap *vfs_rs_mnt_idmap(const struct vfsmount *mnt)
{
	return mnt_idmap(mnt);
}

struct file *vfs_rs_backing_file_open(const struct file *user_file, int flags,
				      const struct path *path, const struct cred *cred)
{
	return vfs_compat_backing_file_open(user_file, flags, path, cred);
}

int vfs_rs_fsverity_get_digest(struct inode *inode, u8 *digest, enum hash_algo *algorithm)
{
	return fsverity_get_digest(inode, digest, NULL, algorithm);
}

void vfs_rs_mapping_allow_large_folios(struct address_space *mapping)
{
	mapping_set_large_folios(mapping);
}

gfp_t vfs_rs_mapping_gfp_constraint(const struct address_space *mapping, gfp_t gfp)
{
	return mapping_gfp_constraint(mapping, gfp);
}

struct folio *vfs_rs_filemap_get_folio(struct address_space *mapping, pgoff_t index)
{
	return filemap_get_folio(mapping, index);
}

void vfs_rs_filemap_invalidate_lock_shared(struct address_space *mapping)
{
	filemap_invalidate_lock_shared(mapping);
}

void vfs_rs_filemap_invalidate_unlock_shared(struct address_space *mapping)
{
	filemap_invalidate_unlock_shared(mapping);
}

struct folio *vfs_rs_readahead_folio(struct readahead_control *rac)
{
	return readahead_folio(rac);
}

loff_t vfs_rs_readahead_pos(struct readahead_control *rac)
{
	return readahead_pos(rac);
}

size_t vfs_rs_readahead_length(struct readahead_control *rac)
{
	return readahead_length(rac);
}

void vfs_rs_folio_put(struct folio *folio)
{
	folio_put(folio);
}

loff_t vfs_rs_folio_pos(const struct folio *folio)
{
	return folio_pos(folio);
}

size_t vfs_rs_folio_size(const struct folio *folio)
{
	return folio_size(folio);
}

bool vfs_rs_folio_test_large(const struct folio *folio)
{
	return folio_test_large(folio);
}

void vfs_rs_folio_zero_range(struct folio *folio, size_t start, size_t len)
{
	folio_zero_range(folio, start, len);
}

bool vfs_rs_folio_test_highmem(const struct folio *folio)
{
	return folio_test_highmem(folio);
}

void *vfs_rs_folio_address(const struct folio *folio)
{
	return folio_address(folio);
}

void vfs_rs_memcpy_to_folio(struct folio *folio, size_t offset, const u8 *from, size_t len)
{
	memcpy_to_folio(folio, offset, from, len);
}

void vfs_rs_bvec_set_folio(struct bio_vec *bv, struct folio *folio, size_t len, size_t offset)
{
	bvec_set_folio(bv, folio, len, offset);
}

size_t vfs_rs_copy_folio_to_iter(struct folio *folio, size_t offset, size_t bytes,
				 struct iov_iter *iter)
{
	return copy_folio_to_iter(folio, offset, bytes, iter);
}

void vfs_rs_init_sync_kiocb(struct kiocb *iocb, struct file *file)
{
	init_sync_kiocb(iocb, file);
}

void vfs_rs_invalidate_kernel_vmap_range(void *address, int size)
{
	invalidate_kernel_vmap_range(address, size);
}

int vfs_rs_fatal_signal_pending(struct task_struct *task)
{
	return fatal_signal_pending(task);
}
