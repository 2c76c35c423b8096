//! The network between an agent and an endpoint: a TCP proxy that does what networks do. It cuts,
//! stalls, swallows, throttles, loses packets, closes what is idle, and is down.
//!
//! Everything is steered from the test's thread while bytes flow in another; each order holds for
//! the connections that are open and for those that come.

use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use logferry::base::clock;
use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to bytes in one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// They pass.
    Free,
    /// They stay where they are; when the buffers are full, the sender notices.
    Stalled,
    /// They are taken and never arrive.
    Swallowed,
    /// So many a second pass, of all connections together.
    BytesPerSecond(u64),
}

/// How a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// In order (FIN).
    Fin,
    /// At once (RST).
    Reset,
}

/// A TCP proxy under orders. Everything of it ends when dropped.
pub(crate) struct Wire {
    address: SocketAddr,
    /// Never listens: keeps the port from others, also while the wire is down.
    _port: Socket,
    orders: watch::Sender<Orders>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Orders {
    target: SocketAddr,
    is_up: bool,
    /// From the agent to the endpoint.
    requests: Flow,
    /// Back.
    answers: Flow,
    loses_packets: bool,
    /// How often all connections have been cut.
    cuts: usize,
    /// How often the idle ones have been closed.
    idle_closings: usize,
    is_over: bool,
}

type Rewrite = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// The listener is as `Orders::is_up` and `loses_packets` want it.
    settled: AtomicUsize,
    /// How often a request on a used connection is still to find it closed.
    closings_on_reuse: Mutex<(usize, Option<Closing>)>,
    rewrite: Mutex<Option<Rewrite>>,
    /// A request of more bytes is reset; 0 for none.
    request_bytes_max: AtomicUsize,
    /// Requests that were.
    resets: AtomicUsize,
    heard: Mutex<Vec<u8>>,
    /// When the throttled wire is free again, by direction.
    busy_until: Mutex<[Option<Instant>; 2]>,
}

impl Shared {
    fn hear(&self, bytes: &[u8]) {
        let mut heard = lock(&self.heard);
        let room = HEARD_BYTES_MAX - heard.len();
        heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Bytes kept of what the agents said.
const HEARD_BYTES_MAX: usize = 4 << 20;

impl Wire {
    /// A wire to `target`, on a port of its own.
    pub(crate) fn to(target: SocketAddr) -> Self {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), target)
    }

