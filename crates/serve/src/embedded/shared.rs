//! One hub for the processes of a machine.
//!
//! The first process to take the port *has* the hub: workers come to it, its queue is the queue. The others *share*
//! it: they send their requests over a Unix socket beside the port, into the same queue. When the process that has
//! the hub ends, one of the others takes the port, workers come again, and what had no answer is sent again, as
//! often as a request may lose its worker; with one attempt it fails instead.

use std::net::SocketAddr;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::doors::{self, Doors};
use super::guests::Guests;
use super::requests::{Open, Place, Requests, is_elsewhere};
use super::wire::{Ask, BUFFER, Tell, next, write};
use super::{Caller, EmbeddedHub, HubError, HubOptions, HubStatus};
use crate::ServeError;
use crate::python::{Attendance, Link, Reader, split_unix};

/// How long the process that has the hub may take to answer a greeting, or to say how it is doing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long processes look for a hub between two that have it, before they say that there is something wrong.
const SEARCH: Duration = Duration::from_secs(10);
/// Between two looks for it; drawn apart by each process's number.
const LOOK: Duration = Duration::from_millis(5);
/// Pause after a port could not be had.
const PAUSE: Duration = Duration::from_millis(500);
/// How often time limits are looked at while another process has the hub.
const TICK: Duration = Duration::from_millis(20);
/// How much later than it should another process may say that a time limit has passed.
const SLACK: Duration = Duration::from_millis(500);
/// How long the requests of other processes that are at workers may take when this one lets go of the hub.
const FAREWELL: Duration = Duration::from_secs(5);

/// A hub that this process has, or shares with the one that has it.
#[derive(Debug)]
pub struct SharedHub {
    inner: Arc<Inner>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    options: HubOptions,
    /// Whoever hears the workers of the hub, if this process has it.
    attendance: Arc<Attendance>,
    address: SocketAddr,
    role: RwLock<Role>,
    requests: Mutex<Requests>,
    closed: CancellationToken,
}

/// What this process is to the hub.
#[derive(Debug)]
enum Role {
    /// It has it.
    Host(Arc<EmbeddedHub>),
    /// Another process does.
    Guest(Arc<Seat>),
    /// Nobody does just now, or nobody that is known of.
    Between,
}

/// The connection to the process that has the hub.
#[derive(Debug)]
pub(super) struct Seat {
    link: Link,
}

impl Seat {
    pub(super) fn ask(&self, ask: &Ask) {
        self.link.send_with(|out| write(ask, out));
    }
}

/// A way to the hub.
enum Found {
    /// The port was free.
    Host { hub: Arc<EmbeddedHub>, callers: UnixListener },
    /// Another process has it, and lets this one share it.
    Guest { seat: Arc<Seat>, reader: Reader, buffer: BytesMut },
}

impl SharedHub {
    /// Listens, or finds the process of this machine and user that does. To be called in a tokio runtime, which
    /// must live as long as the hub.
    ///
    /// # Errors
    /// Those of [`EmbeddedHub::start`]; [`ServeError::Bind`] if something else has the port, [`ServeError::Share`]
    /// if the process that has the hub was given other options or another token, or is another user's.
    pub async fn start(options: HubOptions) -> Result<Self, ServeError> {
        let attendance = Attendance::new().map_err(ServeError::Hub)?;
        let found = find(&options, &attendance, Instant::now() + SEARCH).await?;
        let address = match &found {
            Found::Host { hub, .. } => hub.address(),
            Found::Guest { .. } => doors::resolve(&options.listen).await?,
        };
        let inner = Arc::new(Inner {
            options,
            attendance,
            address,
            role: RwLock::new(Role::Between),
            requests: Mutex::default(),
            closed: CancellationToken::new(),
        });
        let (settled, settling) = oneshot::channel();
        let keeper = tokio::spawn(Arc::clone(&inner).keep(found, settled));
        // It ends only with the hub.
        drop(settling.await);
        Ok(Self { inner, keeper: Mutex::new(Some(keeper)) })
    }

    /// Where workers join.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// By which an event loop may hear the workers itself.
    #[must_use]
    pub fn attendance(&self) -> &Arc<Attendance> {
        &self.inner.attendance
    }

    /// Whether this process has the hub.
    #[must_use]
    pub fn is_host(&self) -> bool {
        matches!(&*self.inner.role.read(), Role::Host(_))
    }

