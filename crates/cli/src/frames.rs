//! The data frames of faas-sim, by its names, as CSV files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatewright_control::config::SystemFile;
use gatewright_record::{Invocation, WriteError};
use gatewright_sim::{
    FunctionSample, Phase, RecordSink, ReplicaSample, ReplicaStep, Sample, Scaling,
    SimulationReport, Transfer, TransferKind,
};

use crate::failure::{Failure, Outcome};

/// A folder with one file for each frame. Times are seconds from the start of the run, and `t` is the index. Records go
/// on to `records`, if there is one.
pub(crate) struct Frames<'a> {
    files: BTreeMap<&'static str, BufWriter<File>>,
    records: Option<&'a mut dyn RecordSink>,
    /// Image of each replica.
    images: BTreeMap<u64, Arc<str>>,
    requests: BTreeMap<String, (u64, u64)>,
    /// How often utilisation is written.
    every: Option<Duration>,
}

/// The frames and their columns, as faas-sim's `extract_dataframe` gives them, and one more: `replica_utilization`, which
/// it has as `function_utilization`.
const FRAMES: [(&str, &str); 15] = [
    ("allocation", "t,cpu,mem,node"),
    ("invocations", "t,t_wait,t_exec,t_start,memory,function_name,function_image,node,replica_id"),
    ("scale", "t,value,function_name"),
    ("schedule", "t,value,function_name,image,replica_id,node_name,successful"),
    ("replica_deployment", "t,value,function_name,node_name,replica_id"),
    ("function_deployments", "t,name,type"),
    ("function_deployment", "t,value,name,image,function_id,node"),
    ("function_deployment_lifecycle", "t,value,name,function_id"),
    ("functions", "t,name,image,type"),
    ("flow", "t,bytes,duration,source,sink,action_type"),
    ("network", "t,value,source,sink,data_type"),
    ("node_utilization", "t,cpu_util,requested_util,replicas,node"),
    ("function_utilization", "t,in_service,queued,replicas,function_name"),
    (
        "replica_utilization",
        "t,in_service,in_service_mean,utilization,function_name,node,replica_id",
    ),
    (
        "fets",
        "t,t_fet_start,t_fet_end,t_wait_start,t_wait_end,function_name,function_image,node,replica_id,request_id",
    ),
];

impl<'a> Frames<'a> {
    /// Makes the folder and its files.
    pub(crate) fn create(
        folder: &Path,
        system: &SystemFile,
        every: Option<Duration>,
        records: Option<&'a mut dyn RecordSink>,
    ) -> Outcome<Self> {
        let refused = |fault: io::Error| Failure::of_writing(folder, &fault);
        std::fs::create_dir_all(folder).map_err(refused)?;
        let mut files = BTreeMap::new();
        for (name, columns) in FRAMES {
            let file = File::create(folder.join(format!("{name}.csv"))).map_err(refused)?;
            let mut file = BufWriter::new(file);
            writeln!(file, "{columns}").map_err(refused)?;
            files.insert(name, file);
        }
        let requests = system.function.iter().map(|(name, function)| {
            let requests = (function.requests.cpu.millis(), function.requests.memory.bytes());
            (name.clone(), requests)
        });
        let mut frames =
            Self { files, records, images: BTreeMap::new(), requests: requests.collect(), every };
        frames.deployments(system).map_err(refused)?;
        Ok(frames)
    }

    fn row(&mut self, frame: &'static str, at: f64, rest: &str) -> io::Result<()> {
        match self.files.get_mut(frame) {
            Some(file) => writeln!(file, "{at},{rest}"),
            None => Ok(()),
        }
    }

