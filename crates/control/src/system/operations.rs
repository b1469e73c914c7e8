//! The operations: deploy, remove, scale up, scale down, suspend.

use gatewright_determinism::Time;
use serde::{Deserialize, Serialize};

use super::idle::Rest;
use super::nodes::Unplaced;
use super::{Act, Effect, End, Function, FunctionKey, Phase, Shed, System, Totals};
use crate::Deployment;
use crate::autoscale::Autoscaler;
use crate::balance::{Balancer, Pool};
use crate::keep_alive::KeepAliveRule;
use crate::meter::Meter;
use crate::queue::Queue;
use crate::retry::RetryBudget;

/// A wish to change the system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Serve a new function.
    Deploy(Box<Deployment>),
    /// Serve a function in another way: its replicas are replaced one after another, and no request is lost.
    Update(Box<Deployment>),
    /// Anything that needs no description of a function.
    Act(Act),
}

/// Why an operation was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// There is no function of this name.
    #[error("there is no function `{0}`")]
    UnknownFunction(String),
    /// There is no node of this name.
    #[error("there is no node `{0}`")]
    UnknownNode(String),
    /// There is one already.
    #[error("function `{0}` is deployed already")]
    AlreadyDeployed(String),
    /// The description contradicts itself.
    #[error("function `{function}` cannot be deployed: {reason}")]
    Invalid {
        /// Name of the function.
        function: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The replicas at work could not go on beside those of the new description.
    #[error("function `{function}` cannot be updated: {reason}")]
    NotWhileServed {
        /// Name of the function.
        function: String,
        /// What would change.
        reason: &'static str,
    },
}

impl System {
    /// Carries out an operation. Returns the number of replicas wanted afterwards; 0 if it is about a node.
    ///
    /// # Errors
    /// The function or node does not exist, or the function exists already; see [`OperationError`].
    pub fn operate(
        &mut self,
        now: Time,
        operation: Operation,
        effects: &mut Vec<Effect>,
    ) -> Result<u32, OperationError> {
        match operation {
            Operation::Deploy(deployment) => {
                let key = self.deploy(now, *deployment, effects)?;
                Ok(self.functions[key].desired)
            }
            Operation::Update(deployment) => self.update(now, *deployment, effects),
            Operation::Act(act) => self.act(now, &act, effects),
        }
    }

    /// Serves a new function with its smallest number of replicas.
    ///
    /// # Errors
    /// A function of this name is deployed already, or is still being removed; or its bounds are not bounds.
    pub fn deploy(
        &mut self,
        now: Time,
        deployment: Deployment,
        effects: &mut Vec<Effect>,
    ) -> Result<FunctionKey, OperationError> {
        if self.names.contains_key(&deployment.name) {
            return Err(OperationError::AlreadyDeployed(deployment.name));
        }
        if let Some(reason) = contradiction(&deployment) {
            return Err(OperationError::Invalid { function: deployment.name, reason });
        }
        let name = deployment.name.clone();
        let desired = deployment.scale.min;
        let key = self.functions.insert(Function {
            phase: Phase::Serving,
            desired: 0,
            balancer: deployment.balance.build(),
            autoscaler: deployment.autoscale.build(),
            rest: deployment.keep_alive.build().map(|rule| Box::new(Rest::new(rule))),
            pool: Pool::new(if deployment.batch.is_some() {
                Some(1)
            } else {
                deployment.concurrency
            }),
            queue: Queue::default(),
            replicas: Vec::new(),
            starting: 0,
            running: 0,
            joined: 0,
            unfit: 0,
            outdated: 0,
            in_service: 0,
            service: 0.0,
            budget: RetryBudget::new(deployment.retries.budget),
            concurrency: Meter::new(now),
            arrivals: 0,
            failures: 0,
            unplaced: Unplaced::default(),
            totals: Totals::default(),
            deployment,
        });
        self.names.insert(name, key);
        if let Some(rules) = &self.functions[key].deployment.health.eject {
            self.comparisons.set(key, now + rules.interval.get());
        }
        self.plan_scaling(now, key);
        self.scale(now, key, desired, effects);
        Ok(key)
    }

