//! File leases of fcntl(2), to ask whether a file is open for writing.
//!
//! Nobody gets a read lease while a file is open for writing anywhere on this machine, through whatever
//! mount or mapping. So one is taken and given back at once. Only the file's owner, or who has
//! `CAP_LEASE`, may; and not every file system knows leases.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Numbers of Linux, on every machine (`linux/fcntl.h`, `asm-generic/fcntl.h`).
const F_SETLEASE: c_int = 1024;
const F_RDLCK: c_int = 0;
const F_UNLCK: c_int = 2;

/// Says whether the file, of which this descriptor is open for reading only, is open for writing.
///
/// Should somebody open it for writing in the moment between, the process gets SIGIO, which ends it
/// unless it is caught.
///
/// # Errors
/// If that cannot be asked: no right to (`EACCES`), no leases on this file system (`EINVAL`).
pub fn is_open_for_writing(file: BorrowedFd<'_>) -> io::Result<bool> {
    match set_lease(file, F_RDLCK) {
        Ok(()) => {
            set_lease(file, F_UNLCK)?;
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

fn set_lease(file: BorrowedFd<'_>, kind: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed, and with F_SETLEASE fcntl(2) takes an
    // int and touches no memory of ours. The declaration is that of `fcntl.h`:
    // `int fcntl(int fd, int cmd, ...)`.
    match unsafe { fcntl(file.as_raw_fd(), F_SETLEASE, kind) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

unsafe extern "C" {
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
}
