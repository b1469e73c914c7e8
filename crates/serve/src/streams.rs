//! What happened to replicas, written beside the records of requests.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use gatewright_record::{ReplicaEvent, ScalingEvent};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::ServeError;

/// Events that wait for the disk.
const WAITING: usize = 16_384;
/// Written together at most.
const BATCH: usize = 256;

/// Something that happened beside requests.
#[derive(Debug)]
pub(crate) enum Happening {
    Replica(ReplicaEvent),
    Scaled(ScalingEvent),
}

/// Where happenings are sent.
pub(crate) type Happenings = mpsc::Sender<Happening>;

/// The task that writes them; it ends when nobody sends any more.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    task: JoinHandle<()>,
}

/// The files of a folder of records.
struct Files {
    replicas: BufWriter<File>,
    scaling: BufWriter<File>,
}

impl StreamWriter {
    /// Opens `replicas.jsonl` and `scaling.jsonl` in a folder.
    pub(crate) fn open(folder: &Path) -> Result<(Happenings, Self), ServeError> {
        let create = |name: &str| {
            let path = folder.join(name);
            File::create(&path)
                .map(BufWriter::new)
                .map_err(|source| ServeError::Records { path, source })
        };
        let files =
            Files { replicas: create("replicas.jsonl")?, scaling: create("scaling.jsonl")? };
        let (sender, happenings) = mpsc::channel(WAITING);
        Ok((sender, Self { task: tokio::task::spawn_blocking(move || write(files, happenings)) }))
    }

    /// Waits until everything that was sent is on disk; every sender must be gone.
    pub(crate) async fn finish(self) {
        if self.task.await.is_err() {
            tracing::error!("the writer of what happened to replicas panicked");
        }
    }
}

fn write(mut files: Files, mut happenings: mpsc::Receiver<Happening>) {
    let mut batch = Vec::with_capacity(BATCH);
    while happenings.blocking_recv_many(&mut batch, BATCH) > 0 {
        if let Err(error) = files.take(&mut batch) {
            tracing::error!(%error, "what happens to replicas is written no longer");
            return;
        }
    }
}

impl Files {
    /// They are few, and of use while the gateway runs: flushed each time.
    fn take(&mut self, batch: &mut Vec<Happening>) -> std::io::Result<()> {
        for happening in batch.drain(..) {
            match happening {
                Happening::Replica(event) => line(&mut self.replicas, &event)?,
                Happening::Scaled(event) => line(&mut self.scaling, &event)?,
            }
        }
        self.replicas.flush()?;
        self.scaling.flush()
    }
}

fn line(file: &mut BufWriter<File>, event: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, event)?;
    file.write_all(b"\n")
}

/// Where to send happenings, if anywhere; what does not fit into the channel is dropped and said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness(Option<Happenings>);

impl Witness {
    pub(crate) fn new(sender: Option<Happenings>) -> Self {
        Self(sender)
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn replica(&self, event: ReplicaEvent) {
        self.send(Happening::Replica(event));
    }

    pub(crate) fn scaled(&self, event: ScalingEvent) {
        self.send(Happening::Scaled(event));
    }

    fn send(&self, happening: Happening) {
        if let Some(sender) = &self.0
            && let Err(error) = sender.try_send(happening)
        {
            tracing::warn!(%error, "what happened to a replica was not written");
        }
    }
}
