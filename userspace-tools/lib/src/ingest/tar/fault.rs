// SPDX-License-Identifier: MIT OR Apache-2.0

//! The errors of reading an archive.

use crate::error::{MalformedTar, SparseFault, TarFault, TarPlace};
use std::io;

/// The cause that an archive cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Reading it failed.
    Io(io::Error),
    /// The archive ends without the blocks that mark its end.
    NoEnd,
    /// The archive is malformed.
    Malformed(MalformedTar),
}

impl Fault {
    /// Sets the place of a fault that has none yet. Only malformed archives have places.
    pub(super) fn at(self, place: TarPlace) -> Self {
        match self {
            Fault::Malformed(MalformedTar {
                place: TarPlace::Archive,
                fault,
            }) => Fault::Malformed(MalformedTar { place, fault }),
            fault => fault,
        }
    }

    /// Sets the member of a fault that has no place yet.
    pub(super) fn of_member(self, name: &[u8]) -> Self {
        self.at(TarPlace::Member(name.to_vec()))
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => TarFault::Truncated.into(),
            _ => Fault::Io(error),
        }
    }
}

impl From<TarFault> for Fault {
    fn from(fault: TarFault) -> Self {
        Fault::Malformed(MalformedTar {
            place: TarPlace::Archive,
            fault,
        })
    }
}

impl From<SparseFault> for Fault {
    fn from(fault: SparseFault) -> Self {
        TarFault::from(fault).into()
    }
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a message would have a name twice, or that of another member.
    #[test]
    fn the_first_place_stays() {
        let fault = Fault::from(TarFault::Truncated).of_member(b"first");
        let Fault::Malformed(malformed) = fault
            .of_member(b"second")
            .at(TarPlace::GlobalHeader { at: 1 })
        else {
            panic!("another fault");
        };
        assert_eq!(malformed.place, TarPlace::Member(b"first".to_vec()));
        assert_eq!(malformed.to_string(), "first: it is truncated");
    }

    #[test]
    fn only_malformed_archives_have_places() {
        let interrupted = Fault::from(io::Error::from(io::ErrorKind::Interrupted));
        assert!(matches!(interrupted.of_member(b"name"), Fault::Io(_)));
        assert!(matches!(Fault::NoEnd.of_member(b"name"), Fault::NoEnd));
    }
}
