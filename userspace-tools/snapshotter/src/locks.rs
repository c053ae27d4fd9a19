// SPDX-License-Identifier: MIT OR Apache-2.0

//! A lock for each image. A store or a registry that hangs thus holds up the calls for its own images alone.

use crate::snapshots::{refusal, Cause, Refusal};
use puzzlefs_lib::threads::lock;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest wait for an image.
const PATIENCE: Duration = Duration::from_secs(600);
/// The most calls that wait for an image. Each has a thread, of which the runtime has 512.
const WAITERS_MAX: usize = 16;

/// The locks of images, by the digests of their manifests in hexadecimal digits.
#[derive(Default)]
pub struct ImageLocks {
    /// The locks that are held or waited for.
    locks: Mutex<HashMap<String, Lock>>,
    freed: Condvar,
}

#[derive(Default)]
struct Lock {
    is_held: bool,
    waiters: usize,
    /// A call that did not wait asks the holder to look at the image again.
    is_wanted: bool,
}

/// A lock that is held. Dropping it unlocks.
pub struct ImageLock<'l> {
    owner: &'l ImageLocks,
    image: String,
    is_free: bool,
}

impl ImageLocks {
    /// Waits for the lock of an image.
    pub fn lock(&self, image: &str) -> Result<ImageLock<'_>, Refusal> {
        self.lock_within(image, PATIENCE)
    }

    fn lock_within(&self, image: &str, patience: Duration) -> Result<ImageLock<'_>, Refusal> {
        let end = Instant::now() + patience;
        let mut locks = lock(&self.locks);
        let known = locks.entry(image.to_owned()).or_default();
        if known.waiters >= WAITERS_MAX {
            return Err(busy(image));
        }
        known.waiters += 1;
        loop {
            let known = locks.entry(image.to_owned()).or_default();
            let left = end.saturating_duration_since(Instant::now());
            if !known.is_held {
                known.waiters -= 1;
                known.is_held = true;
                return Ok(self.locked(image));
            }
            if left.is_zero() {
                known.waiters -= 1;
                return Err(busy(image));
            }
            let waited = self.freed.wait_timeout(locks, left);
            locks = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes the lock of an image if it is free. Otherwise [`ImageLock::unlock`] returns true to its holder.
    pub fn try_lock(&self, image: &str) -> Option<ImageLock<'_>> {
        let mut locks = lock(&self.locks);
        let known = locks.entry(image.to_owned()).or_default();
        if known.is_held {
            known.is_wanted = true;
            return None;
        }
        known.is_held = true;
        Some(self.locked(image))
    }

    fn locked(&self, image: &str) -> ImageLock<'_> {
        ImageLock {
            owner: self,
            image: image.to_owned(),
            is_free: false,
        }
    }
}

impl ImageLock<'_> {
    /// The image.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Unlocks. Returns true if another call has asked for another look at the image.
    pub fn unlock(mut self) -> bool {
        self.free()
    }

    fn free(&mut self) -> bool {
        if std::mem::replace(&mut self.is_free, true) {
            return false;
        }
        let mut locks = lock(&self.owner.locks);
        let Some(known) = locks.get_mut(&self.image) else {
            return false;
        };
        known.is_held = false;
        let is_wanted = std::mem::take(&mut known.is_wanted);
        if known.waiters == 0 {
            locks.remove(&self.image);
        }
        self.owner.freed.notify_all();
        is_wanted
    }
}

impl Drop for ImageLock<'_> {
    fn drop(&mut self) {
        self.free();
    }
}

fn busy(image: &str) -> Refusal {
    let message = format!(
        "image sha256:{image} is busy: its store or its registry does not answer other calls; try again when \
         it does"
    );
    refusal(Cause::Failed, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_locks_of_their_own() {
        let locks = ImageLocks::default();
        let one = locks.lock("1").unwrap();
        let two = locks.lock("2").unwrap();
        assert!(locks.lock_within("1", Duration::ZERO).is_err());
        assert!(!two.unlock());
        assert!(locks.try_lock("1").is_none());
        assert!(one.unlock(), "another look was asked for");
        assert!(!locks.lock("1").unwrap().unlock());
        assert!(lock(&locks.locks).is_empty());
    }

    #[test]
    fn a_waiter_gets_the_lock_and_too_many_do_not_wait() {
        let locks = ImageLocks::default();
        let held = locks.lock("1").unwrap();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..WAITERS_MAX)
                .map(|_| scope.spawn(|| locks.lock("1").map(|held| held.unlock()).is_ok()))
                .collect();
            let end = Instant::now() + Duration::from_secs(60);
            while lock(&locks.locks)["1"].waiters < WAITERS_MAX {
                assert!(Instant::now() < end, "waiters");
                std::thread::yield_now();
            }
            assert!(locks.lock("1").is_err());
            drop(held);
            for waiter in waiters {
                assert!(waiter.join().unwrap());
            }
        });
        assert!(lock(&locks.locks).is_empty());
    }
}
