use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gatewright_control::Act;
use gatewright_control::config::{self, SystemFile};
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::access::Access;
use crate::bodies::Bodies;
use crate::driver::{Driver, Workplace};
use crate::error::StartFailure;
use crate::forwarding::Forwarding;
use crate::function::{Function, Runtime};
use crate::listener::{self, Bounds, Ends, Listener};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::plane::Plane;
use crate::python::{Door, Hub, Refusals, Rules};
use crate::records::{Book, RecordSender, Writer};
use crate::route::Routes;
use crate::shutdown::{Shutdown, Stop};
use crate::store::Store;
use crate::streams::{StreamWriter, Witness};
use crate::tls::Identity;
use crate::token::Token;
use crate::{ServeError, admin};

/// Longest frame in bytes that a worker may send: a result of this size.
pub(crate) const MAX_FRAME: u32 = 256 * 1024 * 1024;

/// Connections that wait to be accepted; the kernel takes as many as `net.core.somaxconn` says. Where there is no room,
/// a client that connects tries again after a second.
const BACKLOG: u32 = 65_535;

/// A running gateway. Dropped, it ends at once and takes its workers with it.
#[derive(Debug)]
pub struct Gateway {
    plane: Arc<Plane>,
    address: SocketAddr,
    admin_address: SocketAddr,
    hub_address: Option<SocketAddr>,
    drain: Duration,
    grace: Duration,
    /// The certificates of its listeners.
    identities: Vec<Arc<Identity>>,
    /// What its admin API and its door for workers ask for.
    tokens: Vec<Arc<Token>>,
    /// Stops the taking of connections.
    closing: CancellationToken,
    /// The data plane; done when its connections are.
    serving: JoinSet<()>,
    /// What runs beside it until the end: timer, hub, admin API.
    background: JoinSet<()>,
    writer: Option<Writer>,
    streams: Option<StreamWriter>,
    _kill: DropGuard,
}

/// Serves a system file until `shutdown` says stop. `base_dir` is the folder of the file: Python modules are
/// looked for there.
///
/// # Errors
/// What keeps the gateway from starting; see [`ServeError`]. Nothing is left running then.
pub async fn run(
    system: SystemFile,
    base_dir: PathBuf,
    options: Options,
    mut shutdown: Shutdown,
) -> Result<(), ServeError> {
    let gateway = tokio::select! {
        gateway = Gateway::start(system, base_dir, options) => gateway?,
        () = shutdown.reached(Stop::Drain) => return Err(ServeError::Interrupted),
    };
    gateway.run_until(shutdown).await;
    Ok(())
}

impl Gateway {
    /// Starts a gateway: listens, starts the first replicas of every function, and then takes requests.
    ///
    /// # Errors
    /// What keeps it from starting; see [`ServeError`]. Nothing is left running then.
    pub async fn start(
        system: SystemFile,
        base_dir: PathBuf,
        options: Options,
    ) -> Result<Self, ServeError> {
        let routes = Routes::new(&system, &base_dir)?;
        let gateway = &system.gateway;
        let data = open("gateway.listen", &gateway.listen, gateway.tls.as_ref(), &base_dir);
        let (data, address) = data.await?;
        let admin = open("gateway.admin", &gateway.admin, gateway.admin_tls.as_ref(), &base_dir);
        let (operations, admin_address) = admin.await?;
        let (secret, file) = (options.token.clone(), options.token_file.clone());
        let token = Arc::new(Token::new("the admin API", secret, file));
        if !token.is_asked_for() && !admin_address.ip().is_loopback() {
            return Err(ServeError::TokenMissing { address: admin_address });
        }
        let metrics = Metrics::new();
        let mut tokens = vec![Arc::clone(&token)];
        let door = door(&system.hub, &base_dir, &options, &metrics, &mut tokens).await?;
        let Opened { records, writer, witness, streams } = open_records(&options)?;

        let (hub, accepting) = Hub::open(MAX_FRAME).map_err(ServeError::Hub)?;
        let workplace = workplace(&system.hub, &base_dir, &options)?;
        let driver = Driver::new(options.seed, hub, None, workplace, witness);
        let kill = driver.kill.clone().drop_guard();
        let book = Book::new(driver.clock, Arc::clone(&metrics), records);
        let run: String = driver.hub.token()[..8].chars().rev().collect();
        let plane = Arc::new(Plane {
            driver: Arc::clone(&driver),
            book,
            store: Store::open(&system.cache, &base_dir, driver.clock, &run)?,
            routes,
            access: Access::read(&system, &base_dir, &metrics)?,
            forwarding: Forwarding::new(&system),
            functions: RwLock::default(),
            max_body: usize::try_from(system.gateway.max_body.bytes()).unwrap_or(usize::MAX),
            bodies: Bodies::new(system.gateway.body_memory.bytes(), metrics.body_bytes.clone()),
            started: false.into(),
            draining: false.into(),
            requests: 0.into(),
            pseudonym: format!("gatewright-{}", &run),
            run,
        });
        let bounds = bounds(&system.gateway);
        let identities = [data.identity(), operations.identity()].into_iter().flatten().collect();
        let router = admin::router(Arc::clone(&plane), Arc::clone(&metrics), token);
        let background = background(accepting, &driver, operations, router, bounds);
        let mut gateway = Self {
            plane,
            address,
            admin_address,
            hub_address: door.as_ref().map(|(_, address)| *address),
            drain: system.gateway.drain.get(),
            grace: options.grace,
            identities,
            tokens,
            closing: CancellationToken::new(),
            serving: JoinSet::new(),
            background,
            writer,
            streams,
            _kill: kill,
        };
        if let Err(error) = gateway.deploy(&system, &metrics).await {
            gateway.end().await;
            return Err(error);
        }
        gateway.plane.store.tiers().tried().await;
        gateway.listen(data, bounds);
        if let Some((door, _)) = door {
            gateway.let_workers_in(door);
        }
        tracing::info!(%address, admin = %admin_address, "serving");
        Ok(gateway)
    }

