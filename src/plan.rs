//! The plan: which files are collected, and where their records go.
//!
//! Pure. Settings become a plan, and the parts of the agent find in it by number what they are told of: a
//! stream names its [`Collection`], a batch its [`Destination`]. A checkpoint names the collection by its
//! name, because numbers are those of one run. *Absent: how the agent does its work* (sizes, times, limits),
//! which is in the options of each part.

use std::sync::Arc;

use crate::base::sealed::DestinationId;
use crate::base::span::CollectionId;
use crate::send::endpoint::Endpoint;
use crate::send::secret::{CredentialsSource, Signature};
use logferry_wire::Compression;

/// The name of the collection that the flat settings make.
pub const DEFAULT: &str = "default";

/// All collections and destinations in force. It never changes.
#[derive(Clone, Debug)]
pub struct Plan {
    collections: Vec<Collection>,
    destinations: Vec<Destination>,
}

/// A named rule: which files, and where their records go.
#[derive(Clone, Debug)]
pub struct Collection {
    /// What checkpoints and people call the collection.
    pub name: Arc<str>,
    /// Absolute glob patterns of files; `**` allowed.
    pub paths: Vec<String>,
    /// Absolute glob patterns of files to leave out.
    pub exclude: Vec<String>,
    /// Where the records go.
    pub destination: DestinationId,
}

/// A logstore of the service, how it is reached, and what it is told.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Address of the service.
    pub endpoint: Endpoint,
    /// Project (the first label of the host name).
    pub project: String,
    /// Logstore.
    pub logstore: String,
    /// Where the credentials come from.
    pub credentials: CredentialsSource,
    /// How requests are signed.
    pub signature: Signature,
    /// How payloads are compressed.
    pub compression: Compression,
    /// Whether each line is to arrive exactly once.
    pub exactly_once: bool,
}

impl Plan {
    /// Makes the plan of the flat settings: the collection `default` with one destination.
    #[must_use]
    pub fn flat(paths: Vec<String>, exclude: Vec<String>, destination: Destination) -> Self {
        let (name, target) = (DEFAULT.into(), DestinationId(0));
        let collection = Collection { name, paths, exclude, destination: target };
        Self { collections: vec![collection], destinations: vec![destination] }
    }

    /// The collection of this number.
    ///
    /// # Panics
    /// If the number is of another plan.
    #[must_use]
    pub fn collection(&self, id: CollectionId) -> &Collection {
        &self.collections[id.index()]
    }

    /// The destination of this number.
    ///
    /// # Panics
    /// If the number is of another plan.
    #[must_use]
    pub fn destination(&self, id: DestinationId) -> &Destination {
        &self.destinations[id.index()]
    }

    /// All destinations, each in the place that its number says.
    #[must_use]
    pub fn destinations(&self) -> &[Destination] {
        &self.destinations
    }

    /// The number of the only collection: flat settings make no other.
    #[must_use]
    pub fn only_collection(&self) -> CollectionId {
        assert!(self.collections.len() == 1, "flat settings make one collection");
        CollectionId(0)
    }

    /// The destination of the only collection.
    #[must_use]
    pub fn only_destination(&self) -> &Destination {
        self.destination(self.collection(self.only_collection()).destination)
    }
}

#[cfg(test)]
impl Plan {
    /// A plan with these destinations and one collection without files, for tests.
    pub(crate) fn sample(destinations: Vec<Destination>) -> Self {
        Self { destinations, ..Self::flat(Vec::new(), Vec::new(), Destination::sample()) }
    }
}

#[cfg(test)]
impl Destination {
    /// A destination on this machine, for tests.
    pub(crate) fn sample() -> Self {
        Self {
            endpoint: Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 80 },
            project: "shop".to_owned(),
            logstore: "orders".to_owned(),
            credentials: CredentialsSource::Unsigned,
            signature: Signature::V1,
            compression: Compression::None,
            exactly_once: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_settings_make_the_collection_default_with_one_destination() {
        let plan = Plan::flat(vec!["/a/*.log".to_owned()], Vec::new(), Destination::sample());

        let collection = plan.collection(plan.only_collection());
        assert_eq!(
            (&*collection.name, &collection.paths[..]),
            ("default", &["/a/*.log".into()][..])
        );
        assert_eq!(plan.destination(collection.destination).logstore, "orders");
        assert_eq!(plan.only_destination().logstore, "orders");
        assert_eq!(plan.destinations().len(), 1);
    }
}