    /// Serves a function in another way. What waits goes on waiting, what runs is finished, and the replicas are
    /// replaced as [`System::reload`] does it. Returns how many replicas are wanted.
    ///
    /// # Errors
    /// There is no such function; its bounds are not bounds; or it changes what the replicas at work rely on: whether
    /// and how requests are batched, or a smaller `concurrency`.
    pub fn update(
        &mut self,
        now: Time,
        deployment: Deployment,
        effects: &mut Vec<Effect>,
    ) -> Result<u32, OperationError> {
        let key = self.named(&deployment.name)?;
        let function = &mut self.functions[key];
        let batches = deployment.batch.is_some() || function.deployment.batch.is_some();
        let slots = |deployment: &Deployment| deployment.concurrency.unwrap_or(u32::MAX);
        if let Some(reason) = contradiction(&deployment) {
            return Err(OperationError::Invalid { function: deployment.name, reason });
        }
        let reason = if function.deployment.batch != deployment.batch {
            Some("`batch` cannot change while it is served")
        } else if slots(&deployment) < slots(&function.deployment) {
            Some("`concurrency` cannot shrink while it is served")
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(OperationError::NotWhileServed { function: deployment.name, reason });
        }
        if !batches {
            function.pool.raise_limit(deployment.concurrency);
        }
        if function.deployment.balance != deployment.balance {
            self.balance_by(now, key, deployment.balance.build());
        }
        let function = &mut self.functions[key];
        if function.deployment.autoscale != deployment.autoscale {
            function.autoscaler = deployment.autoscale.build();
            self.plan_scaling(now, key);
        }
        let function = &mut self.functions[key];
        if function.deployment.retries.budget != deployment.retries.budget {
            function.budget = RetryBudget::new(deployment.retries.budget);
        }
        if function.deployment.health.eject != deployment.health.eject {
            let rules = deployment.health.eject;
            let due = rules.map_or(Time::MAX, |rules| now + rules.interval.get());
            self.comparisons.set(key, due);
        }
        // A new description gets a new chance.
        function.failures = 0;
        let name = deployment.name.clone();
        function.deployment = deployment;
        let desired = function.desired;
        self.scale(now, key, desired, effects);
        self.pump(now, key, effects);
        self.reload(now, &name, effects)
    }

