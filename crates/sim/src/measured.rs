//! Service times measured on ten kinds of machines.

use gatewright_control::config::{ConfigError, nearest};

use crate::Law;

/// Fitted by the authors of faas-sim to calls of AI workloads on their testbed (`ext/raith21/fet.py` of
/// github.com/edgerun/faas-sim at 30f687e, MIT licence): Raith, Nastic, Dustdar, "Serverless edge computing" (2021).
const TABLE: &str = include_str!("../data/execution_times.csv");
const PREFIX: &str = "faas-workloads/";

/// The service law of a workload on a device.
///
/// # Errors
/// There is no such workload, or none was measured on such a device; the message says which there are.
pub(crate) fn law(workload: &str, device: &str) -> Result<Law, ConfigError> {
    let rows = || TABLE.lines().skip(1).filter_map(Row::read);
    let of_workload = || rows().filter(|row| row.workload == workload);
    check(workload)?;
    let at = format!("measured = \"{workload}\"");
    let found = of_workload().find(|row| row.device == device).map(|row| row.law);
    found.ok_or_else(|| {
        let devices: Vec<_> = of_workload().map(|row| row.device).collect();
        let what = format!("it was not measured on device `{device}`");
        let hint = format!("it was on {}; or give service in `on.{device}`", devices.join(", "));
        ConfigError::new(at, &what, Some(hint))
    })
}

/// Whether a workload of this name was measured anywhere.
///
/// # Errors
/// It was not; the message says which is the nearest.
pub(crate) fn check(workload: &str) -> Result<(), ConfigError> {
    let names = TABLE.lines().skip(1).filter_map(Row::read).map(|row| row.workload);
    if names.clone().any(|name| name == workload) {
        return Ok(());
    }
    let hint = nearest(workload, names);
    let at = format!("measured = \"{workload}\"");
    Err(ConfigError::new(at, "no workload of this name was measured", hint))
}

struct Row<'a> {
    device: &'a str,
    workload: &'a str,
    law: Law,
}

impl<'a> Row<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split(',');
        let (device, image) = (fields.next()?, fields.next()?);
        let mut number = || fields.next()?.parse::<f64>().ok();
        let (min, max, sigma) = (number()?, number()?, number()?);
        let law = Law::ShiftedLogNormal { sigma, shift: number()?, scale: number()?, min, max };
        Some(Self { device, workload: image.strip_prefix(PREFIX)?, law })
    }
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::{Purpose, Stream};

    use super::*;

    #[test]
    fn every_row_can_be_drawn_from() {
        let rows: Vec<_> = TABLE.lines().skip(1).map(|line| Row::read(line).unwrap()).collect();
        assert_eq!(rows.len(), 77);
        for row in rows {
            row.law.check().unwrap();
            let Law::ShiftedLogNormal { min, max, .. } = row.law else { unreachable!() };
            let sampler = row.law.sampler();
            for id in 0..100 {
                let drawn = sampler.draw(&mut Stream::new(1, Purpose::Service, id)) as f64 / 1e9;
                assert!((min - 1e-8..=max + 1e-8).contains(&drawn), "{}: {drawn}", row.device);
            }
        }
    }

    /// The means that the table gives for calls of a classifier.
    #[test]
    fn means_are_near_those_that_were_measured() {
        for (device, mean) in [("nuc", 0.157), ("nx", 0.509), ("rpi4", 2.908), ("rpi3", 5.095)] {
            let sampler = law("resnet-inference-cpu", device).unwrap().sampler();
            let sum: u64 =
                (0..4_000).map(|id| sampler.draw(&mut Stream::new(1, Purpose::Service, id))).sum();
            let found = sum as f64 / 4_000.0 / 1e9;
            assert!((found / mean - 1.0).abs() < 0.03, "{device}: {found}");
        }
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let fault = law("python-py", "nuc").unwrap_err();
        assert_eq!(fault.hint.as_deref(), Some("did you mean `python-pi`?"));
        let fault = law("tf-gpu", "nuc").unwrap_err();
        assert!(fault.hint.unwrap().starts_with("it was on "), "it says where");
    }
}
