// SPDX-License-Identifier: GPL-2.0

//! SHA-256 by the kernel's library, behind the trait `Digest` of the crate `digest`.
//!
//! The library uses the processor's instructions if there are any. Kbuild sets these conditions:
//!
//! | condition | [`Sha256`] |
//! | --- | --- |
//! | none: the kernel's library lacks SHA-256 | the crate `sha2` |
//! | `ports_has_sha256` | the kernel's library |
//! | `ports_has_sha256` and `ports_check_sha256` | both, compared: a build for tests |
//!
//! C header: [`include/crypto/sha2.h`](srctree/include/crypto/sha2.h)

pub(crate) use digest::Digest;

#[cfg(ports_check_sha256)]
pub(crate) use checked::CheckedSha256 as Sha256;
#[cfg(all(ports_has_sha256, not(ports_check_sha256)))]
pub(crate) use library::KernelSha256 as Sha256;
#[cfg(not(ports_has_sha256))]
pub(crate) use sha2::Sha256;

#[cfg(ports_has_sha256)]
mod library {
    use core::mem::MaybeUninit;
    use digest::{consts::U32, FixedOutput, HashMarker, Output, OutputSizeUser, Update};
    use kernel::bindings;

    /// A SHA-256 computation by the kernel's library.
    ///
    /// # Invariants
    ///
    /// The context is initialised.
    pub(crate) struct KernelSha256(bindings::sha256_ctx);

    impl Default for KernelSha256 {
        fn default() -> Self {
            let mut context = MaybeUninit::uninit();
            // INVARIANT: `sha256_init` has initialised the context.
            // SAFETY: The pointer is valid for writes; `sha256_init` writes the whole context.
            Self(unsafe {
                bindings::sha256_init(context.as_mut_ptr());
                context.assume_init()
            })
        }
    }

    impl OutputSizeUser for KernelSha256 {
        type OutputSize = U32;
    }

    impl Update for KernelSha256 {
        fn update(&mut self, data: &[u8]) {
            // SAFETY: By the type invariants the context is initialised; the slice is valid for
            // reads of its length.
            unsafe { bindings::__sha256_update(&mut self.0.ctx, data.as_ptr(), data.len()) };
        }
    }

    impl FixedOutput for KernelSha256 {
        fn finalize_into(mut self, out: &mut Output<Self>) {
            // SAFETY: By the type invariants the context is initialised; `out` has the 32 bytes of
            // a digest, because `OutputSize` is `U32`.
            unsafe { bindings::sha256_final(&mut self.0, out.as_mut_ptr()) };
        }
    }

    impl HashMarker for KernelSha256 {}
}

/// The crate `sha2` as the oracle of the kernel's library.
#[cfg(ports_check_sha256)]
mod checked {
    use super::library::KernelSha256;
    use crate::vfs::prelude::*;
    use digest::{consts::U32, FixedOutput, HashMarker, Output, OutputSizeUser, Update};

    /// A SHA-256 computation by both implementations.
    #[derive(Default)]
    pub(crate) struct CheckedSha256 {
        library: KernelSha256,
        oracle: sha2::Sha256,
    }

    impl OutputSizeUser for CheckedSha256 {
        type OutputSize = U32;
    }

    impl Update for CheckedSha256 {
        fn update(&mut self, data: &[u8]) {
            Update::update(&mut self.library, data);
            Update::update(&mut self.oracle, data);
        }
    }

    impl FixedOutput for CheckedSha256 {
        fn finalize_into(self, out: &mut Output<Self>) {
            FixedOutput::finalize_into(self.library, out);
            let expected = FixedOutput::finalize_fixed(self.oracle);
            if *out != expected {
                // The harness fails a case that logs this.
                pr_warn!("WARNING: SHA-256 of the kernel and of the crate sha2 differ\n");
                *out = Output::<Self>::default();
            }
        }
    }

    impl HashMarker for CheckedSha256 {}
}
