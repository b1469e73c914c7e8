//! Autoscaling: how many replicas a function should have.
//!
//! One file per policy. To add one: write the file, implement [`Autoscaler`], and add its line to the table
//! below; configuration, command line and reports take the name from there.

mod average_requests;
mod hpa;
mod idler;
mod kpa;
mod per_request;
mod queue_length;
mod ray_serve;
mod requests_per_second;

use std::fmt;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use average_requests::AverageRequests;
pub use hpa::Hpa;
pub use idler::Idler;
pub use kpa::Kpa;
pub use per_request::PerRequest;
pub use queue_length::QueueLength;
pub use ray_serve::RayServe;
pub use requests_per_second::RequestsPerSecond;

use crate::Scale;

/// Chooses how many replicas there should be, at regular moments.
pub trait Autoscaler: fmt::Debug + Send {
    /// How often [`Autoscaler::decide`] is called.
    fn interval(&self) -> Duration;

    /// Whether that is so only while requests wait: nothing else would change what it says.
    fn only_while_waiting(&self) -> bool {
        false
    }

    /// The number of replicas wanted from now on, or `None` to leave it as it is. The system holds it within
    /// the function's bounds.
    fn decide(&mut self, now: Time, sample: &Sample) -> Option<u32>;

    /// A request has come and must wait. Between two regular moments, most policies do nothing.
    fn waiting(&mut self, _now: Time, _sample: &Sample) -> Option<u32> {
        None
    }
}

/// What a replica without a limit is taken to hold at a time: Knative's `container-concurrency-target-default`.
const UNLIMITED_CONCURRENCY: u32 = 100;

/// What a policy is told of its function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Requests in service or waiting, on average since the last sample.
    pub concurrency: f64,
    /// Requests that arrived since the last sample.
    pub arrivals: u64,
    /// Requests that wait now.
    pub queued: u32,
    /// Replicas that are running.
    pub ready: u32,
    /// Replicas that were asked for and do not run yet.
    pub starting: u32,
    /// Requests that one replica works on at a time; `None` for no limit.
    pub replica_concurrency: Option<u32>,
    /// Bounds of the number of replicas.
    pub scale: Scale,
}

/// Defines the table of policies: name in configuration, settings, scaler.
macro_rules! policies {
    ($($(#[doc = $doc:literal])+ $name:ident($settings:ty) => $scaler:path,)+) => {
        /// The autoscaling policies by name, with their settings.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "policy", rename_all = "snake_case", deny_unknown_fields)]
        pub enum Autoscale {
            /// As many replicas as were asked for last, `replicas.min` at first.
            #[default]
            Fixed,
            $($(#[doc = $doc])+ $name($settings),)+
        }

        impl Autoscale {
            /// A fresh autoscaler of this kind; `None` for a fixed number of replicas.
            #[must_use]
            pub fn build(&self) -> Option<Box<dyn Autoscaler>> {
                match self {
                    Self::Fixed => None,
                    $(Self::$name(settings) => Some(Box::new(<$scaler>::new(settings.clone()))),)+
                }
            }

            /// What is wrong with the settings, if anything, as "key: explanation".
            ///
            /// # Errors
            /// The first setting out of range.
            pub fn check(&self) -> Result<(), String> {
                match self {
                    Self::Fixed => Ok(()),
                    $(Self::$name(settings) => settings.check(),)+
                }
            }
        }
    };
}

policies! {
    /// So many requests per second per replica over a window, with a tolerance; faas-sim's average request scaler.
    AverageRequests(AverageRequests) => average_requests::AverageScaler,
    /// Kubernetes' horizontal pod autoscaler: holds the use of the replicas at a target, slowly down.
    Hpa(Hpa) => hpa::HpaScaler,
    /// Stops a function that nobody asks for; OpenFaaS' `faas-idler`.
    Idler(Idler) => idler::IdleScaler,
    /// Knative's pod autoscaler: holds the concurrency per replica at a target over a stable window, and reacts
    /// to bursts in a panic window.
    Kpa(Kpa) => kpa::KpaScaler,
    /// A replica for each request that finds none free; AWS Lambda's. Give it a `keep_alive`.
    PerRequest(PerRequest) => per_request::RequestScaler,
    /// So many requests, waiting or in service, per replica; KEDA's scaling by queue length.
    QueueLength(QueueLength) => queue_length::QueueScaler,
    /// So many ongoing requests per replica, with delays; Ray Serve's.
    RayServe(RayServe) => ray_serve::RayScaler,
    /// So many requests per second per replica; OpenFaaS'.
    RequestsPerSecond(RequestsPerSecond) => requests_per_second::RateScaler,
}
