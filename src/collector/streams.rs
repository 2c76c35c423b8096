//! What stands in the groups of a stream beside its lines: labels, tags, the shard, the time.
//!
//! Pure: the clock of the service is told.

use std::path::Path;
use std::sync::Arc;

use crate::base::sealed::{DestinationId, Route};
use crate::base::span::StreamKey;
use crate::batch::{Batcher, log_group};
use crate::enrich::{self, TagPlan};

/// How the groups of streams are labelled.
pub(super) struct Streams {
    topic: String,
    tags: TagPlan,
    /// Names of the tags whose values decide the shard; empty for any shard.
    shard_hash_keys: Vec<String>,
    rng: fastrand::Rng,
    /// The service's clock minus ours, in seconds.
    clock_offset: i64,
}

impl Streams {
    pub(super) fn new(
        topic: String,
        tags: TagPlan,
        shard_hash_keys: Vec<String>,
        seed: u64,
    ) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { topic, tags, shard_hash_keys, rng, clock_offset: 0 }
    }

    /// Begins the groups of a stream whose file is shipped under this path.
    pub(super) fn begin(
        &mut self,
        batcher: &mut Batcher,
        stream: StreamKey,
        destination: DestinationId,
        path: &Path,
    ) {
        let path = path.as_os_str();
        let label: Arc<str> = path.to_string_lossy().into();
        let source = self.tags.source();
        let tags = self.tags.tags_for(path.as_encoded_bytes());
        let trailer = log_group::trailer(&self.topic, source, &tags);
        let source_id = format!("{source}_{label}_{:016X}", self.rng.u64(..));
        batcher.begin(stream, destination, label, trailer.into(), &source_id);
        if let Some(key) = enrich::hash_key(&self.shard_hash_keys, &tags, source, &self.topic) {
            batcher.set_route(stream, Route::Key(key));
        }
    }

    /// Takes what to add to our clock to get the service's.
    pub(super) fn set_clock_offset(&mut self, seconds: i64) {
        self.clock_offset = seconds;
    }

    /// The time as the service has it, as far as is known, when it is `unix` here.
    pub(super) fn server_unix(&self, unix: u64) -> i64 {
        i64::try_from(unix).unwrap_or(i64::MAX).saturating_add(self.clock_offset)
    }
}
