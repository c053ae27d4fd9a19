// SPDX-License-Identifier: GPL-2.0

//! The kernel's tracepoints `puzzlefs:*`, which `trace.h` defines.
//!
//! They are here and not in [`crate::vfs`], because their fields are of PuzzleFS.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h)

use super::bindings;

pub(crate) use bindings::{
    ports_trace_chunk as Chunk, ports_trace_decode as Decode, ports_trace_error as Failure,
    ports_trace_prefetch as Prefetch, ports_trace_read as Read, ports_trace_request as Request,
    ports_trace_request_end as RequestEnd,
};

/// The fields of an event, all of them plain numbers.
pub(crate) trait Event {
    /// Returns true if somebody traces events of the type: a no-op that the kernel patches into a
    /// jump while that is so.
    fn is_on() -> bool;

    /// Passes the event to the programs that trace it.
    fn emit(&self);
}

macro_rules! impl_event {
    ($($event:ty, $tracepoint:ident, $function:ident;)*) => {$(
        impl Event for $event {
            #[inline(always)]
            fn is_on() -> bool {
                // SAFETY: `trace.c` defines the tracepoint, whose key is a static key. The kernel
                // initialises it before it runs any code of the module.
                unsafe {
                    kernel::jump_label::static_branch_unlikely!(
                        bindings::$tracepoint,
                        kernel::bindings::tracepoint,
                        key
                    )
                }
            }

            fn emit(&self) {
                // SAFETY: The event is borrowed during the call, which reads it alone. It has no
                // pointers, and every value of its fields is allowed.
                unsafe { bindings::$function(self) }
            }
        }
    )*}
}

impl_event! {
    Request, __tracepoint_puzzlefs_request, ports_trace_request;
    RequestEnd, __tracepoint_puzzlefs_request_end, ports_trace_request_end;
    Chunk, __tracepoint_puzzlefs_chunk, ports_trace_chunk;
    Read, __tracepoint_puzzlefs_read, ports_trace_read;
    Decode, __tracepoint_puzzlefs_decode, ports_trace_decode;
    Prefetch, __tracepoint_puzzlefs_prefetch, ports_trace_prefetch;
    Failure, __tracepoint_puzzlefs_error, ports_trace_error;
}

/// The size of the text of an error, in bytes.
pub(crate) const CAUSE_SIZE: usize = bindings::PORTS_TRACE_CAUSE as usize;

/// Returns the monotonic time, in nanoseconds.
pub(crate) fn now() -> u64 {
    // SAFETY: The function may be called in every context but that of an NMI, in which the module
    // has no code.
    unsafe { kernel::bindings::ktime_get() }.unsigned_abs()
}
