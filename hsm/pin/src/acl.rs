//! POSIX access lists as Linux tells them: the extended attribute `system.posix_acl_access` (acl(5); the kernel's
//! `include/uapi/linux/posix_acl_xattr.h`), all numbers little-endian: a version, then entries of tag, permissions and identifier
//! in a fixed order.

use std::{fs::File, io};

use rustix::{fs::fgetxattr, io::Errno};

const VERSION: u32 = 2;
const READ: u16 = 4;
/// Of entries that name nobody.
const NOBODY: u32 = u32::MAX;

/// `ACL_USER_OBJ`, `ACL_USER`, `ACL_GROUP_OBJ`, `ACL_MASK`, `ACL_OTHER`.
const TAGS: [u16; 5] = [0x01, 0x02, 0x04, 0x10, 0x20];

/// Whether the access list of `file` lets its owner and `user` read it, and that is all it says.
pub(crate) fn lets_read_alone(file: &File, user: u32) -> io::Result<bool> {
    let mut found = [0_u8; 256];
    match fgetxattr(file, "system.posix_acl_access", &mut found) {
        Ok(length) => Ok(found.get(..length) == Some(&list(user))),
        // None, or a longer one.
        Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// That list.
fn list(user: u32) -> Vec<u8> {
    let [owner, named, group, mask, other] = TAGS;
    let entries =
        [(owner, READ, NOBODY), (named, READ, user), (group, 0, NOBODY), (mask, READ, NOBODY), (other, 0, NOBODY)];
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, identifier) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(identifier.to_le_bytes());
    }
    bytes
}