    fn deployments(&mut self, system: &SystemFile) -> io::Result<()> {
        for (name, function) in &system.function {
            self.row("function_deployments", 0.0, &format!("{name},function"))?;
            self.row("function_deployment_lifecycle", 0.0, &format!("deploy,{name},{name}"))?;
            for image in &function.images {
                self.row("functions", 0.0, &format!("{name},{},function", image.name()))?;
                self.row(
                    "function_deployment",
                    0.0,
                    &format!("deploy,{name},{},{name},", image.name()),
                )?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &ReplicaStep) -> io::Result<()> {
        let at = step.at.as_secs_f64();
        let ReplicaStep { function, replica, .. } = step;
        let (node, image) = (name(step.node.as_ref()), name(step.image.as_ref()));
        let value = match step.phase {
            Phase::Deploy => "deploy",
            Phase::Startup => "startup",
            Phase::Setup => "setup",
            Phase::Ready => "finish",
            Phase::Teardown => "teardown",
            Phase::Stopped | Phase::StartFailed | Phase::Lost => "end",
        };
        if step.phase == Phase::Deploy {
            if let Some(image) = &step.image {
                self.images.insert(*replica, Arc::clone(image));
            }
            for value in ["queue", "start", "finish"] {
                let row = format!("{value},{function},{image},{replica},{node},True");
                self.row("schedule", at, &row)?;
            }
            let (cpu, memory) = self.requests.get(&**function).copied().unwrap_or_default();
            self.row("allocation", at, &format!("{cpu},{memory},{node}"))?;
        }
        self.row("replica_deployment", at, &format!("{value},{function},{node},{replica}"))
    }

    fn call(&mut self, record: &Invocation) -> io::Result<()> {
        let (Some(started), Some(finished), Some(replica)) =
            (record.started, record.finished, record.replica)
        else {
            return Ok(());
        };
        let (started, finished) = (started.as_secs_f64(), finished.as_secs_f64());
        let asked = record.received.map_or(started, |at| at.as_secs_f64());
        let image = name(self.images.get(&replica));
        let (function, node, id) = (&record.function, name(record.node.as_ref()), record.id);
        let memory = self.requests.get(&**function).map_or(0, |requests| requests.1);
        let row = format!(
            "{},{},{started},{memory},{function},{image},{node},{replica}",
            started - asked,
            finished - started
        );
        self.row("invocations", finished, &row)?;
        let row = format!(
            "{started},{finished},{asked},{started},{function},{image},{node},{replica},{id}"
        );
        self.row("fets", finished, &row)
    }

    fn flow(&mut self, transfer: &Transfer) -> io::Result<()> {
        let kind = match transfer.kind {
            TransferKind::ImagePull => "docker_pull",
            TransferKind::SetupRead | TransferKind::DataDownload => "data_download",
            TransferKind::DataUpload => "data_upload",
        };
        let (at, end) = (transfer.at.as_secs_f64(), transfer.end.as_secs_f64());
        let Transfer { bytes, source, sink, .. } = transfer;
        self.row("flow", at, &format!("{bytes},{},{source},{sink},{kind}", end - at))?;
        self.row("network", end, &format!("{bytes},{source},{sink},{kind}"))
    }

    fn load(&mut self, sample: &Sample) -> io::Result<()> {
        let at = sample.at.as_secs_f64();
        for one in &sample.functions {
            let FunctionSample { function, running, queued_mean, in_service_mean, .. } = one;
            let row = format!("{in_service_mean},{queued_mean},{running},{function}");
            self.row("function_utilization", at, &row)?;
        }
        for one in &sample.replicas {
            let ReplicaSample { replica, function, in_service, in_service_mean, .. } = one;
            let (node, share) = (name(one.node.as_ref()), one.utilisation);
            let row = format!("{in_service},{in_service_mean},{share},{function},{node},{replica}");
            self.row("replica_utilization", at, &row)?;
        }
        for one in &sample.nodes {
            let row = format!("{},{},{},{}", one.busy, one.requested, one.replicas, one.node);
            self.row("node_utilization", at, &row)?;
        }
        Ok(())
    }

    /// Writes what is known in the end, and the files out.
    pub(crate) fn finish(mut self, folder: &Path, report: &SimulationReport) -> Outcome<()> {
        let end = report.end.as_secs_f64();
        let sampled = self.every.is_some();
        let mut write = || -> io::Result<()> {
            for node in report.nodes.iter().filter(|_| !sampled) {
                let row = format!(
                    "{},{},{},{}",
                    node.busy_mean, node.requested_mean, node.replicas_mean, node.node
                );
                self.row("node_utilization", end, &row)?;
            }
            for function in report.functions.iter().filter(|_| !sampled) {
                let row = format!(
                    "{},{},{},{}",
                    function.in_service_mean,
                    function.queued_mean,
                    function.replicas_mean,
                    function.function
                );
                self.row("function_utilization", end, &row)?;
            }
            self.files.values_mut().try_for_each(Write::flush)
        };
        write().map_err(|fault| Failure::of_writing(folder, &fault))
    }
}

fn name(name: Option<&Arc<str>>) -> Arc<str> {
    name.map_or_else(|| Arc::from(""), Arc::clone)
}

impl RecordSink for Frames<'_> {
    fn invocation(&mut self, invocation: &Invocation) -> Result<(), WriteError> {
        self.call(invocation)?;
        self.records.as_mut().map_or(Ok(()), |records| records.invocation(invocation))
    }

    fn scaled(&mut self, scaling: &Scaling) -> Result<(), WriteError> {
        let change = i64::from(scaling.to) - i64::from(scaling.from);
        let row = format!("{change},{}", scaling.function);
        self.row("scale", scaling.at.as_secs_f64(), &row)?;
        Ok(())
    }

    fn replica(&mut self, step: &ReplicaStep) -> Result<(), WriteError> {
        Ok(self.step(step)?)
    }

    fn transfer(&mut self, transfer: &Transfer) -> Result<(), WriteError> {
        Ok(self.flow(transfer)?)
    }

    fn sample_every(&self) -> Option<Duration> {
        self.every
    }

    fn sampled(&mut self, sample: &Sample) -> Result<(), WriteError> {
        Ok(self.load(sample)?)
    }
}
