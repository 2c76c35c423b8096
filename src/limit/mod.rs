//! Staying small: CPU, memory, bytes per second.
//!
//! [`pacer`] and [`bucket`] turn use into pauses, [`memory`] adds up the worst case, [`slack`] says
//! when to give memory back, [`cgroup`] reads what the container may use, [`repeat`] keeps a repeated
//! fault from flooding the log, [`flood`] all that an app can cause.

pub mod bucket;
pub mod cgroup;
pub mod flood;
pub mod memory;
pub mod pacer;
pub mod repeat;
pub mod slack;

/// The limits a user can set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Cores the process may use on average: the lower one of `cpu_usage_limit` and the container's
    /// quota.
    pub cpu_cores: f64,
    /// `cpu_usage_limit` as it was set: the container's quota may be raised up to it.
    pub cpu_cores_max: f64,
    /// Resident memory of the process, in bytes (`mem_usage_limit`).
    pub memory_bytes: u64,
    /// Raw bytes read per second over all files (`max_bytes_per_sec`); 0 for no limit.
    pub bytes_per_second: u64,
}