    fn let_workers_in(&mut self, door: Door) {
        let driver = Arc::clone(&self.plane.driver);
        self.background.spawn(door.accept(driver));
        let address = self.hub_address.map(tracing::field::display);
        tracing::info!(address, "workers may join");
    }

    /// Address of the data plane.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of the admin API.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where workers from elsewhere join, if they may.
    #[must_use]
    pub fn hub_address(&self) -> Option<SocketAddr> {
        self.hub_address
    }

    /// Replaces the workers of every Python function, one after another: what they import is read anew, and no
    /// request is lost. So are the certificates of the listeners, the secrets of API keys and the files of tokens; no
    /// connection is dropped. Whatever cannot be read stays as it was, and the log says so.
    pub fn reload(&self) {
        self.plane.access.reload();
        self.tokens.iter().for_each(|token| token.reload());
        self.identities.iter().for_each(|identity| identity.reload());
        let functions: Vec<_> = self.plane.functions.read().values().cloned().collect();
        for function in functions {
            let wish = Act::Reload { function: function.name.to_string() };
            if matches!(function.runtime, Runtime::Python(_))
                && let Err(error) = self.plane.driver.operate(wish)
            {
                tracing::debug!(%error, "removed meanwhile");
            }
        }
    }

    /// Serves until it is told to stop; SIGHUP reloads meanwhile. It drains at the first word and
    /// ends at once at the second.
    pub async fn run_until(self, mut shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.reached(Stop::Drain) => {}
            () = self.reload_on_signal() => {}
        }
        let driver = Arc::clone(&self.plane.driver);
        let stop = self.stop();
        tokio::pin!(stop);
        tokio::select! {
            () = &mut stop => return,
            () = shutdown.reached(Stop::Now) => {}
        }
        tracing::warn!("ending at once");
        driver.kill.cancel();
        // Its own waits end with the workers; what hangs elsewhere is not waited for.
        drop(tokio::time::timeout(Duration::from_secs(1), stop).await);
    }

    async fn reload_on_signal(&self) {
        let mut hangup = match tokio::signal::unix::signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::warn!(%error, "SIGHUP cannot be listened for");
                return std::future::pending().await;
            }
        };
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: reloading");
            self.reload();
        }
        std::future::pending().await
    }

    /// Takes nothing new, finishes what was taken within `gateway.drain`, and ends.
    pub async fn stop(mut self) {
        tracing::info!("draining");
        self.plane.draining.store(true, Ordering::Relaxed);
        self.closing.cancel();
        let kill = self.plane.driver.kill.clone();
        tokio::select! {
            () = async { while self.serving.join_next().await.is_some() {} } => {}
            () = kill.cancelled() => {}
        }
        let names: Vec<_> = self.plane.functions.read().keys().cloned().collect();
        for name in names {
            let removed = self.plane.driver.operate(Act::Remove { function: name.to_string() });
            if let Err(error) = removed {
                tracing::debug!(%error, "removed already");
            }
        }
        self.plane.driver.tasks.close();
        let wait = self.grace.saturating_mul(3);
        drop(tokio::time::timeout(wait, self.plane.driver.tasks.wait()).await);
        self.end().await;
        tracing::info!("stopped");
    }

    /// Ends whatever still runs.
    async fn end(mut self) {
        let driver = Arc::clone(&self.plane.driver);
        driver.kill.cancel();
        driver.tasks.close();
        drop(tokio::time::timeout(self.grace, driver.tasks.wait()).await);
        self.plane.store.tiers().finish().await;
        self.serving.shutdown().await;
        self.background.shutdown().await;
        if let Some(writer) = self.writer.take() {
            drop(tokio::time::timeout(Duration::from_secs(10), writer.finish()).await);
        }
        if let Some(streams) = self.streams.take() {
            driver.dismiss_witness();
            drop(tokio::time::timeout(Duration::from_secs(10), streams.finish()).await);
        }
    }

    /// Takes requests.
    fn listen(&mut self, listener: Listener, bounds: Bounds) {
        let plane = Arc::clone(&self.plane);
        let service = move |client| {
            let plane = Arc::clone(&plane);
            service_fn(move |request| Arc::clone(&plane).answer(request, client))
        };
        let ends = Ends { closing: self.closing.clone(), kill: self.plane.driver.kill.clone() };
        self.serving.spawn(listener::serve(listener, service, bounds, ends, self.drain));
    }

    /// Deploys every function and waits for the replicas that each begins with.
    async fn deploy(&mut self, system: &SystemFile, metrics: &Metrics) -> Result<(), ServeError> {
        if system.has_nodes() {
            tracing::warn!(
                "nodes, images and what functions ask of them are for simulations: every replica runs here"
            );
        }
        let driver = &self.plane.driver;
        let (sender, mut failures) = mpsc::unbounded_channel();
        *driver.start_failures.lock() = Some(sender);
        for (name, config) in &system.function {
            let function = Arc::new(Function::new(
                name,
                config,
                &driver.workplace.base_dir,
                metrics.function(name),
            )?);
            let deployed = driver.deploy(Arc::clone(&function), config.deployment(name));
            let wrong = |error: gatewright_control::OperationError| ServeError::Function {
                function: name.clone(),
                what: error.to_string(),
            };
            let _key = deployed.map_err(wrong)?;
            self.plane.functions.write().insert(Arc::clone(&function.name), function);
        }
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            tokio::select! {
                biased;
                Some((function, failure)) = failures.recv() => return Err(not_started(&function, failure)),
                _ = look.tick() => {}
            }
            let complete = driver.look(|system| {
                let views = system.function_index().filter_map(|(_, key)| system.function(key));
                views.into_iter().all(|view| view.running >= view.deployment.scale.min)
            });
            if complete {
                *driver.start_failures.lock() = None;
                self.plane.started.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
    }
}

