//! Name lookups, by the system's resolver, each time a connection is made: nothing is remembered.
//!
//! A name may have several addresses, of which one may take connections and never answer. The
//! resolver gives them in the same order each time, so each generation of connections begins with
//! the next one.

use std::net::{SocketAddr, ToSocketAddrs as _};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::task::JoinHandle;

use super::cause::LookupError;

/// The lookups of one generation of connections.
#[derive(Debug)]
pub(super) struct Lookup {
    /// How many generations there were before.
    pub(super) turn: usize,
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let turn = self.turn;
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let asked = name.clone();
            let mut lookup = GivenUpOnDrop(tokio::task::spawn_blocking(move || {
                let found = (asked.as_str(), 0).to_socket_addrs();
                found.map(Iterator::collect::<Vec<SocketAddr>>).map_err(|error| error.to_string())
            }));
            let found = (&mut lookup.0).await.unwrap_or_else(|error| Err(error.to_string()));
            let mut addresses = found.map_err(|reason| LookupError { name, reason })?;
            if !addresses.is_empty() {
                let count = addresses.len();
                addresses.rotate_left(turn % count);
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// A lookup that nobody waits for any longer. One that has not begun never will: only one thread
/// looks names up, and what hangs must not queue.
struct GivenUpOnDrop<T>(JoinHandle<T>);

impl<T> Drop for GivenUpOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
