use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Effect, Operation, OperationError, System};

/// What operators do to a system that is there, and what its machines suffer, in names: what a scenario of a
/// simulation can say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// So many replicas more are wanted.
    ScaleUp {
        /// Name of the function.
        function: String,
        /// How many more.
        by: u32,
    },
    /// So many replicas fewer are wanted.
    ScaleDown {
        /// Name of the function.
        function: String,
        /// How many fewer.
        by: u32,
    },
    /// So many replicas are wanted.
    ScaleTo {
        /// Name of the function.
        function: String,
        /// How many.
        replicas: u32,
    },
    /// No replica is wanted until somebody asks.
    Suspend {
        /// Name of the function.
        function: String,
    },
    /// Every replica is replaced by a new one, one after another, without losing a request.
    Reload {
        /// Name of the function.
        function: String,
    },
    /// The function is served no more.
    Remove {
        /// Name of the function.
        function: String,
    },
    /// A node fails, with the replicas and images on it.
    NodeLost {
        /// Name of the node.
        node: String,
    },
    /// A node that failed is there again, empty.
    NodeBack {
        /// Name of the node.
        node: String,
    },
}

/// What an [`Act`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A function, by its name.
    Function(&'a str),
    /// A node, by its name.
    Node(&'a str),
}

impl Act {
    /// What it is about.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        match self {
            Self::ScaleUp { function, .. }
            | Self::ScaleDown { function, .. }
            | Self::ScaleTo { function, .. }
            | Self::Suspend { function }
            | Self::Reload { function }
            | Self::Remove { function } => Subject::Function(function),
            Self::NodeLost { node } | Self::NodeBack { node } => Subject::Node(node),
        }
    }
}

impl From<Act> for Operation {
    fn from(act: Act) -> Self {
        Self::Act(act)
    }
}

impl System {
    /// Carries out an act. Returns the number of replicas wanted afterwards; 0 if it is about a node.
    pub(super) fn act(
        &mut self,
        now: Time,
        act: &Act,
        effects: &mut Vec<Effect>,
    ) -> Result<u32, OperationError> {
        match act {
            Act::ScaleUp { function, by } => self.scale_up(now, function, *by, effects),
            Act::ScaleDown { function, by } => self.scale_down(now, function, *by, effects),
            Act::ScaleTo { function, replicas } => self.scale_to(now, function, *replicas, effects),
            Act::Suspend { function } => self.suspend(now, function, effects).map(|()| 0),
            Act::Reload { function } => self.reload(now, function, effects),
            Act::Remove { function } => self.remove(now, function, effects).map(|()| 0),
            Act::NodeLost { node } => self.node_lost(now, node, effects).map(|()| 0),
            Act::NodeBack { node } => self.node_back(now, node, effects).map(|()| 0),
        }
    }
}