    /// What the hub is doing, for all who share it. Waits for the process that has it: not for a task.
    #[must_use]
    pub fn status(&self) -> HubStatus {
        let (sender, answer) = mpsc::sync_channel(1);
        match &*self.inner.role.read() {
            Role::Host(hub) => return hub.status(),
            Role::Guest(seat) => {
                let mut requests = self.inner.requests.lock();
                let id = requests.number();
                requests.questions.insert(id, sender);
                seat.ask(&Ask::Status { id });
            }
            Role::Between => drop(sender),
        }
        let queued = self.inner.requests.lock().len();
        let unknown = HubStatus { queued, ..HubStatus::default() };
        answer.recv_timeout(PATIENCE).unwrap_or(unknown)
    }

    /// Takes a request, as [`EmbeddedHub::submit`] does.
    pub fn submit(
        &self,
        args: Bytes,
        kwargs: Bytes,
        timeout: Option<Duration>,
        urgency: u8,
        caller: Arc<dyn Caller>,
    ) -> u64 {
        let role = self.inner.role.read();
        if let Role::Host(hub) = &*role {
            return hub.submit(args, kwargs, timeout, urgency, caller);
        }
        let mut open = Open::new(args, kwargs, urgency, caller);
        open.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut requests = self.inner.requests.lock();
        let number = requests.add(open);
        if let Role::Guest(seat) = &*role {
            requests.send(number, seat);
        }
        number
    }

    /// Gives a request up, as [`EmbeddedHub::cancel`] does.
    pub fn cancel(&self, number: u64) {
        if !is_elsewhere(number) {
            if let Role::Host(hub) = &*self.inner.role.read() {
                hub.cancel(number);
            }
            return;
        }
        let Some(open) = self.inner.requests.lock().remove(number) else { return };
        match (&open.place, &*self.inner.role.read()) {
            (Place::At(seat), _) => seat.ask(&Ask::Cancel { id: number }),
            (Place::Own(own), Role::Host(hub)) => hub.cancel(*own),
            _ => {}
        }
        open.caller.ended(number, Err(HubError::Lost));
    }

    /// The caller has taken pieces of an answer, as [`EmbeddedHub::more`] says.
    pub fn more(&self, number: u64, pieces: u32) {
        let role = self.inner.role.read();
        if !is_elsewhere(number) {
            if let Role::Host(hub) = &*role {
                hub.more(number, pieces);
            }
            return;
        }
        let place = self.inner.requests.lock().get(number).map(|open| open.place.clone());
        match (place, &*role) {
            (Some(Place::At(seat)), _) => seat.ask(&Ask::More { id: number, count: pieces }),
            (Some(Place::Own(own)), Role::Host(hub)) => hub.more(own, pieces),
            _ => {}
        }
    }

    /// Ends every request of this process. If it has the hub, another one that shares it takes it over; what that
    /// one has at workers is answered first, within five seconds. Connections may take `grace` to end.
    pub async fn close(&self, grace: Duration) {
        self.inner.closed.cancel();
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper {
            // It is not aborted and does not panic.
            drop(keeper.await);
        }
        let hub = match &*self.inner.role.read() {
            Role::Host(hub) => Some(Arc::clone(hub)),
            _ => None,
        };
        if let Some(hub) = hub {
            hub.close(grace).await;
        }
        let left = self.inner.requests.lock().drain();
        for (number, open) in left {
            open.caller.ended(number, Err(HubError::Stopped));
        }
    }
}

impl Inner {
    /// Keeps this process connected to the hub, or has it, until it is closed.
    async fn keep(self: Arc<Self>, mut found: Found, settled: oneshot::Sender<()>) {
        let mut seats = JoinSet::new();
        let mut settled = Some(settled);
        seats.spawn(Arc::clone(&self).keep_time());
        loop {
            let left = match found {
                Found::Host { hub, callers } => {
                    *self.role.write() = Role::Host(Arc::clone(&hub));
                    self.forward();
                    drop(settled.take());
                    return self.host(hub, callers).await;
                }
                Found::Guest { seat, reader, buffer } => {
                    *self.role.write() = Role::Guest(Arc::clone(&seat));
                    self.forward();
                    let (leave, left) = oneshot::channel();
                    seats.spawn(Arc::clone(&self).listen(seat, reader, buffer, leave));
                    left
                }
            };
            drop(settled.take());
            let again = async {
                // Sent or dropped, it means the same.
                drop(left.await);
                self.search().await
            };
            found = tokio::select! {
                found = again => found,
                () = self.closed.cancelled() => return,
            };
        }
    }

