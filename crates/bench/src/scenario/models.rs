use std::path::Path;
use std::time::Duration;

use gatewright_workload::{Limits, Strategy};
use serde::Deserialize;

use super::check::patiently;
use super::prepare::part;
use super::{Scenario, ScenarioError};
use crate::target::ParsedTarget;
use crate::{Plan, Target};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What a server says of its models.
#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

impl Scenario {
    /// Gives each target of OpenAI's API that names no model the first one that its server has (`GET /v1/models`); whether
    /// there was such a target. Arguments are those of [`Scenario::prepare`], which is then to be called again.
    ///
    /// # Errors
    /// The server cannot be asked, or has no model.
    pub fn find_models(
        &mut self,
        folder: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<bool, ScenarioError> {
        let mut found = false;
        for nth in 0..self.target.len() {
            let target = &self.target[nth];
            if target.openai.as_ref().is_some_and(|openai| openai.model.is_none()) {
                found = true;
                let model =
                    patiently(self.client.check, || self.first_model(nth, folder, variable))?;
                if let Some(openai) = &mut self.target[nth].openai {
                    openai.model = Some(model);
                }
            }
        }
        Ok(found)
    }

    fn first_model(
        &self,
        nth: usize,
        folder: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, ScenarioError> {
        const HINT: &str = "name the model: --model NAME, or openai.model of the target";
        let target = &self.target[nth];
        let base = target.url.trim_end_matches('/');
        let url = format!("{}/v1/models", base.strip_suffix("/v1").unwrap_or(base));
        let mut headers = target.headers.clone();
        let key = target.api_key_env.as_deref().and_then(variable);
        headers.extend(key.map(|key| ("authorization".to_owned(), format!("Bearer {key}"))));
        let asked = Target { headers, ..Target::get(&url) };
        let plan = Plan::new(asked, Strategy::Synchronous, Limits::default());
        let plan = Plan {
            trust: self.client.trust(folder),
            unix_socket: self.client.unix_socket.as_ref().map(|path| folder.join(path)),
            http2: self.client.http2,
            request_ids: false,
            ..plan
        };
        let connect = self.client.connect_timeout.min(TIMEOUT);
        let answer = ParsedTarget::of(&plan)?.fetch(connect, TIMEOUT)?;
        if answer.code != 200 {
            let what = format!("no model is given, and {url} answers with {}", answer.code);
            return Err(part(what, HINT));
        }
        let models = serde_json::from_slice::<Models>(&answer.body).ok();
        let first = models.and_then(|models| models.data.into_iter().next());
        let none = || part(format!("no model is given, and {url} names none"), HINT);
        first.map(|model| model.id).ok_or_else(none)
    }
}
