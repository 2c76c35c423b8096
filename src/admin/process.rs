//! What the process uses, as the kernel counts it.
//!
//! Read when somebody asks; `/proc` is memory, so nothing here waits for a disk.

use std::fs;
use std::time::Duration;

use crate::base::clock;

/// What the process uses. A `None` could not be read and is left out of what is shown.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_descriptors: Option<u64>,
    /// CPU time used, all threads together.
    pub cpu: Duration,
}

impl Process {
    /// Reads it now.
    #[must_use]
    pub fn read() -> Self {
        let statm = fs::read_to_string("/proc/self/statm").ok();
        let page_bytes = rustix::param::page_size() as u64;
        Self {
            resident_bytes: statm.as_deref().and_then(resident_pages).map(|n| n * page_bytes),
            open_descriptors: open_descriptors(),
            cpu: clock::cpu(),
        }
    }
}

/// The second number of `/proc/self/statm` (proc_pid_statm(5)).
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn open_descriptors() -> Option<u64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them is the listing itself.
    listed.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resident_pages_and_nothing_else() {
        assert_eq!(resident_pages("2891 541 433 98 0 182 0\n"), Some(541));
        assert_eq!(resident_pages("2891"), None);
        assert_eq!(resident_pages("a b c"), None);
    }

    #[test]
    fn sees_this_process() {
        let process = Process::read();
        assert!(process.resident_bytes.unwrap() > 1 << 20);
        assert!(process.open_descriptors.unwrap() >= 3);
        assert!(process.cpu > Duration::ZERO);
    }

    /// The kernel's other account of the same is in kB; tests beside this one change it meanwhile.
    #[test]
    fn memory_is_in_bytes() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        let resident = Process::read().resident_bytes.unwrap();
        assert!((kib * 256..kib * 4096).contains(&resident), "{kib} kB, {resident} bytes");
    }
}
