// SPDX-License-Identifier: MIT OR Apache-2.0

//! Has no code; see `Cargo.toml`.
