// SPDX-License-Identifier: GPL-2.0

//! SHA-256, behind the trait `Digest` of the crate `digest`, by whichever of two implementations is
//! faster here: the kernel's library, which uses the processor's instructions where there are any,
//! or the crate `sha2`, which is always there and says what is right.
//!
//! C header: [`include/crypto/sha2.h`](srctree/include/crypto/sha2.h)

use crate::vfs::prelude::*;
use core::mem::MaybeUninit;
use kernel::{
    bindings,
    sync::atomic::{Atomic, Relaxed},
    time::{Delta, Instant, Monotonic},
};
use sha2::digest::{consts::U32, FixedOutput, HashMarker, Output, OutputSizeUser, Update};

pub(crate) use sha2::Digest;

/// A SHA-256 computation by the kernel's library.
///
/// # Invariants
///
/// The context is initialised.
pub(crate) struct KernelSha256(bindings::sha256_ctx);

impl Default for KernelSha256 {
    fn default() -> Self {
        let mut context = MaybeUninit::uninit();
        // SAFETY: `sha256_init` initialises the context as a whole.
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
        // SAFETY: By the type invariants the context is initialised; the data is valid for its
        // length.
        unsafe { bindings::__sha256_update(&mut self.0.ctx, data.as_ptr(), data.len()) };
    }
}

impl FixedOutput for KernelSha256 {
    fn finalize_into(mut self, out: &mut Output<Self>) {
        // SAFETY: By the type invariants the context is initialised; a digest has 32 bytes.
        unsafe { bindings::sha256_final(&mut self.0, out.as_mut_ptr()) };
    }
}

impl HashMarker for KernelSha256 {}

/// Whether the crate's implementation was found to be the faster one.
static CRATE_IS_FASTER: Atomic<bool> = Atomic::new(false);

/// A SHA-256 computation by the faster implementation.
pub(crate) enum Sha256 {
    /// By the kernel.
    Kernel(KernelSha256),
    /// By the crate.
    Crate(sha2::Sha256),
}

impl Default for Sha256 {
    fn default() -> Self {
        if CRATE_IS_FASTER.load(Relaxed) {
            Self::Crate(sha2::Sha256::default())
        } else {
            Self::Kernel(KernelSha256::default())
        }
    }
}

impl OutputSizeUser for Sha256 {
    type OutputSize = U32;
}

impl Update for Sha256 {
    fn update(&mut self, data: &[u8]) {
        match self {
            Self::Kernel(hash) => Update::update(hash, data),
            Self::Crate(hash) => Update::update(hash, data),
        }
    }
}

impl FixedOutput for Sha256 {
    fn finalize_into(self, out: &mut Output<Self>) {
        match self {
            Self::Kernel(hash) => FixedOutput::finalize_into(hash, out),
            Self::Crate(hash) => FixedOutput::finalize_into(hash, out),
        }
    }
}

impl HashMarker for Sha256 {}

/// How much is hashed to compare the implementations, in bytes, and how often.
const SAMPLE: usize = 64 << 10;
const ROUNDS: usize = 3;

/// Measures both implementations, checks one by the other, and has the faster one used from then
/// on.
///
/// # Errors
///
/// [`EINVAL`] if they do not agree: nothing could be verified then.
pub(crate) fn choose() -> Result {
    let mut sample = KVVec::new();
    sample.resize(SAMPLE, 0x5a, GFP_KERNEL)?;
    let (of_kernel, kernel) = measure::<KernelSha256>(&sample);
    let (of_crate, by_crate) = measure::<sha2::Sha256>(&sample);
    if of_kernel != of_crate {
        pr_err!("the kernel's SHA-256 and that of the crate sha2 differ\n");
        return Err(EINVAL);
    }
    let faster = by_crate.as_nanos() < kernel.as_nanos();
    CRATE_IS_FASTER.store(faster, Relaxed);
    pr_info!(
        "SHA-256 of {} KiB: kernel {} us, sha2 {} us: taking {}\n",
        SAMPLE >> 10,
        kernel.as_nanos() / 1000,
        by_crate.as_nanos() / 1000,
        if faster { "sha2" } else { "the kernel's" }
    );
    Ok(())
}

/// The digest of some data, and the shortest time that it took.
fn measure<D: Digest + OutputSizeUser<OutputSize = U32>>(data: &[u8]) -> (Output<D>, Delta) {
    let mut best = (Output::<D>::default(), Delta::from_secs(3600));
    for _ in 0..ROUNDS {
        let start = Instant::<Monotonic>::now();
        let digest = D::digest(data);
        let time = start.elapsed();
        if time.as_nanos() < best.1.as_nanos() {
            best = (digest, time);
        }
    }
    best
}