    /// Looks for the next hub until there is one.
    async fn search(&self) -> Found {
        loop {
            match find(&self.options, &self.attendance, Instant::now() + SEARCH).await {
                Ok(found) => return found,
                Err(error) => {
                    tracing::error!(%error, "there is no hub for this process's requests");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Lets others share the hub until it is closed, and then one of them have it.
    async fn host(&self, hub: Arc<EmbeddedHub>, callers: UnixListener) {
        let token = self.options.token.clone().unwrap_or_default();
        let guests = Guests::new(Arc::clone(&hub), terms(&self.options), token);
        let mut staying = JoinSet::new();
        tokio::select! {
            () = Arc::clone(&guests).receive(&callers, &mut staying) => {}
            () = self.closed.cancelled() => {}
        }
        hub.stop_listening().await;
        drop(callers);
        guests.send_away();
        hub.end_waiting();
        drop(tokio::time::timeout(FAREWELL, guests.answered()).await);
    }

    /// Hears the process that has the hub until it is gone. `_leave` is dropped when it does not have it any more.
    async fn listen(
        self: Arc<Self>,
        seat: Arc<Seat>,
        mut reader: Reader,
        mut buffer: BytesMut,
        leave: oneshot::Sender<()>,
    ) {
        let mut leave = Some(leave);
        let hear = async {
            while let Some(tell) = next(&mut reader, &mut buffer).await {
                if tell == Tell::Leaving {
                    self.rise(&seat);
                    leave = None;
                } else {
                    self.hear(tell);
                }
            }
        };
        tokio::select! {
            () = hear => {}
            () = seat.link.flush() => {}
        }
        self.rise(&seat);
        let over = self.requests.lock().lose(&seat, self.options.attempts);
        for (number, open) in over {
            open.caller.ended(number, Err(HubError::Lost));
        }
        self.forward();
        drop(leave);
    }

    /// Sends nothing more to where the hub was.
    fn rise(&self, seat: &Arc<Seat>) {
        let mut role = self.role.write();
        if matches!(&*role, Role::Guest(at) if Arc::ptr_eq(at, seat)) {
            *role = Role::Between;
        }
    }

    fn hear(self: &Arc<Self>, tell: Tell) {
        match tell {
            Tell::Value { id, value } => self.end(id, Ok(value)),
            Tell::Failed { id, why: HubError::Stopped } => {
                // It was never begun.
                if let Some(open) = self.requests.lock().get(id) {
                    open.place = Place::Here;
                }
                self.forward();
            }
            Tell::Failed { id, why } => self.end(id, Err(why)),
            Tell::Piece { id, text, data } => {
                let caller = self.requests.lock().get(id).map(|open| {
                    open.begun = true;
                    Arc::clone(&open.caller)
                });
                if let Some(caller) = caller {
                    caller.piece(id, text, data);
                }
            }
            Tell::Status { id, status } => {
                if let Some(asked) = self.requests.lock().questions.remove(&id) {
                    // Who asked may have lost patience.
                    let _lost = asked.try_send(status).is_err();
                }
            }
            Tell::Welcome | Tell::Refused { .. } | Tell::Leaving => {}
        }
    }

    fn end(&self, number: u64, result: Result<Bytes, HubError>) {
        let open = self.requests.lock().remove(number);
        if let Some(open) = open {
            open.caller.ended(number, result);
        }
    }

    /// Sends what is nowhere to where the hub is.
    fn forward(self: &Arc<Self>) {
        let role = self.role.read();
        match &*role {
            Role::Between => {}
            Role::Guest(seat) => {
                let mut requests = self.requests.lock();
                for number in requests.unsent() {
                    requests.send(number, seat);
                }
            }
            Role::Host(hub) => {
                let unsent = self.requests.lock().unsent();
                for number in unsent {
                    self.move_in(number, hub);
                }
            }
        }
    }

    /// Gives the hub that this process has now what was sent to another one before.
    fn move_in(self: &Arc<Self>, number: u64, hub: &EmbeddedHub) {
        let Some(open) = self.requests.lock().get(number).map(|open| open.clone()) else { return };
        let moved = Arc::new(Moved { inner: Arc::downgrade(self), number });
        let left = open.left();
        let own = hub.submit(open.args, open.kwargs, left, open.urgency, moved);
        if let Some(open) = self.requests.lock().get(number) {
            open.place = Place::Own(own);
        }
    }

    /// Ends what another process should have ended, for as long as there may be anything.
    async fn keep_time(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            let late = match &*self.role.read() {
                // Its own time limits are the hub's; those from before have moved in.
                Role::Host(_) => return,
                Role::Guest(_) => SLACK,
                Role::Between => Duration::ZERO,
            };
            let Some(then) = Instant::now().checked_sub(late) else { continue };
            let over = self.requests.lock().overdue(then);
            for (number, open) in over {
                if let Place::At(seat) = &open.place {
                    seat.ask(&Ask::Cancel { id: number });
                }
                open.caller.ended(number, Err(HubError::TimedOut(Duration::ZERO)));
            }
        }
    }
}

/// A request that has moved in: its caller knows it by its old number.
#[derive(Debug)]
struct Moved {
    inner: Weak<Inner>,
    number: u64,
}

impl Caller for Moved {
    fn piece(&self, _: u64, text: bool, data: Bytes) {
        let Some(inner) = self.inner.upgrade() else { return };
        let caller = inner.requests.lock().get(self.number).map(|open| Arc::clone(&open.caller));
        if let Some(caller) = caller {
            caller.piece(self.number, text, data);
        }
    }

    fn ended(&self, _: u64, result: Result<Bytes, HubError>) {
        if let Some(inner) = self.inner.upgrade() {
            inner.end(self.number, result);
        }
    }
}

/// Takes the hub, or a seat at it.
async fn find(
    options: &HubOptions,
    attendance: &Arc<Attendance>,
    until: Instant,
) -> Result<Found, ServeError> {
    loop {
        if let Some(doors) = Doors::open(&options.listen).await? {
            let Doors { tcp, workers, callers, address } = doors;
            let attendance = Some(Arc::clone(attendance));
            let hub = EmbeddedHub::listen(options, tcp, workers, address, attendance)?;
            return Ok(Found::Host { hub: Arc::new(hub), callers });
        }
        let address = doors::resolve(&options.listen).await?;
        let problem = match take_seat(options, address).await {
            Ok(found) => return Ok(found),
            Err(Declined::Refused(reason)) => return Err(ServeError::Share { address, reason }),
            Err(Declined::Gone(problem)) => problem,
        };
        if Instant::now() > until {
            return Err(ServeError::Share { address, reason: problem.to_owned() });
        }
        // Not all at the same moment.
        tokio::time::sleep(LOOK + Duration::from_micros(u64::from(std::process::id() % 5_000)))
            .await;
    }
}

/// Why there is no seat.
enum Declined {
    /// It will never take this process.
    Refused(String),
    /// It ended meanwhile.
    Gone(&'static str),
}

async fn take_seat(options: &HubOptions, address: SocketAddr) -> Result<Found, Declined> {
    let stream = doors::connect(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Declined::Refused(error.to_string()),
        _ => Declined::Gone("nobody answers there"),
    })?;
    let halves = split_unix(stream);
    let (mut reader, writer) =
        halves.map_err(|_| Declined::Gone("its connection cannot be used"))?;
    let seat = Arc::new(Seat { link: Link::new(writer) });
    let mut buffer = BytesMut::with_capacity(BUFFER);
    let token = options.token.clone().unwrap_or_default();
    seat.ask(&Ask::Greeting { terms: terms(options), token });
    let answer = async {
        tokio::select! {
            answer = next(&mut reader, &mut buffer) => answer,
            () = seat.link.flush() => None,
        }
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Some(Tell::Welcome)) => Ok(Found::Guest { seat, reader, buffer }),
        Ok(Some(Tell::Refused { reason })) => Err(Declined::Refused(reason)),
        Ok(_) => Err(Declined::Gone("it ended the connection")),
        Err(_) => Err(Declined::Gone("it does not answer")),
    }
}

/// What processes must have alike to share a hub, since any of them may come to have it.
fn terms(options: &HubOptions) -> String {
    let HubOptions { attempts, concurrency, queue_capacity, silence, .. } = options;
    let version = env!("CARGO_PKG_VERSION");
    let silence = silence.as_secs_f64();
    format!(
        "version {version}, attempts {attempts}, window {concurrency}, places in the queue {queue_capacity}, \
         silence {silence} s"
    )
}
