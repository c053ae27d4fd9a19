// SPDX-License-Identifier: MIT OR Apache-2.0

//! Puts items that arrive in any order into the order of their turns.

use crate::build::contents::Turn;
use std::collections::BTreeMap;

/// Items that wait for their turns.
///
/// # Invariants
///
/// Every turn in `waiting`, and every unit in `ends`, is at or behind `next`.
pub(super) struct Order<T> {
    next: Turn,
    waiting: BTreeMap<Turn, T>,
    /// The number of turns of each unit that is known to its end.
    ends: BTreeMap<u32, u32>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Order {
            next: Turn { unit: 0, number: 0 },
            waiting: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }
}

impl<T> Order<T> {
    /// Adds the item of a turn. Each turn has one.
    pub fn push(&mut self, turn: Turn, item: T) {
        self.waiting.insert(turn, item);
        self.skip_ended();
    }

    /// Takes note that a unit has so many turns and no more.
    pub fn end_unit(&mut self, unit: u32, turns: u32) {
        self.ends.insert(unit, turns);
        self.skip_ended();
    }

    /// Returns the item whose turn it is, if it has arrived.
    pub fn peek(&self) -> Option<&T> {
        self.waiting.get(&self.next)
    }

    /// Takes the item whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let item = self.waiting.remove(&self.next)?;
        self.next.number += 1;
        self.skip_ended();
        Some(item)
    }

    /// Returns true if no item waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Moves on from units whose turns are all over.
    fn skip_ended(&mut self) {
        while self.ends.get(&self.next.unit) == Some(&self.next.number) {
            self.ends.remove(&self.next.unit);
            self.next = Turn {
                unit: self.next.unit + 1,
                number: 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// An event: an item of a turn, or the end of a unit.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Push(Turn),
        End(u32, u32),
    }

    fn events(units: &[u32]) -> Vec<Event> {
        let mut events = Vec::new();
        for (unit, &turns) in (0..).zip(units) {
            events.extend((0..turns).map(|number| Event::Push(Turn { unit, number })));
            events.push(Event::End(unit, turns));
        }
        events
    }

    proptest! {
        #[test]
        fn items_come_in_the_order_of_turns(
            (units, events) in vec(0u32..5, 0..7).prop_flat_map(|units| {
                let events = Just(events(&units)).prop_shuffle();
                (Just(units), events)
            }),
        ) {
            let mut order = Order::default();
            let mut taken = Vec::new();
            for event in events {
                match event {
                    Event::Push(turn) => order.push(turn, turn),
                    Event::End(unit, turns) => order.end_unit(unit, turns),
                }
                while let Some(turn) = order.peek().copied() {
                    prop_assert_eq!(order.pop(), Some(turn));
                    taken.push(turn);
                }
            }
            prop_assert!(order.is_empty());
            prop_assert!(taken.is_sorted());
            prop_assert_eq!(taken.len(), units.iter().sum::<u32>() as usize);
        }
    }
}
