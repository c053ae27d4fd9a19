// SPDX-License-Identifier: MIT OR Apache-2.0

//! Members of archives that cannot be put into a tree.

use puzzlefs_schema::MAX_NAME_LEN;

/// The cause that a member of an archive cannot be put into a tree.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeFault {
    /// The root would be another file than a directory.
    #[error("the root must be a directory")]
    RootNotADirectory,
    /// The root would be removed.
    #[error("the root cannot be removed")]
    RootRemoved,
    /// The target of a hard link does not exist. Holds the path of the target.
    #[error("a hard link to '{}', which does not exist before it", String::from_utf8_lossy(.0))]
    NoLinkTarget(Vec<u8>),
    /// The target of a hard link is a directory. Holds the path of the target.
    #[error("a hard link to '{}', which is a directory", String::from_utf8_lossy(.0))]
    LinkToDirectory(Vec<u8>),
    /// The target of a symbolic link is empty, too long or has a zero byte.
    #[error("a symbolic link with an invalid target")]
    SymlinkTarget,
    /// The member has a type that its caller handles.
    #[error("neither a file nor a special file")]
    Type,
    /// The path has `..`.
    #[error("'..' in a path could lead out of the tree and is refused")]
    DotDot,
    /// A name of the path is longer than one of an image.
    #[error("a name of more than {MAX_NAME_LEN} bytes")]
    NameTooLong,
    /// A name of the path has a zero byte.
    #[error("a name with a zero byte")]
    ZeroByte,
    /// A directory of the path does not exist.
    #[error("a directory in its path is missing")]
    NoParent,
    /// A file of this name in the path is not a directory.
    #[error("'{}' in its path is not a directory", String::from_utf8_lossy(.0))]
    NotADirectory(Vec<u8>),
    /// The parent is not a directory.
    #[error("its parent is not a directory")]
    ParentNotADirectory,
    /// The path follows too many symbolic links.
    #[error("too many symbolic links in its path")]
    TooManyLinks,
    /// A whiteout of a layer does not name a file.
    #[error("a whiteout of nothing")]
    Whiteout,
    /// The sparse files have more holes than the limit.
    #[error("more than 8 TiB of holes in sparse files")]
    TooManyHoles,
    /// The members have more names and attributes than the limit.
    #[error("more than 4 GiB of names and attributes")]
    TooMuchMetadata,
    /// The tree has more inodes than an image.
    #[error("more inodes than an image can have")]
    TooManyInodes,
}
