//! What a run leaves behind beside the records of requests.

use std::sync::Arc;

use gatewright_determinism::Time;
use serde::Serialize;

/// A replica has come to another phase of its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaStep {
    /// When.
    #[serde(rename = "at_ns")]
    pub at: Time,
    /// Name of its function.
    pub function: Arc<str>,
    /// Its number in the run.
    pub replica: u64,
    /// Name of its node, if there are nodes.
    pub node: Option<Arc<str>>,
    /// Name of its image, if it has one.
    pub image: Option<Arc<str>>,
    /// The phase that begins.
    pub phase: Phase,
}

/// A phase in the life of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has a node, and its image is pulled.
    Deploy,
    /// It starts.
    Startup,
    /// It reads its data and prepares.
    Setup,
    /// It takes requests.
    Ready,
    /// It takes no more, and is told to stop.
    Teardown,
    /// It has stopped.
    Stopped,
    /// It did not start in time.
    StartFailed,
    /// It has failed, or its node has, or it was killed.
    Lost,
}

/// Something that was moved over the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// When it was asked for.
    #[serde(rename = "at_ns")]
    pub at: Time,
    /// When it was there.
    #[serde(rename = "end_ns")]
    pub end: Time,
    /// Bytes.
    pub bytes: u64,
    /// Where from.
    pub source: Arc<str>,
    /// Where to.
    pub sink: Arc<str>,
    /// What for.
    pub kind: TransferKind,
}

/// What is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferKind {
    /// A layer of an image.
    ImagePull,
    /// Data that a replica reads before it takes requests.
    SetupRead,
    /// Data that a request reads.
    DataDownload,
    /// Data that a request writes.
    DataUpload,
}

/// What a node did during a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub node: Arc<str>,
    /// Its kind of machine.
    pub device: Option<String>,
    /// Replicas on it, on average over time.
    pub replicas_mean: f64,
    /// Replicas on it at most.
    pub replicas_max: u64,
    /// Share of its cores that its replicas had asked for, on average over time.
    pub requested_mean: f64,
    /// Share of its cores at work: those that the replicas with requests in service had asked for, on average over
    /// time.
    pub busy_mean: f64,
    /// Bytes of images that it pulled.
    pub pulled: u64,
    /// Energy in joules, if the model says what its device takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joules: Option<f64>,
    /// What it cost, if the model says what its device does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}
