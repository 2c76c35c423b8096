//! File systems that another machine or process serves, by what statfs(2) says.
//!
//! Pure. Others write to them without this kernel's knowledge: no notification tells of that, and
//! no lease knows of their writers.

/// Names of file systems that another machine or process serves, by their numbers (statfs(2),
/// `linux/magic.h`).
const KINDS: [(u32, &str); 14] = [
    (0x6573_5546, "FUSE"),
    (0x6969, "NFS"),
    (0x0102_1997, "9p"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0bd0_0bd0, "Lustre"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x786f_4256, "a folder shared by VirtualBox"),
];
/// The number of overlayfs (statfs(2)). Somebody may write to the layer below past it.
const OVERLAY: u32 = 0x794c_7630;

/// The kind of a served file system, for people; `None` for any other.
#[must_use]
pub(super) fn kind(magic: u32) -> Option<&'static str> {
    KINDS.into_iter().find(|(served, _)| *served == magic).map(|(_, name)| name)
}

/// Whether the kernel knows of all who write to this file system.
#[must_use]
pub(super) fn knows_writers(magic: u32) -> bool {
    kind(magic).is_none() && magic != OVERLAY
}

/// The number that statfs(2) says, in one size: as the machine has it, it is signed or not, of 32
/// bits or 64.
#[must_use]
pub(super) fn magic(told: impl TryInto<i128>) -> u32 {
    let told: i128 = told.try_into().unwrap_or_default();
    u32::try_from(told & 0xffff_ffff).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_same_on_every_machine() {
        for told in [0xff53_4d42_i64, i64::from(0xff53_4d42_u32.cast_signed())] {
            assert_eq!(kind(magic(told)), Some("CIFS"));
        }
        assert_eq!(kind(magic(0xef53_i64)), None);
        assert!(knows_writers(0xef53) && !knows_writers(OVERLAY) && !knows_writers(0x6969));
    }
}
