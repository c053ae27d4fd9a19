// SPDX-License-Identifier: MIT OR Apache-2.0

//! Binary search.

use crate::{steps::step, Result};

/// The number of elements for which `before` holds, among `len` in such an order that it holds for
/// the first so many and not for the rest.
///
/// In another order it is some number up to `len`: whoever relies on the element there has to look
/// at it.
///
/// Cost: `before` is called at most 1 + log2(`len`) times.
pub(crate) fn partition_point(
    len: u32,
    mut before: impl FnMut(u32) -> Result<bool>,
) -> Result<u32> {
    let (mut low, mut high) = (0, len);
    while low < high {
        step();
        let middle = u32::midpoint(low, high);
        if before(middle)? {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    Ok(low)
}
