// SPDX-License-Identifier: GPL-2.0

//! SHA-256, by the kernel's library, which uses the processor's instructions where there are any.
//!
//! The methods are named as those of RustCrypto's `Digest` trait.
//!
//! C header: [`include/crypto/sha2.h`](srctree/include/crypto/sha2.h)

use core::mem::MaybeUninit;
use kernel::bindings;

/// A SHA-256 computation.
///
/// # Invariants
///
/// The context is initialised.
pub(crate) struct Sha256(bindings::sha256_ctx);

impl Sha256 {
    /// Begins a computation.
    pub(crate) fn new() -> Self {
        let mut context = MaybeUninit::uninit();
        // SAFETY: `sha256_init` initialises the context as a whole.
        Self(unsafe {
            bindings::sha256_init(context.as_mut_ptr());
            context.assume_init()
        })
    }

    /// Takes more data into the computation.
    pub(crate) fn update(&mut self, data: &[u8]) {
        // SAFETY: By the type invariants the context is initialised; the data is valid for its
        // length.
        unsafe { bindings::__sha256_update(&mut self.0.ctx, data.as_ptr(), data.len()) };
    }

    /// Ends the computation and gives the digest.
    pub(crate) fn finalize(mut self) -> [u8; 32] {
        let mut digest = [0; 32];
        // SAFETY: By the type invariants the context is initialised; a digest has 32 bytes.
        unsafe { bindings::sha256_final(&mut self.0, digest.as_mut_ptr()) };
        digest
    }
}
