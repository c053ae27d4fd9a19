/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads for `vfs::bindings`: the VFS's headers that the kernel
 * crate's own bindings leave out, and our helpers. See the rule in Kbuild.
 */
#include "helpers.h"

/* Constants that bindgen cannot read because they are expressions or casts. */
static const unsigned int VFS_RS_SB_RDONLY = SB_RDONLY;
static const unsigned int VFS_RS_SB_NOATIME = SB_NOATIME;
static const unsigned int VFS_RS_SB_POSIXACL = SB_POSIXACL;
static const loff_t VFS_RS_MAX_LFS_FILESIZE = MAX_LFS_FILESIZE;
static const unsigned int VFS_RS_FMODE_READ = (__force unsigned int)FMODE_READ;
static const unsigned int VFS_RS_FMODE_NOWAIT = (__force unsigned int)FMODE_NOWAIT;
static const unsigned int VFS_RS_FMODE_CAN_ODIRECT = (__force unsigned int)FMODE_CAN_ODIRECT;
static const unsigned int VFS_RS_FOP_DONTCACHE = (__force unsigned int)FOP_DONTCACHE;
static const unsigned int VFS_RS_IOCB_DIRECT = (__force unsigned int)IOCB_DIRECT;
static const unsigned int VFS_RS_IOCB_NOWAIT = (__force unsigned int)IOCB_NOWAIT;
static const unsigned int VFS_RS_IOCB_DONTCACHE = (__force unsigned int)IOCB_DONTCACHE;
static const unsigned int VFS_RS_IOC_MEASURE_VERITY = FS_IOC_MEASURE_VERITY;
static const unsigned int VFS_RS_VERITY_FL = FS_VERITY_FL;
static const unsigned int VFS_RS_TASK_KILLABLE_FREEZABLE = TASK_KILLABLE | TASK_FREEZABLE_UNSAFE;
static const unsigned int VFS_RS_LOOKUP_FOLLOW = LOOKUP_FOLLOW;
static const unsigned int VFS_RS_LOOKUP_DIRECTORY = LOOKUP_DIRECTORY;
