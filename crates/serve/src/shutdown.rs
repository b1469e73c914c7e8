use tokio::sync::watch;

/// How far a gateway is to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    No,
    /// Take nothing new, finish what was taken, then end.
    Drain,
    /// End now.
    Now,
}

/// Tells a gateway when to stop.
#[derive(Clone, Debug)]
pub struct Shutdown {
    stop: watch::Receiver<Stop>,
}

/// The other end of a [`Shutdown`]. When it is dropped, the gateway drains.
#[derive(Debug)]
pub struct ShutdownHandle {
    stop: watch::Sender<Stop>,
}

impl Shutdown {
    /// A pair: whoever holds the handle stops the gateway.
    #[must_use]
    pub fn channel() -> (ShutdownHandle, Self) {
        let (sender, receiver) = watch::channel(Stop::No);
        (ShutdownHandle { stop: sender }, Self { stop: receiver })
    }

    /// Drains at the first SIGTERM or SIGINT of this process, ends at the second.
    ///
    /// # Errors
    /// If the signals cannot be listened for.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (handle, shutdown) = Self::channel();
        tokio::spawn(async move {
            for stop in [Stop::Drain, Stop::Now] {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!(?stop, "SIGTERM"),
                    _ = interrupt.recv() => tracing::info!(?stop, "SIGINT"),
                }
                handle.stop(stop);
            }
            // Kept until the process ends: dropping the handle is a word too.
            std::future::pending::<()>().await;
        });
        Ok(shutdown)
    }

    /// Waits until the gateway is to stop at least as far as `stop`.
    pub(crate) async fn reached(&mut self, stop: Stop) {
        if self.stop.wait_for(|now| *now >= stop).await.is_err() && stop > Stop::Drain {
            std::future::pending::<()>().await;
        }
    }
}

impl ShutdownHandle {
    /// Says how far to stop; never less than said before.
    pub fn stop(&self, stop: Stop) {
        self.stop.send_if_modified(|now| {
            let further = stop > *now;
            *now = stop.max(*now);
            further
        });
    }
}