    /// Serves a function no more: what waits is refused, what runs is finished, then its replicas stop. The name
    /// is free at once.
    ///
    /// # Errors
    /// There is no such function.
    pub fn remove(
        &mut self,
        now: Time,
        name: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<(), OperationError> {
        let key = self.named(name)?;
        self.names.remove(name);
        self.functions[key].phase = Phase::Removing;
        self.end_waiting(now, key, End::Shed(Shed::Removed), effects);
        self.scale(now, key, 0, effects);
        for replica in self.functions[key].replicas.clone() {
            self.retire(now, replica, effects);
        }
        self.drop_if_removed(key, effects);
        Ok(())
    }

    /// Wants `by` replicas more, at most the function's largest number. Returns how many are wanted now.
    ///
    /// # Errors
    /// There is no such function.
    pub fn scale_up(
        &mut self,
        now: Time,
        name: &str,
        by: u32,
        effects: &mut Vec<Effect>,
    ) -> Result<u32, OperationError> {
        let wanted = self.functions[self.named(name)?].desired.saturating_add(by);
        self.scale_to(now, name, wanted, effects)
    }

    /// Wants `by` replicas fewer, at least the function's smallest number. Returns how many are wanted now.
    ///
    /// # Errors
    /// There is no such function.
    pub fn scale_down(
        &mut self,
        now: Time,
        name: &str,
        by: u32,
        effects: &mut Vec<Effect>,
    ) -> Result<u32, OperationError> {
        let wanted = self.functions[self.named(name)?].desired.saturating_sub(by);
        self.scale_to(now, name, wanted, effects)
    }

    /// Wants `replicas` replicas, within the function's bounds. Returns how many are wanted now.
    ///
    /// # Errors
    /// There is no such function.
    pub fn scale_to(
        &mut self,
        now: Time,
        name: &str,
        replicas: u32,
        effects: &mut Vec<Effect>,
    ) -> Result<u32, OperationError> {
        let key = self.named(name)?;
        if replicas > 0 {
            self.functions[key].phase = Phase::Serving;
        }
        Ok(self.scale(now, key, replicas, effects))
    }

    /// Wants no replicas, whatever the function's smallest number, until somebody asks for the function; which is
    /// at once if requests wait already.
    ///
    /// # Errors
    /// There is no such function.
    pub fn suspend(
        &mut self,
        now: Time,
        name: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<(), OperationError> {
        let key = self.named(name)?;
        self.functions[key].phase = Phase::Suspended;
        self.scale(now, key, 0, effects);
        Ok(())
    }

    /// Replaces every replica by a new one: one more than wanted is started, and when it is ready, an old one is
    /// drained; and so on. Replicas that joined by themselves go on. Returns how many replicas are wanted.
    ///
    /// # Errors
    /// There is no such function.
    pub fn reload(
        &mut self,
        now: Time,
        name: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<u32, OperationError> {
        let key = self.named(name)?;
        for replica in self.functions[key].replicas.clone() {
            self.replica_unfit(now, replica, effects);
        }
        Ok(self.functions[key].desired)
    }

    /// Has `autoscaler` decide how many replicas a function has from now on, in place of the one that its deployment
    /// names: for a policy that has no name. [`System::update`] with another one ends that.
    ///
    /// # Errors
    /// There is no such function.
    pub fn set_autoscaler(
        &mut self,
        now: Time,
        function: &str,
        autoscaler: Box<dyn Autoscaler>,
    ) -> Result<(), OperationError> {
        let key = self.named(function)?;
        self.functions[key].autoscaler = Some(autoscaler);
        self.plan_scaling(now, key);
        Ok(())
    }

    /// Has `balancer` choose the replicas for a function's requests from now on, in place of the one that its
    /// deployment names: for a policy that has no name. [`System::update`] with another one ends that.
    ///
    /// # Errors
    /// There is no such function.
    pub fn set_balancer(
        &mut self,
        now: Time,
        function: &str,
        balancer: Box<dyn Balancer>,
    ) -> Result<(), OperationError> {
        let key = self.named(function)?;
        self.balance_by(now, key, balancer);
        Ok(())
    }

    /// Has `rule` say how long idle replicas of a function stay, in place of the one that its deployment names: for a
    /// policy that has no name.
    ///
    /// # Errors
    /// There is no such function.
    pub fn set_keep_alive(
        &mut self,
        function: &str,
        rule: Box<dyn KeepAliveRule>,
    ) -> Result<(), OperationError> {
        let key = self.named(function)?;
        self.functions[key].rest = Some(Box::new(Rest::new(rule)));
        Ok(())
    }

    fn balance_by(&mut self, now: Time, key: FunctionKey, balancer: Box<dyn Balancer>) {
        let function = &mut self.functions[key];
        function.balancer = balancer;
        let positions = function.replicas.iter().filter_map(|key| self.replicas[*key].position);
        for position in positions {
            function.balancer.joined(&function.pool, position, now);
        }
    }

    fn named(&self, name: &str) -> Result<FunctionKey, OperationError> {
        let key = self.names.get(name).copied();
        key.ok_or_else(|| OperationError::UnknownFunction(name.to_owned()))
    }
}

fn contradiction(deployment: &Deployment) -> Option<&'static str> {
    let scale = deployment.scale;
    if deployment.name.is_empty() {
        Some("it has no name")
    } else if scale.min > scale.max {
        Some("replicas.min is above replicas.max")
    } else if deployment.concurrency == Some(0) {
        Some("concurrency is 0")
    } else if deployment.batch.is_some_and(|batch| batch.max_size == 0) {
        Some("batch.max_size is 0")
    } else if deployment.endpoints.iter().any(|endpoint| endpoint.weight == 0) {
        Some("the weight of an endpoint is 0")
    } else if deployment.retries.attempts == 0 {
        Some("retries.attempts is 0; 1 means no retry")
    } else if !(0.0..=1_000.0).contains(&deployment.retries.budget) {
        Some("retries.budget is not within 0..=1000")
    } else {
        None
    }
}
