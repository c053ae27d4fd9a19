// SPDX-License-Identifier: GPL-2.0
/*
 * Static inlines of the VFS made callable from Rust; see helpers.h.
 */
#include <linux/bvec.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/fsverity.h>
#include <linux/highmem.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/wait_bit.h>

#include "backing.h"
#include "helpers.h"

int vfs_rs_fc_value_type(const struct fs_parameter *param)
{
	return param->type;
}

/*
 * Members of anonymous structures and unions are reached here: each bindgen makes up names of its
 * own for those.
 */
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

void vfs_rs_file_set_ra_pages(struct file *file, unsigned int pages)
{
	file->f_ra.ra_pages = pages;
}

bool vfs_rs_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

struct inode *vfs_rs_alloc_inode(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
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

void vfs_rs_cache_no_acl(struct inode *inode)
{
	cache_no_acl(inode);
}

void vfs_rs_inode_set_size(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

/* Points an inode to the mapping of another one, if it has not been yet. */
bool vfs_rs_inode_share_mapping(struct inode *inode, struct address_space *mapping)
{
	return cmpxchg(&inode->i_mapping, &inode->i_data, mapping) == &inode->i_data;
}

loff_t vfs_rs_inode_size(const struct inode *inode)
{
	return i_size_read(inode);
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

struct kmem_cache *vfs_rs_inode_cache_create(const char *name, unsigned int size,
					     void (*ctor)(void *))
{
	return kmem_cache_create(name, size, 0,
				 SLAB_HWCACHE_ALIGN | SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, ctor);
}

void vfs_rs_cond_resched(void)
{
	cond_resched();
}

int vfs_rs_fatal_signal_pending(struct task_struct *task)
{
	return fatal_signal_pending(task);
}

bool vfs_rs_ratelimit(void)
{
	/* How many lines were left out is not worth a line of its own. */
	static struct ratelimit_state state =
		RATELIMIT_STATE_INIT_FLAGS("vfs_rs", DEFAULT_RATELIMIT_INTERVAL,
					   DEFAULT_RATELIMIT_BURST, RATELIMIT_MSG_ON_RELEASE);

	return __ratelimit(&state);
}

void vfs_rs_mapping_allow_large_folios(struct address_space *mapping)
{
	mapping_set_large_folios(mapping);
}

gfp_t vfs_rs_mapping_gfp_constraint(const struct address_space *mapping, gfp_t gfp)
{
	return mapping_gfp_constraint(mapping, gfp);
}

struct folio *vfs_rs_filemap_alloc_folio(gfp_t gfp, unsigned int order)
{
	return filemap_alloc_folio(gfp, order, NULL);
}

void vfs_rs_folio_put(struct folio *folio)
{
	folio_put(folio);
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

void vfs_rs_memcpy_to_folio(struct folio *folio, size_t offset, const u8 *from, size_t len)
{
	memcpy_to_folio(folio, offset, from, len);
}

/* NULL where the folio's memory is not mapped in one piece. */
void *vfs_rs_folio_address(struct folio *folio)
{
	return folio_test_highmem(folio) ? NULL : folio_address(folio);
}

void vfs_rs_bvec_set_folio(struct bio_vec *bv, struct folio *folio, size_t len, size_t offset)
{
	bvec_set_folio(bv, folio, len, offset);
}

const struct cred *vfs_rs_override_creds(const struct cred *cred)
{
	return override_creds(cred);
}

void vfs_rs_revert_creds(const struct cred *old)
{
	revert_creds(old);
}

/* Whether files may be opened with one as with the other; labels are not looked at. */
bool vfs_rs_equal_creds(const struct cred *a, const struct cred *b)
{
	return cred_fscmp(a, b) == 0 && a->user_ns == b->user_ns &&
	       cap_issubset(a->cap_effective, b->cap_effective) &&
	       cap_issubset(b->cap_effective, a->cap_effective);
}

s64 vfs_rs_inode_ctime(const struct inode *inode, u32 *nsec)
{
	*nsec = inode_get_ctime_nsec(inode);
	return inode_get_ctime_sec(inode);
}

/*
 * What offsets, lengths and memory must be aligned to for direct reads that wait for no lock; 0:
 * there are none.
 */
unsigned int vfs_rs_direct_alignment(const struct file *file)
{
	struct kstat stat;

	if (!(file->f_mode & FMODE_CAN_ODIRECT) || !(file->f_mode & FMODE_NOWAIT) ||
	    vfs_getattr(&file->f_path, &stat, STATX_DIOALIGN, AT_STATX_DONT_SYNC) ||
	    !(stat.result_mask & STATX_DIOALIGN))
		return 0;
	return max(stat.dio_mem_align, stat.dio_offset_align);
}

/* Whether reads can be told to leave no pages behind. */
bool vfs_rs_has_drop_behind(const struct file *file)
{
	return file->f_op->fop_flags & FOP_DONTCACHE;
}

/* Whether there are pages of the file's data; fs-verity's, behind the end, do not count. */
bool vfs_rs_is_cached(const struct file *file)
{
	loff_t size = i_size_read(file->f_mapping->host);

	return READ_ONCE(file->f_mapping->nrpages) && size > 0 &&
	       filemap_range_has_page(file->f_mapping, 0, size - 1);
}

/*
 * A direct read takes the inode's lock. Here it must not wait for it: a page fault may have brought
 * us here, with mmap_lock and folios of ours locked, and whoever has the inode's lock may be about
 * to take those, to copy to or from user memory (a write, FIEMAP). So the read is one that fails
 * with EAGAIN instead, and is then to be done through the page cache.
 */
static void vfs_rs_direct_read(struct kiocb *iocb, struct file *file, loff_t pos)
{
	init_sync_kiocb(iocb, file);
	iocb->ki_pos = pos;
	iocb->ki_flags |= IOCB_DIRECT | IOCB_NOWAIT;
}

/*
 * Readahead is called with a plug, which is for who does not wait for what he submits: a request
 * would be held back until this task sleeps, and then be given to another to dispatch.
 */
static void vfs_rs_unplug(void)
{
	if (current->plug)
		blk_finish_plug(current->plug);
}

/* The device wrote to the pages, perhaps behind the back of these addresses' cache. */
static void vfs_rs_was_read(void *buffer, size_t len)
{
	if (is_vmalloc_addr(buffer))
		invalidate_kernel_vmap_range(buffer, len);
}

/* Reads into memory of kmalloc or vmalloc, through the page cache. */
ssize_t vfs_rs_read_buffer(struct file *file, void *buffer, size_t len, loff_t pos,
			   bool drop_behind)
{
	struct kvec vec = { .iov_base = buffer, .iov_len = len };
	struct iov_iter iter;
	struct kiocb iocb;
	ssize_t read;

	iov_iter_kvec(&iter, ITER_DEST, &vec, 1, len);
	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = pos;
	if (drop_behind)
		iocb.ki_flags |= IOCB_DONTCACHE;
	read = vfs_rs_backing_read_iter(&iocb, &iter);
	vfs_rs_was_read(buffer, len);
	return read;
}

/* Reads into parts of pages, through the page cache. */
ssize_t vfs_rs_read_vectors(struct file *file, const struct bio_vec *vectors, size_t count,
			    size_t len, loff_t pos)
{
	struct iov_iter iter;
	struct kiocb iocb;

	iov_iter_bvec(&iter, ITER_DEST, vectors, count, len);
	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = pos;
	return vfs_rs_backing_read_iter(&iocb, &iter);
}

struct vfs_rs_iocb {
	struct kiocb iocb;
	struct vfs_rs_reads *all;
	void *buffer;
	size_t len;
	ssize_t result;
};

/* Direct reads that are under way, until vfs_rs_reads_wait() has seen them end. */
struct vfs_rs_reads {
	struct completion done;
	atomic_t left;
	unsigned int count;
	struct vfs_rs_iocb iocbs[VFS_RS_MAX_READS];
};

struct vfs_rs_reads *vfs_rs_reads_alloc(void)
{
	return kzalloc(sizeof(struct vfs_rs_reads), GFP_KERNEL);
}

void vfs_rs_reads_free(struct vfs_rs_reads *all)
{
	kfree(all);
}

static void vfs_rs_read_done(struct kiocb *iocb, long result)
{
	struct vfs_rs_iocb *this = container_of(iocb, struct vfs_rs_iocb, iocb);
	struct vfs_rs_reads *all = this->all;

	this->result = result;
	if (atomic_dec_and_test(&all->left))
		complete(&all->done);
}

/*
 * Starts direct reads, to buffers of the kernel's allocators, which must stay until the reads have
 * ended; those that would have had to wait for a lock fail with EAGAIN.
 */
void vfs_rs_reads_start(struct vfs_rs_reads *all, const struct vfs_rs_read *reads,
			unsigned int count)
{
	struct blk_plug plug;
	unsigned int i;

	if (WARN_ON_ONCE(count > VFS_RS_MAX_READS))
		count = 0;
	all->count = count;
	init_completion(&all->done);
	/* One is ours, until all have been submitted. */
	atomic_set(&all->left, count + 1);
	vfs_rs_unplug();
	blk_start_plug(&plug);
	for (i = 0; i < count; i++) {
		struct vfs_rs_iocb *this = &all->iocbs[i];
		struct kvec vec = { .iov_base = reads[i].buffer, .iov_len = reads[i].len };
		struct iov_iter iter;
		ssize_t result;

		this->all = all;
		this->buffer = reads[i].buffer;
		this->len = reads[i].len;
		vfs_rs_direct_read(&this->iocb, get_file(reads[i].file), reads[i].pos);
		this->iocb.ki_complete = vfs_rs_read_done;
		iov_iter_kvec(&iter, ITER_DEST, &vec, 1, this->len);
		result = vfs_iocb_iter_read(this->iocb.ki_filp, &this->iocb, &iter);
		if (result != -EIOCBQUEUED)
			vfs_rs_read_done(&this->iocb, result);
	}
	blk_finish_plug(&plug);
	if (atomic_dec_and_test(&all->left))
		complete(&all->done);
}

/*
 * Waits until the reads have ended; returns false if the wait is killable, the task is being
 * killed, and they have not. There is no killable wait_for_completion_io(): mark the wait as one
 * for I/O here.
 */
bool vfs_rs_reads_wait(struct vfs_rs_reads *all, bool killable)
{
	unsigned int state = killable ? TASK_KILLABLE : TASK_UNINTERRUPTIBLE;
	bool outer = current->in_iowait;
	unsigned int i;
	int err;

	current->in_iowait = 1;
	err = wait_for_completion_state(&all->done, state);
	current->in_iowait = outer;
	if (err)
		return false;
	for (i = 0; i < all->count; i++) {
		vfs_rs_was_read(all->iocbs[i].buffer, all->iocbs[i].len);
		fput(all->iocbs[i].iocb.ki_filp);
	}
	return true;
}

ssize_t vfs_rs_reads_result(const struct vfs_rs_reads *all, unsigned int index)
{
	return index < all->count ? all->iocbs[index].result : 0;
}

/* The sha256 fs-verity digest of an open file; false if it has none. */
bool vfs_rs_verity_sha256(struct inode *inode, u8 *digest)
{
	u8 raw[FS_VERITY_MAX_DIGEST_SIZE];
	enum hash_algo algorithm;
	u8 number;

	if (fsverity_get_digest(inode, raw, &number, &algorithm) != 32 ||
	    algorithm != HASH_ALGO_SHA256)
		return false;
	memcpy(digest, raw, 32);
	return true;
}

#ifdef CONFIG_BLK_CGROUP
/*
 * A kernel thread may itself act for another group. Modules cannot read the group of I/O that it
 * acts for; loop devices, the one reader of this kind, set the memory group of the same cgroup.
 */
static struct cgroup_subsys_state *vfs_rs_io_group(struct mem_cgroup *memory)
{
	if (!(current->flags & PF_KTHREAD))
		return task_get_css(current, io_cgrp_id);
#ifdef CONFIG_MEMCG
	if (memory)
		return cgroup_get_e_css(memory->css.cgroup, &io_cgrp_subsys);
#endif
	return NULL;
}
#else
static struct cgroup_subsys_state *vfs_rs_io_group(struct mem_cgroup *memory)
{
	return NULL;
}
#endif

/* With references, which vfs_rs_charge_put() gives back. */
void vfs_rs_charge_get(struct vfs_rs_charge *charge)
{
	charge->memory = get_mem_cgroup_from_mm(NULL);
	charge->io = vfs_rs_io_group(charge->memory);
}

void vfs_rs_charge_put(const struct vfs_rs_charge *charge)
{
	if (charge->io)
		css_put(charge->io);
	mem_cgroup_put(charge->memory);
}

struct mem_cgroup *vfs_rs_charge_begin(const struct vfs_rs_charge *charge)
{
	kthread_associate_blkcg(charge->io);
	return set_active_memcg(charge->memory);
}

void vfs_rs_charge_end(struct mem_cgroup *outer)
{
	set_active_memcg(outer);
	kthread_associate_blkcg(NULL);
}

struct workqueue_struct *vfs_rs_alloc_workqueue(const char *name, unsigned int flags)
{
	return alloc_workqueue("%s", flags, 0, name);
}

void vfs_rs_pending_add(atomic_t *count)
{
	atomic_inc(count);
}

/* The count may be gone as soon as it is 0: only its address is used then. */
void vfs_rs_pending_done(atomic_t *count)
{
	if (atomic_dec_and_test(count))
		wake_up_var(count);
}

void vfs_rs_pending_wait(atomic_t *count)
{
	wait_var_event(count, !atomic_read_acquire(count));
}
