//! Staying small: CPU, memory, bytes per second.
//!
//! [`pacer`] and [`bucket`] turn use into pauses, [`memory`] adds up the worst case, [`cgroup`] reads
//! what the container may use, [`repeat`] keeps a repeated fault from flooding the log.

pub mod bucket;
pub mod cgroup;
pub mod memory;
pub mod pacer;
pub mod repeat;

/// The limits a user can set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Cores the process may use on average (`cpu_usage_limit`).
    pub cpu_cores: f64,
    /// Resident memory of the process, in bytes (`mem_usage_limit`).
    pub memory_bytes: u64,
    /// Raw bytes read per second over all files (`max_bytes_per_sec`); 0 for no limit.
    pub bytes_per_second: u64,
}
