// SPDX-License-Identifier: GPL-2.0

//! `fs_context_operations`: a mount or a remount, from its parameters to its superblock.
//!
//! Lock: the VFS holds `fs_context.uapi_mutex` or owns the context alone in each call, so that one
//! task at a time uses a context and its parameters.

use super::superblock;
use crate::vfs::{
    bindings,
    compat::prelude::*,
    filesystem::FileSystem,
    types::{drop_data, new_data, Dentry, MountContext, Param, ParamOutcome, ParamValue},
};
use core::marker::PhantomData;
use kernel::{
    error::{from_result, to_result},
    ffi::c_int,
    str::CStr,
    types::ForeignOwnable,
};

/// The operations of a context of the filesystem `T`.
pub(super) struct ContextOps<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> ContextOps<T> {
    const OPS: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Self::free),
        dup: None,
        parse_param: Some(Self::parse_param),
        parse_monolithic: None,
        get_tree: Some(Self::get_tree),
        reconfigure: Some(Self::reconfigure),
    };

    /// Prepares a new context.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as `file_system_type.init_fs_context` of a `Registration<T>`.
    pub(super) unsafe extern "C" fn init(fc: *mut kernel::bindings::fs_context) -> c_int {
        let fc = fc.cast::<bindings::fs_context>();
        from_result(|| {
            let params = KBox::new(T::Params::default(), GFP_KERNEL)?;
            // SAFETY: The VFS gives a valid context that nobody else uses yet. `OPS` is promoted
            // to a static: it is a constant of function pointers.
            unsafe {
                (*fc).fs_private = params.into_foreign().cast();
                (*fc).ops = &Self::OPS;
            }
            Ok(0)
        })
    }

    /// The parameters collected so far.
    ///
    /// # Safety
    ///
    /// `fc` must be a context made by [`ContextOps::init`], and the result must be the only
    /// reference to its parameters during `'a`.
    unsafe fn params<'a>(fc: *mut bindings::fs_context) -> &'a mut T::Params {
        // SAFETY: `init` put a `KBox<T::Params>` there, which `free` alone takes away; nobody else
        // borrows it, by the safety requirements.
        unsafe { &mut *(*fc).fs_private.cast::<T::Params>() }
    }

    /// Frees a context: `fs_context_operations.free`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS, once, for a context made by [`ContextOps::init`].
    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: The VFS calls this once, for a context of ours, when nobody uses it any more.
        // `fs_private` is null only if `init` failed.
        unsafe {
            if !(*fc).fs_private.is_null() {
                drop(KBox::<T::Params>::from_foreign((*fc).fs_private.cast()));
            }
            // Left here when no superblock came to own it.
            drop_data::<T>((*fc).s_fs_info);
        }
    }

    /// Takes a parameter: `fs_context_operations.parse_param`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a context made by [`ContextOps::init`].
    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> c_int {
        // SAFETY: The VFS gives a valid parameter, whose key is a NUL-terminated string, as is its
        // value where it is of the string type.
        let param = unsafe {
            Param {
                key: CStr::from_char_ptr((*param).key),
                value: match bindings::vfs_rs_fc_value_type(param) {
                    bindings::fs_value_type_fs_value_is_flag => ParamValue::Flag,
                    bindings::fs_value_type_fs_value_is_string => {
                        ParamValue::String(CStr::from_char_ptr(bindings::vfs_rs_fc_string(param)))
                    }
                    _ => ParamValue::Other,
                },
            }
        };
        // SAFETY: A context is used by one task at a time (`uapi_mutex`), and `params` is the only
        // borrow of its parameters.
        let (params, context) = unsafe { (Self::params(fc), MountContext::<T>::from_raw(fc)) };
        match T::parse_param(params, context, &param) {
            Ok(ParamOutcome::Taken) => 0,
            Ok(ParamOutcome::Unknown) => -(bindings::ENOPARAM as c_int),
            Err(e) => e.to_errno(),
        }
    }

    /// Makes a superblock: `fs_context_operations.get_tree`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a context made by [`ContextOps::init`].
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // SAFETY: A context is used by one task at a time, and `params` is the only borrow of
            // its parameters.
            let (params, context) = unsafe { (Self::params(fc), MountContext::<T>::from_raw(fc)) };
            let shared = context.registration().shared().clone();
            let data = T::mount(params, context, &shared)?;
            let mappings = T::shared_mappings(&data);
            let data = new_data::<T>(data, mappings)?;
            // SAFETY: The context is valid and ours. From here its `s_fs_info` owns the data, until
            // `get_tree_nodev` hands it to the superblock.
            unsafe { (*fc).s_fs_info = data };
            // SAFETY: `fill` is the one that belongs to contexts of this filesystem.
            to_result(unsafe { bindings::get_tree_nodev(fc, Some(superblock::fill::<T>)) })?;
            Ok(0)
        })
    }

    /// Reconfigures a superblock: `fs_context_operations.reconfigure`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a context made by [`ContextOps::init`].
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // SAFETY: A context is used by one task at a time, and `params` is the only borrow of
            // its parameters. In a reconfiguration `root` is a dentry of the superblock in
            // question, which is of this filesystem and active.
            let (params, context, root) = unsafe {
                (
                    Self::params(fc),
                    MountContext::<T>::from_raw(fc),
                    Dentry::<T>::from_raw((*fc).root),
                )
            };
            T::remount(params, context, root.superblock().data())?;
            // SAFETY: The context is valid, and only this task uses it.
            let (flags, mask) = unsafe { ((*fc).sb_flags, (*fc).sb_flags_mask) };
            if mask & bindings::VFS_RS_SB_RDONLY != 0 && flags & bindings::VFS_RS_SB_RDONLY == 0 {
                context.error(fmt!("the filesystem is read-only"));
                return Err(EROFS);
            }
            // SAFETY: The context is valid, and only this task uses it. The superblock's flags stay
            // as they are.
            unsafe { (*fc).sb_flags |= bindings::VFS_RS_SB_RDONLY };
            Ok(0)
        })
    }
}
