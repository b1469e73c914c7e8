use std::net::{Ipv4Addr, SocketAddr};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::{Event, Loss, ReplicaKey};
use http::uri::Authority;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::{Group, command};
use crate::driver::Driver;
use crate::error::StartFailure;
use crate::function::{Function, Program, Runtime};
use crate::output::Output;
use crate::python::memory;

/// Pause between two looks whether a program is ready; doubled up to the longest.
const LOOK_AFTER: Duration = Duration::from_millis(5);
const LOOK_AFTER_MAX: Duration = Duration::from_millis(100);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(2);

/// A program that serves HTTP, from its start to its end.
#[derive(Debug)]
pub(crate) struct ProgramReplica {
    key: ReplicaKey,
    pub(crate) number: u64,
    function: Arc<Function>,
    /// Where it listens, once it is ready.
    address: OnceLock<Authority>,
    stop: CancellationToken,
    kill: CancellationToken,
}

/// A process and what it says.
struct Running {
    child: Child,
    group: Group,
    output: Output,
}

/// How its life ended.
enum Fate {
    NotStarted(StartFailure),
    Lost(&'static str),
    Stopped,
}

impl ProgramReplica {
    pub(crate) fn new(key: ReplicaKey, number: u64, function: Arc<Function>) -> Arc<Self> {
        Arc::new(Self {
            key,
            number,
            function,
            address: OnceLock::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
        })
    }

    /// Where requests for it go.
    pub(crate) fn address(&self) -> Option<Authority> {
        self.address.get().cloned()
    }

    /// Tells it to end; it has no work any more.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    /// Its life, reported to the driver.
    pub(crate) async fn live(self: Arc<Self>, driver: Arc<Driver>) {
        let name = format!("{}/{}", self.function.name, self.number);
        let replica = self.key;
        match self.run(&driver, &name).await {
            Fate::Stopped => {
                tracing::info!(program = name, "stopped");
                driver.handle(Event::ReplicaStopped { replica });
            }
            Fate::Lost(cause) => {
                tracing::warn!(program = name, cause, "lost");
                self.function.metrics.death(cause);
                driver.handle(Event::ReplicaLost { replica, loss: Loss::Died });
            }
            Fate::NotStarted(failure) => {
                self.function.metrics.death("start");
                driver.handle(Event::ReplicaLost { replica, loss: Loss::StartFailed });
                driver.start_failed(&self.function, &name, failure);
            }
        }
    }

    async fn run(&self, driver: &Arc<Driver>, name: &str) -> Fate {
        let Runtime::Program(server) = &self.function.runtime else { return Fate::Stopped };
        let started = async {
            let address = free_address().await?;
            Ok((address, self.start(driver, &server.program, address, name)?))
        };
        let (address, mut running) = match started.await {
            Ok(started) => started,
            Err(failure) => return Fate::NotStarted(failure),
        };
        let limit = self.function.start_timeout;
        tokio::select! {
            biased;
            status = running.child.wait() => {
                return Fate::NotStarted(running.failure(status.ok()).await);
            }
            ready = tokio::time::timeout(limit, ready(address, server.health.as_deref())) => {
                if ready.is_err() {
                    running.kill().await;
                    let seconds = limit.as_secs_f64();
                    return Fate::NotStarted(StartFailure::TimedOut { seconds });
                }
            }
            () = self.stop.cancelled() => {
                running.kill().await;
                return Fate::Stopped;
            }
            () = driver.kill.cancelled() => {
                running.kill().await;
                return Fate::Stopped;
            }
        }
        let authority = Authority::try_from(address.to_string());
        let authority = authority.expect("an address with its port is an authority");
        self.address.get_or_init(|| authority);
        tracing::info!(program = name, %address, "ready");
        driver.handle(Event::ReplicaReady { replica: self.key });
        self.serve(driver, running, name).await
    }

    /// From ready to the end.
    async fn serve(&self, driver: &Arc<Driver>, mut running: Running, name: &str) -> Fate {
        let leader = running.group.leader();
        let unfit = async {
            memory::outgrows(leader, self.function.memory_limit).await;
            tracing::warn!(program = name, "has more memory than its limit and is replaced");
            driver.handle(Event::ReplicaUnfit { replica: self.key });
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            _ = running.child.wait() => Fate::Lost("exit"),
            () = self.stop.cancelled() => {
                running.see_off(driver).await;
                Fate::Stopped
            }
            () = self.kill.cancelled() => {
                running.kill().await;
                Fate::Lost("overdue")
            }
            () = driver.kill.cancelled() => {
                running.kill().await;
                Fate::Stopped
            }
            () = unfit => Fate::Stopped,
        }
    }

    /// Starts the process. It is told its port as most programs expect it, and as OpenFaaS' of-watchdog names it.
    fn start(
        &self,
        driver: &Driver,
        program: &Program,
        address: SocketAddr,
        name: &str,
    ) -> Result<Running, StartFailure> {
        let port = address.port().to_string();
        let url = format!("http://{address}");
        let args: Vec<_> = program.args.iter().map(|arg| arg.replace("{port}", &port)).collect();
        let mut command = command(program, &args, &driver.workplace.base_dir);
        command
            .env("PORT", &port)
            .env("mode", "http")
            .env("upstream_url", &url)
            .env("http_upstream_url", &url)
            .env("PYTHONUNBUFFERED", "1")
            .envs(&program.env)
            .stdin(Stdio::null());
        driver.reaper.mark(&mut command);
        let mut child = command.spawn().map_err(|error| StartFailure::Program {
            program: program.path.display().to_string(),
            reason: error.to_string(),
        })?;
        let group = driver.reaper.watch(&child);
        let output = Output::follow(
            child.stdout.take(),
            child.stderr.take(),
            Arc::clone(&self.function.logs),
            name,
        );
        Ok(Running { child, group, output })
    }
}

impl Running {
    /// Asks it to end, and kills it with all that it has started if it does not.
    async fn see_off(&mut self, driver: &Driver) {
        self.group.signal(Signal::TERM);
        tokio::select! {
            _ = tokio::time::timeout(driver.workplace.grace, self.child.wait()) => {}
            () = driver.kill.cancelled() => {}
        }
        self.kill().await;
    }

    async fn kill(&mut self) {
        self.group.signal(Signal::KILL);
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "cannot wait for the end of a program");
        }
    }

    /// Why it did not start, after it has ended by itself.
    async fn failure(&mut self, status: Option<ExitStatus>) -> StartFailure {
        let status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        StartFailure::Exited { status, words: self.output.last_words().await }
    }
}

/// An address that nobody listens on. Somebody may before the program does; it ends then, and another one is tried.
async fn free_address() -> Result<SocketAddr, StartFailure> {
    let address = async { TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr() };
    address.await.map_err(|error| StartFailure::Port(error.to_string()))
}

/// Returns when a program takes connections, or answers at its health path.
async fn ready(address: SocketAddr, health: Option<&str>) {
    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut pause = LOOK_AFTER;
    loop {
        let look = async {
            match health {
                None => TcpStream::connect(address).await.is_ok(),
                Some(path) => match format!("http://{address}{path}").parse() {
                    Ok(uri) => {
                        client.get(uri).await.is_ok_and(|answer| answer.status().is_success())
                    }
                    Err(_) => false,
                },
            }
        };
        if tokio::time::timeout(LOOK, look).await.unwrap_or(false) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_AFTER_MAX);
    }
}
