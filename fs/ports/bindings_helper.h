/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads for `ports::bindings`: headers that the kernel crate's own
 * bindings leave out. See the rule in Kbuild.
 */
#include <linux/xxhash.h>
#include <linux/zstd.h>

#include "trace.h"