    /// A wire to `target` that begins at this address.
    pub(crate) fn on(address: SocketAddr, target: SocketAddr) -> Self {
        let port = kept(address).expect("an address for the wire");
        let address = port.local_addr().ok().and_then(|at| at.as_socket()).expect("its address");
        let listener = std::net::TcpListener::bind(address).expect("the port is ours");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let (orders, told) = watch::channel(Orders {
            target,
            is_up: true,
            requests: Flow::Free,
            answers: Flow::Free,
            loses_packets: false,
            cuts: 0,
            idle_closings: 0,
            is_over: false,
        });
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime for the wire");
            runtime.block_on(serve(listener, told, of_thread));
        });
        Self { address, _port: port, orders, shared, thread: Some(thread) }
    }

    /// Where the agent connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to requests from now on.
    pub(crate) fn requests(&self, flow: Flow) {
        self.orders.send_modify(|orders| orders.requests = flow);
    }

    /// What happens to answers from now on.
    pub(crate) fn answers(&self, flow: Flow) {
        self.orders.send_modify(|orders| orders.answers = flow);
    }

    /// The peer has rebooted, and a firewall drops its resets: requests vanish, no answer comes.
    pub(crate) fn half_open(&self) {
        self.requests(Flow::Swallowed);
        self.answers(Flow::Swallowed);
    }

    /// Everything passes again. What was swallowed is gone.
    pub(crate) fn flow(&self) {
        self.requests(Flow::Free);
        self.answers(Flow::Free);
    }

    /// The kernel drops each packet of the agent, or no longer: nothing is acknowledged, no
    /// connection comes about. Closing is no packet of the agent's, and still arrives.
    pub(crate) fn lose_packets(&self, on: bool) {
        self.settle(|orders| orders.loses_packets = on);
    }

    /// Connections that come from now on are led to another place.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.orders.send_modify(|orders| orders.target = target);
    }

    /// Resets all connections. New ones are welcome.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// Resets all connections and refuses new ones.
    pub(crate) fn down(&self) {
        self.settle(|orders| {
            orders.cuts += 1;
            orders.is_up = false;
        });
    }

    /// Listens again.
    pub(crate) fn up(&self) {
        self.settle(|orders| orders.is_up = true);
    }

    /// Closes, in order, the connections on which no request is under way.
    pub(crate) fn close_idle(&self) {
        self.orders.send_modify(|orders| orders.idle_closings += 1);
    }

    /// The next `times` requests on connections that have been used before find them closed, just
    /// as their first bytes arrive.
    pub(crate) fn close_on_reuse(&self, times: usize, closing: Closing) {
        *lock(&self.shared.closings_on_reuse) = (times, Some(closing));
    }

    /// How many such requests are still to come.
    pub(crate) fn closings_left(&self) -> usize {
        lock(&self.shared.closings_on_reuse).0
    }

    /// What becomes of the first bytes of each answer from now on.
    pub(crate) fn rewrite_answers(&self, rewrite: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
        *lock(&self.shared.rewrite) = Some(Box::new(rewrite));
    }

    /// From now on a request of more bytes, head and body, is reset as soon as they have come; with 0
    /// none is.
    pub(crate) fn reset_above(&self, bytes: usize) {
        self.shared.request_bytes_max.store(bytes, SeqCst);
    }

    /// Requests that were reset for their size.
    pub(crate) fn resets(&self) -> usize {
        self.shared.resets.load(SeqCst)
    }

    /// Answers pass as they are.
    pub(crate) fn keep_answers(&self) {
        *lock(&self.shared.rewrite) = None;
    }

    /// Connections that were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// What the agents have said, the first few megabytes of it.
    pub(crate) fn heard(&self) -> Vec<u8> {
        lock(&self.shared.heard).clone()
    }

    /// Orders that concern the listener hold when this returns.
    fn settle(&self, order: impl FnOnce(&mut Orders)) {
        let before = self.shared.settled.load(SeqCst);
        self.orders.send_modify(order);
        super::wait_for("the wire to obey", || self.shared.settled.load(SeqCst) > before);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| orders.is_over = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl super::Pod {
    /// Puts a wire between the endpoint and the agents that are started from now on.
    pub(crate) fn wire(&mut self) -> Wire {
        let wire = Wire::to(self.mock.address());
        self.set("LOGFERRY_ENDPOINT", &format!("http://{}", wire.address()));
        wire
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

async fn serve(
    first: std::net::TcpListener,
    mut told: watch::Receiver<Orders>,
    shared: Arc<Shared>,
) {
    let address = first.local_addr().expect("its address");
    let mut listener = Some(TcpListener::from_std(first).expect("the wire's listener"));
    loop {
        let orders = told.borrow_and_update().clone();
        if orders.is_over {
            return;
        }
        if !orders.is_up {
            if let Some(listener) = listener.take() {
                end(&listener);
            }
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.expect("the port is still ours"));
        }
        if let Some(listener) = &listener {
            lose_packets(SockRef::from(listener), orders.loses_packets);
        }
        shared.settled.fetch_add(1, SeqCst);
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accept => if let Ok((agent, _)) = accepted {
                shared.accepted.fetch_add(1, SeqCst);
                tokio::spawn(carry(agent, told.clone(), Arc::clone(&shared)));
            },
            _ = told.changed() => {}
        }
    }
}

/// A socket that has its port and does not listen.
fn kept(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Ends the listening itself: an agent that another test is about to start has a copy of the descriptor
/// until it runs its own program.
fn end(listener: &TcpListener) {
    SockRef::from(listener).shutdown(Shutdown::Both).expect("it listens");
}

/// A filter that lets no packet in (socket(7)); the kernel does not even acknowledge.
fn lose_packets(socket: SockRef<'_>, on: bool) {
    const RETURN: u16 = 0x06;
    let done = if on {
        socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
    } else {
        // Fails where there is none.
        let _ = socket.detach_filter();
        Ok(())
    };
    done.expect("a socket filter");
}

/// One connection of the agent, to its end.
async fn carry(mut agent: TcpStream, told: watch::Receiver<Orders>, shared: Arc<Shared>) {
    let begun = told.borrow().clone();
    let Ok(mut endpoint) = TcpStream::connect(begun.target).await else {
        let _ = agent.set_zero_linger();
        return;
    };
    shared.open.fetch_add(1, SeqCst);
    let talk = Talk {
        shared: &shared,
        is_asked: AtomicBool::new(false),
        is_used: AtomicBool::new(false),
        asked_bytes: AtomicUsize::new(0),
    };
    let closing = {
        let socket = agent.as_fd().try_clone_to_owned().expect("a descriptor");
        let (from_agent, to_agent) = agent.split();
        let (from_endpoint, to_endpoint) = endpoint.split();
        tokio::select! {
            closing = talk.requests(from_agent, to_endpoint, told.clone()) => closing,
            closing = talk.answers(from_endpoint, to_agent, told.clone()) => closing,
            closing = talk.until_told(&begun, told, &socket) => closing,
        }
    };
    match closing {
        Closing::Reset => drop(agent.set_zero_linger()),
        Closing::Fin => {
            let _ = agent.shutdown().await;
            // Closing with unread bytes would be a reset.
            let mut rest = [0; 4096];
            let read_on = async { while matches!(agent.read(&mut rest).await, Ok(1..)) {} };
            let _ = tokio::time::timeout(Duration::from_secs(1), read_on).await;
        }
    }
    shared.open.fetch_sub(1, SeqCst);
}

/// What is said over one connection.
struct Talk<'a> {
    shared: &'a Shared,
    /// A request has begun that has no answer yet.
    is_asked: AtomicBool,
    /// A request has been answered.
    is_used: AtomicBool,
    /// So much of the last request has come.
    asked_bytes: AtomicUsize,
}

impl Talk<'_> {
    /// Carries requests until a side closes, or one is to find the connection closed.
    async fn requests(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut told: watch::Receiver<Orders>,
    ) -> Closing {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let flow = moving(&mut told, |orders| orders.requests).await;
            let count = tokio::select! {
                count = from.read(&mut buffer[..piece(flow)]) => count,
                _ = told.changed() => continue,
            };
            let Ok(count @ 1..) = count else { return Closing::Fin };
            let is_first = !self.is_asked.swap(true, SeqCst);
            if is_first && let Some(closing) = self.closing_on_reuse() {
                return closing;
            }
            let bytes = &buffer[..count];
            self.shared.hear(bytes);
            let before = if is_first { 0 } else { self.asked_bytes.load(SeqCst) };
            self.asked_bytes.store(before + count, SeqCst);
            let most = self.shared.request_bytes_max.load(SeqCst);
            if most > 0 && before + count > most {
                self.shared.resets.fetch_add(1, SeqCst);
                return Closing::Reset;
            }
            self.wait_for_room(flow, count, 0).await;
            let flow = moving(&mut told, |orders| orders.requests).await;
            if flow != Flow::Swallowed && to.write_all(bytes).await.is_err() {
                return Closing::Reset;
            }
        }
    }

    /// Carries answers until the endpoint closes.
    async fn answers(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut told: watch::Receiver<Orders>,
    ) -> Closing {
        let mut buffer = vec![0; 16 << 10];
        loop {
            // What the endpoint says is taken at once: it is the agent that has to wait.
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return Closing::Fin };
            let is_first = self.is_asked.swap(false, SeqCst);
            self.is_used.store(true, SeqCst);
            let rewritten = match &*lock(&self.shared.rewrite) {
                Some(rewrite) if is_first => rewrite(&buffer[..count]),
                _ => buffer[..count].to_vec(),
            };
            let mut rest = rewritten.as_slice();
            while !rest.is_empty() {
                let flow = moving(&mut told, |orders| orders.answers).await;
                let (bytes, behind) = rest.split_at(piece(flow).min(rest.len()));
                self.wait_for_room(flow, bytes.len(), 1).await;
                if flow != Flow::Swallowed && to.write_all(bytes).await.is_err() {
                    return Closing::Reset;
                }
                rest = behind;
            }
        }
    }

    /// Waits for an order to close.
    async fn until_told(
        &self,
        begun: &Orders,
        mut told: watch::Receiver<Orders>,
        socket: &OwnedFd,
    ) -> Closing {
        let mut idle_closings = begun.idle_closings;
        loop {
            let orders = told.borrow_and_update().clone();
            lose_packets(SockRef::from(socket), orders.loses_packets);
            if orders.cuts > begun.cuts || orders.is_over {
                return Closing::Reset;
            }
            if orders.idle_closings > idle_closings {
                idle_closings = orders.idle_closings;
                if !self.is_asked.load(SeqCst) {
                    return Closing::Fin;
                }
            }
            if told.changed().await.is_err() {
                return Closing::Reset;
            }
        }
    }

    fn closing_on_reuse(&self) -> Option<Closing> {
        let mut left = lock(&self.shared.closings_on_reuse);
        if left.0 == 0 || !self.is_used.load(SeqCst) {
            return None;
        }
        left.0 -= 1;
        left.1
    }

    /// Waits as long as a throttled wire takes for these bytes.
    async fn wait_for_room(&self, flow: Flow, count: usize, direction: usize) {
        let Flow::BytesPerSecond(rate) = flow else { return };
        let takes = Duration::from_secs_f64(count as f64 / rate as f64);
        let until = {
            let mut busy = lock(&self.shared.busy_until);
            let now = clock::now();
            let from = busy[direction].map_or(now, |until| until.max(now));
            busy[direction] = Some(from + takes);
            from + takes
        };
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Waits until the flow is not stalled.
async fn moving(told: &mut watch::Receiver<Orders>, of: impl Fn(&Orders) -> Flow) -> Flow {
    match told.wait_for(|orders| of(orders) != Flow::Stalled).await {
        Ok(orders) => of(&orders),
        Err(_) => Flow::Swallowed,
    }
}

/// How many bytes go at once: of a throttled wire those of a twentieth of a second.
fn piece(flow: Flow) -> usize {
    match flow {
        Flow::BytesPerSecond(rate) => usize::try_from(rate / 20).unwrap_or(1).clamp(1, 16 << 10),
        Flow::Free | Flow::Stalled | Flow::Swallowed => 16 << 10,
    }
}
