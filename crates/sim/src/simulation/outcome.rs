//! What a run comes to in the end, and what must hold of it.

use gatewright_determinism::Time;

use super::engine::{Arrivals, Engine};
use super::{DemandReport, FunctionReport, SimulationError, SimulationReport};

impl Engine<'_> {
    pub(super) fn finish(mut self) -> Result<SimulationReport, SimulationError> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.system.check_invariants()?;
        self.check_identities()?;
        let end = self.now;
        let functions =
            self.functions.iter().zip(&self.setup.functions).map(|(run, setup)| FunctionReport {
                function: setup.name.clone(),
                totals: self.system.function(run.key).map(|view| view.totals).unwrap_or_default(),
                replicas_mean: run.running.mean(end),
                replicas_max: run.running.max(),
                replica_seconds: run.allocated.area_after_warm_up(end) as f64 / 1e9,
                in_service_mean: run.in_service.mean(end),
                queued_mean: run.queued.mean(end),
                scalings: run.scalings,
                unplaced: self.system.function(run.key).map_or(0, |view| view.unplaced),
            });
        let functions = functions.collect();
        let nodes = self.node_reports(end);
        let demands = self.demands.into_iter().zip(&self.setup.demands).map(|(mut run, setup)| {
            if let (Some(span), Some(Arrivals::Requests(_) | Arrivals::Trace(_)), false) =
                (setup.limits.duration, &run.arrivals, run.cut)
            {
                run.summary.set_offered_over(span.saturating_sub(self.setup.warm_up - Time::ZERO));
            }
            run.summary.settle_punctual(run.timed);
            DemandReport {
                function: run.record.function,
                route: run.record.route,
                arrival: setup.arrival.clone(),
                summary: run.summary,
                tokens: run.tokens,
            }
        });
        let demands = demands.collect();
        Ok(SimulationReport {
            seed: self.seed,
            demands,
            functions,
            nodes,
            events: self.events,
            end,
        })
    }

    /// What must hold of every run: who came has gone; Little's law over the whole of it, and the law of utilisation
    /// (requests in service over time are the sum of their services) for each function, to the nanosecond.
    fn check_identities(&self) -> Result<(), SimulationError> {
        let broken = |what: String| Err(SimulationError::Identity(what));
        if self.offered != self.ended || self.open.value() != 0 {
            return broken(format!("{} requests came and {} ended", self.offered, self.ended));
        }
        let area = self.open.area(self.now);
        if area != self.sojourns {
            return broken(format!("Little's law: {area} is not {} request-ns", self.sojourns));
        }
        let mut served: Vec<u128> = self.functions.iter().map(|run| run.served).collect();
        for (_, flight, attempt) in self.flights.works() {
            served[flight.function as usize] += u128::from(self.now.nanos_since(attempt.since));
        }
        let refreshing = self.refreshing();
        let functions = self.functions.iter().zip(&self.setup.functions);
        for (((run, setup), served), open) in functions.zip(served).zip(refreshing) {
            let area = run.in_service.area(self.now);
            if area != served {
                let what = format!("utilisation of `{}`: {area} is not {served}", setup.name);
                return broken(what);
            }
            let totals = self.system.function(run.key).map(|view| view.totals).unwrap_or_default();
            if !run.removed && totals.arrived != totals.ended() + open {
                return broken(format!("function `{}` owes answers", setup.name));
            }
        }
        Ok(())
    }

    /// Requests of no client that are under way, by function: those that fetch anew what is stale. Nobody waits for them,
    /// so a run may end before they do.
    fn refreshing(&self) -> Vec<u64> {
        let mut counts = vec![0; self.functions.len()];
        for flight in self.flights.refreshing() {
            counts[flight.function as usize] += 1;
        }
        counts
    }
}
