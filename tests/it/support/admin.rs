//! What a running agent says on its admin port.

use super::observe::{get, metric, wait_for_metric};
use super::{Pod, wait_for};

/// The admin port of the agents of a pod.
pub(crate) struct Admin {
    address: String,
}

impl Pod {
    /// Gives the agents that are started from now on an admin port.
    pub(crate) fn admin(&mut self) -> Admin {
        Admin { address: self.listen() }
    }
}

impl Admin {
    /// The value of a metric, named with its labels if it has any: `x_total{reason="y"}`.
    pub(crate) fn metric(&self, series: &str) -> Option<u64> {
        metric(&self.address, series)
    }

    /// Waits until a metric has this value.
    pub(crate) fn expect_metric(&self, series: &str, value: u64) {
        wait_for_metric(&self.address, series, value);
    }

    /// The status of the agent.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&get(&self.address, "/status").1).unwrap_or_default()
    }

    /// Waits until some of a file has been read.
    pub(crate) fn wait_until_reading(&self) {
        wait_for("a file to be read", || {
            let status = self.status();
            let files = status["files"].as_array();
            files.is_some_and(|files| files.iter().any(|file| file["read_offset"] != 0))
        });
    }

    /// Waits until the agent is ready: the first discovery is done and the watches are armed.
    pub(crate) fn wait_until_ready(&self) {
        wait_for("readiness", || self.is_ready());
    }

    /// Whether it is.
    pub(crate) fn is_ready(&self) -> bool {
        get(&self.address, "/ready").0 == 200
    }
}
