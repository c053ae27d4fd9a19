// SPDX-License-Identifier: MIT OR Apache-2.0

//! Searching and sorting.

use crate::{error::Result, steps::step};

/// Returns the number of elements for which `before` holds, among `len` that are ordered so that it
/// holds for the first ones only.
///
/// In another order, the result is any number up to `len`. The caller must check the element there.
///
/// Cost: `before` is called at most 1 + log2(`len`) times.
pub(crate) fn partition_point(len: u32, before: impl FnMut(u32) -> Result<bool>) -> Result<u32> {
    partition_point_of(len, before)
}

/// Does the same for a function with errors of any type.
pub(crate) fn partition_point_of<E>(
    len: u32,
    mut before: impl FnMut(u32) -> core::result::Result<bool, E>,
) -> core::result::Result<u32, E> {
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

/// Sorts, in place and without recursion: a heap sort.
///
/// The sort of the standard library panics if `less` is not a total order. Nothing here panics.
///
/// Cost: for *n* elements, *n* log *n* calls of `less`.
///
/// # Errors
///
/// Those of `less`, at once.
pub(crate) fn sort(
    elements: &mut [u32],
    mut less: impl FnMut(u32, u32) -> Result<bool>,
) -> Result<()> {
    let len = elements.len();
    for root in (0..len.div_ceil(2)).rev() {
        sift_down(elements, root, &mut less)?;
    }
    for end in (1..len).rev() {
        if let Some(heap) = elements.get_mut(..=end) {
            exchange(heap, 0, end);
            sift_down(heap.get_mut(..end).unwrap_or_default(), 0, &mut less)?;
        }
    }
    Ok(())
}

/// Moves an element down a heap until no element below it is greater.
fn sift_down(
    heap: &mut [u32],
    mut root: usize,
    less: &mut impl FnMut(u32, u32) -> Result<bool>,
) -> Result<()> {
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let (Some(&element), Some(&first)) = (heap.get(root), heap.get(left)) else {
            return Ok(());
        };
        let (child, greater) = match heap.get(right) {
            Some(&second) if less(first, second)? => (right, second),
            _ => (left, first),
        };
        if !less(element, greater)? {
            return Ok(());
        }
        exchange(heap, root, child);
        root = child;
    }
}

fn exchange(elements: &mut [u32], a: usize, b: usize) {
    if let (Some(&at_a), Some(&at_b)) = (elements.get(a), elements.get(b)) {
        if let Some(slot) = elements.get_mut(a) {
            *slot = at_b;
        }
        if let Some(slot) = elements.get_mut(b) {
            *slot = at_a;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sort;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorts(mut elements in proptest::collection::vec(any::<u32>(), 0..200)) {
            let mut expected = elements.clone();
            expected.sort_unstable();
            prop_assert_eq!(sort(&mut elements, |a, b| Ok(a < b)), Ok(()));
            prop_assert_eq!(elements, expected);
        }
    }
}
