//! Name lookups, by the system's resolver, each time a connection is made: nothing is remembered.
//!
//! A name may have several addresses, of which one may take connections and never answer. The
//! resolver gives them in the same order each time, so each generation of connections begins with
//! the next one.
//!
//! The resolver blocks, so a thread asks it: one for all lookups, started once and kept, because a
//! limit of processes that others have used up must not keep names from being found. Where it cannot
//! be had, that is a failed lookup, and the next one asks for it again.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::oneshot;

use super::cause::{LookupError, NO_THREAD};

/// Most names that wait, those that nobody waits for any longer included.
const WAITING_MAX: usize = 128;

/// What the resolver says of a name, or why it says nothing.
type Found = Result<Vec<SocketAddr>, String>;

/// A name to be looked up. One that nobody waits for any longer is passed over: what hangs must not
/// queue.
struct Question {
    name: String,
    reply: oneshot::Sender<Found>,
}

/// The thread that asks the system's resolver. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver {
    thread: Arc<Mutex<Option<SyncSender<Question>>>>,
}

impl Resolver {
    /// Starts the thread, if it can be had and is not there.
    pub(super) fn prepare(&self) {
        // Whoever asks hears of it.
        let _ = self.thread();
    }

    fn thread(&self) -> io::Result<SyncSender<Question>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(questions) = &*thread {
            return Ok(questions.clone());
        }
        let (questions, asked) = mpsc::sync_channel(WAITING_MAX);
        thread::Builder::new().name("names".to_owned()).spawn(move || answer(&asked))?;
        Ok(thread.insert(questions).clone())
    }

    async fn find(&self, name: String) -> Found {
        let thread = self.thread().map_err(|error| format!("{NO_THREAD}: {error}"))?;
        let (reply, found) = oneshot::channel();
        let gone = || "its thread has ended".to_owned();
        thread.try_send(Question { name, reply }).map_err(|error| match error {
            TrySendError::Full(_) => "Temporary failure: the resolver does not answer".to_owned(),
            TrySendError::Disconnected(_) => gone(),
        })?;
        found.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// The life of the thread: until nobody can ask any more.
fn answer(asked: &Receiver<Question>) {
    for Question { name, reply } in asked {
        if reply.is_closed() {
            continue;
        }
        let found = (name.as_str(), 0).to_socket_addrs();
        // Who has asked may be gone.
        let _ = reply.send(found.map(Iterator::collect).map_err(|error| error.to_string()));
    }
}

/// The lookups of one generation of connections.
#[derive(Debug)]
pub(super) struct Lookup {
    /// How many generations there were before.
    pub(super) turn: usize,
    /// Whom to ask.
    pub(super) resolver: Resolver,
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let (turn, resolver) = (self.turn, self.resolver.clone());
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found = resolver.find(name.clone()).await;
            let mut addresses = found.map_err(|reason| LookupError { name, reason })?;
            if !addresses.is_empty() {
                let count = addresses.len();
                addresses.rotate_left(turn % count);
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