/// What is written down of a run.
#[derive(Default)]
struct Opened {
    records: Option<RecordSender>,
    writer: Option<Writer>,
    witness: Witness,
    streams: Option<StreamWriter>,
}

/// Opens the file of records, or the folder of records and streams.
fn open_records(options: &Options) -> Result<Opened, ServeError> {
    let Some(path) = &options.records else { return Ok(Opened::default()) };
    if path.extension().is_some() && !path.is_dir() {
        let (records, writer) = Writer::open(path)?;
        return Ok(Opened { records: Some(records), writer: Some(writer), ..Opened::default() });
    }
    std::fs::create_dir_all(path)
        .map_err(|source| ServeError::Records { path: path.clone(), source })?;
    let (records, writer) = Writer::open(&path.join("invocations.jsonl"))?;
    let (happenings, streams) = StreamWriter::open(path)?;
    Ok(Opened {
        records: Some(records),
        writer: Some(writer),
        witness: Witness::new(Some(happenings)),
        streams: Some(streams),
    })
}

/// Within which bounds connections are served.
fn bounds(gateway: &config::Gateway) -> Bounds {
    Bounds {
        connections: gateway.max_connections as usize,
        header_timeout: gateway.header_timeout.get(),
        idle_timeout: gateway.idle_timeout.get(),
    }
}

