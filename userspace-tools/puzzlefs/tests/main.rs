// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tests of `puzzlefs`: each module runs the program. They are one program themselves, because each would
//! be linked with all libraries of the tools.

mod archives;
mod bounds;
mod browse;
mod command_line;
mod common;
mod compare;
mod configuration;
mod copy;
mod delta;
mod determinism;
mod enable_verity;
mod export;
mod extraction;
#[cfg(feature = "registry")]
mod fetch;
mod foreign_stores;
mod formats;
mod full_disk;
mod gc;
mod image;
mod import;
mod killed;
mod live;
mod manual;
mod media_types;
mod messages;
mod mount;
#[cfg(feature = "registry")]
mod objects;
mod other_tools;
mod overlay_markers;
mod packed;
mod packs;
mod parent;
#[cfg(feature = "registry")]
mod registry;
mod rules;
mod start_order;
mod store;
mod verify;
mod waiting;
