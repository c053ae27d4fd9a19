// SPDX-License-Identifier: GPL-2.0

//! Flags of allocations that the kernel crate has no names for.

use crate::vfs::{bindings, compat::prelude::*};
use core::mem::transmute;
use kernel::alloc::Flags;

/// An allocation that is not worth much effort: it fails before the kernel kills a task for memory.
///
/// No memory control group pays for it. Its users have a bound of their own and a shrinker, which
/// reclaim of a group does not call: the group would keep the memory, and its tasks be killed.
pub(crate) fn gfp_optional() -> Flags {
    GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY
}

// SAFETY: `Flags` is one `u32`, as is asserted below, and any value of it stands for flags.
const __GFP_NORETRY: Flags = unsafe { transmute::<u32, Flags>(1 << bindings::___GFP_NORETRY_BIT) };

const _: () = {
    // SAFETY: `Flags` has the size of a `u32`, or `transmute` would not compile; any initialised
    // bytes are an integer.
    let flags = unsafe { transmute::<Flags, u32>(__GFP_NOWARN) };
    assert!(flags == bindings::__GFP_NOWARN);
};