/// How workers are run. They have another working directory than the gateway: paths are made absolute, and
/// links left as they are, because a virtual environment's Python is one.
fn workplace(
    hub: &config::Hub,
    base_dir: &Path,
    options: &Options,
) -> Result<Workplace, ServeError> {
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map_err(|source| ServeError::Folder { path: path.to_owned(), source })
    };
    let is_name = options.python.components().count() == 1;
    Ok(Workplace {
        base_dir: absolute(base_dir)?,
        python: if is_name { options.python.clone() } else { absolute(&options.python)? },
        grace: options.grace,
        liveness: hub.liveness.get(),
        remote_liveness: hub.remote_liveness.get(),
        max_frame: MAX_FRAME,
    })
}

/// Starts what runs beside the data plane until the end.
fn background(
    accepting: impl Future<Output = ()> + Send + 'static,
    driver: &Arc<Driver>,
    operations: Listener,
    router: axum::Router,
    bounds: Bounds,
) -> JoinSet<()> {
    let mut background = JoinSet::new();
    background.spawn(accepting);
    background.spawn(Arc::clone(driver).keep_time());
    let service = move |_| {
        let router = TowerToHyperService::new(router.clone());
        service_fn(move |request| Box::pin(router.call(request)))
    };
    // It stays open while the gateway drains: whoever watches sees it drain.
    let ends = Ends { closing: driver.kill.clone(), kill: driver.kill.clone() };
    background.spawn(listener::serve(operations, service, bounds, ends, Duration::ZERO));
    background
}

fn not_started(function: &Function, failure: StartFailure) -> ServeError {
    ServeError::Start { function: function.name.to_string(), runs: function.runs(), failure }
}

/// Where workers from elsewhere come in, if they may; its token is added to `tokens`.
async fn door(
    hub: &config::Hub,
    base_dir: &Path,
    options: &Options,
    metrics: &Metrics,
    tokens: &mut Vec<Arc<Token>>,
) -> Result<Option<(Door, SocketAddr)>, ServeError> {
    let Some(listen) = &hub.listen else { return Ok(None) };
    // No protocol is offered: a worker needs none.
    let tls = hub.tls.as_ref().map(|tls| crate::tls::server(tls, base_dir, &[])).transpose();
    let tls = tls.map_err(|source| ServeError::Tls { at: "hub.tls".to_owned(), source })?;
    let listener = bind("hub.listen", listen).await?;
    let address = local(&listener)?;
    let (secret, file) = (options.worker_token.clone(), options.worker_token_file.clone());
    let token = token_for_workers(secret, file, address)?;
    tokens.push(Arc::clone(&token));
    let rules = Rules {
        token,
        allow: hub.allow.clone(),
        default: None,
        max_workers: hub.max_workers,
        tls,
        hello_timeout: options.hello_timeout,
    };
    if rules.tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(%address, "workers from other machines speak without TLS; see hub.tls");
    }
    let door = Door::new(listener, rules, Refusals::new(metrics.refusals.clone()));
    Ok(Some((door.map_err(|entry| ServeError::Allow { entry })?, address)))
}

/// The token that workers from elsewhere must present; off loopback there must be one.
pub(crate) fn token_for_workers(
    token: Option<String>,
    file: Option<PathBuf>,
    address: SocketAddr,
) -> Result<Arc<Token>, ServeError> {
    let token = Token::new("workers from elsewhere", token, file);
    if !token.is_asked_for() && !address.ip().is_loopback() {
        return Err(ServeError::WorkerTokenMissing { address });
    }
    Ok(Arc::new(token))
}

/// Listens at an address of the system file, with TLS if there is a certificate.
async fn open(
    key: &'static str,
    address: &str,
    tls: Option<&config::ServerTls>,
    base_dir: &Path,
) -> Result<(Listener, SocketAddr), ServeError> {
    let tls = tls.map(|tls| Identity::read(key, tls, base_dir)).transpose();
    let tls = tls.map_err(|source| ServeError::Tls { at: key.to_owned(), source })?;
    let tcp = bind(key, address).await?;
    let address = local(&tcp)?;
    Ok((Listener::new(tcp, tls), address))
}

pub(crate) async fn bind(key: &'static str, address: &str) -> Result<TcpListener, ServeError> {
    let wrong = |source| ServeError::Address { key, address: address.to_owned(), source };
    let mut resolved = tokio::net::lookup_host(address).await.map_err(wrong)?;
    let Some(address) = resolved.next() else {
        return Err(wrong(std::io::Error::other("it stands for no address")));
    };
    listen_at(address).map_err(|source| ServeError::Bind { key, address, source })
}

fn listen_at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A gateway that was restarted need not wait for the last packets of its predecessor's connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

pub(crate) fn local(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(ServeError::Hub)
}
