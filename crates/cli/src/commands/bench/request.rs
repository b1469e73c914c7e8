//! The flags that say what is asked for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gatewright_bench::{OpenAiApi, OpenAiTarget, TargetSpec};

use super::values::{parse_header, parse_table};
use crate::failure::{Failure, Outcome};

/// What is asked for.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Request")]
pub(super) struct Request {
    /// HTTP method [default: GET, with a body POST].
    #[arg(long)]
    method: Option<String>,

    /// Header of every request; may be given again.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,

    /// Body of every request.
    ///
    /// What is JSON is sent as application/json, unless a header says otherwise.
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,

    /// File with the body of every request.
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    body_file: Option<PathBuf>,

    /// Another target, by weight: a table such as '{ name = "menu", url = "http://...", weight = 2 }'; may be given
    /// again.
    #[arg(long, value_name = "TABLE", value_parser = parse_table::<TargetSpec>)]
    #[arg(hide_short_help = true)]
    target: Vec<TargetSpec>,

    /// Variable of the environment with a key to be sent.
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,

    #[command(flatten)]
    model: Model,
}

/// What a language model is asked for.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Language model")]
struct Model {
    /// Ask a language model: chat, completions, responses or embeddings.
    ///
    /// By OpenAI's API, which many servers speak; the URL is then where that begins, with or without /v1.
    #[arg(long, value_enum, value_name = "API", hide_possible_values = true)]
    openai: Option<Api>,

    /// Name of the model.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Prompt; of several, one after the other is used.
    #[arg(long = "prompt", value_name = "TEXT")]
    prompts: Vec<String>,

    /// Tokens of each answer at most.
    #[arg(long, value_name = "N")]
    max_tokens: Option<u64>,

    /// The model shall go on to --max-tokens (ignore_eos, known to vLLM and others).
    #[arg(long, requires = "max_tokens", hide_short_help = true)]
    exact_tokens: bool,

    /// Ask for answers in one piece rather than as a stream.
    #[arg(long, hide_short_help = true)]
    no_stream: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Api {
    /// /v1/chat/completions
    Chat,
    /// /v1/completions
    Completions,
    /// /v1/responses
    Responses,
    /// /v1/embeddings
    Embeddings,
}

impl From<Api> for OpenAiApi {
    fn from(api: Api) -> Self {
        match api {
            Api::Chat => Self::Chat,
            Api::Completions => Self::Completions,
            Api::Responses => Self::Responses,
            Api::Embeddings => Self::Embeddings,
        }
    }
}

impl Request {
    /// Puts what the flags say over `targets`: a URL replaces those of a file, other flags are for the one target.
    pub(super) fn apply(&self, url: Option<&str>, targets: &mut Vec<TargetSpec>) -> Outcome<()> {
        if let Some(url) = url {
            *targets = match &targets[..] {
                [only] => vec![TargetSpec { url: url.to_owned(), ..only.clone() }],
                _ => vec![TargetSpec::of(url)],
            };
        }
        if self.says_one() {
            let [only] = &mut targets[..] else {
                let what =
                    format!("these flags are for one target, and there are {}", targets.len());
                return Err(
                    Failure::usage(what).hint("write each into its table: --target '{ ... }'")
                );
            };
            self.apply_to(only)?;
        }
        targets.extend(self.target.iter().cloned());
        Ok(())
    }

    fn says_one(&self) -> bool {
        let model = &self.model;
        self.method.is_some()
            || !self.headers.is_empty()
            || self.body.is_some()
            || self.body_file.is_some()
            || self.api_key_env.is_some()
            || model.openai.is_some()
            || model.model.is_some()
            || !model.prompts.is_empty()
            || model.max_tokens.is_some()
            || model.no_stream
    }

    fn apply_to(&self, target: &mut TargetSpec) -> Outcome<()> {
        if self.method.is_some() {
            target.method.clone_from(&self.method);
        }
        target.headers.extend(self.headers.iter().cloned());
        if let Some(text) = &self.body {
            (target.body, target.body_file) = (Some(text.clone()), None);
        }
        if let Some(path) = &self.body_file {
            (target.body, target.body_file) = (None, Some(absolute(path)?));
        }
        if self.api_key_env.is_some() {
            target.api_key_env.clone_from(&self.api_key_env);
        }
        let model = &self.model;
        if let Some(api) = model.openai {
            target.openai.get_or_insert_with(OpenAiTarget::default).api = api.into();
        }
        let says = model.model.is_some()
            || !model.prompts.is_empty()
            || model.max_tokens.is_some()
            || model.no_stream;
        let Some(openai) = &mut target.openai else {
            let hint = "add --openai chat, completions, responses or embeddings";
            return if says {
                Err(Failure::usage("these flags are for a language model").hint(hint))
            } else {
                Ok(())
            };
        };
        if model.model.is_some() {
            openai.model.clone_from(&model.model);
        }
        if !model.prompts.is_empty() {
            openai.prompts.clone_from(&model.prompts);
        }
        openai.max_tokens = model.max_tokens.or(openai.max_tokens);
        openai.exact_tokens |= model.exact_tokens;
        openai.stream &= !model.no_stream;
        Ok(())
    }
}

/// A path of a flag, which begins where the command is run and not where the scenario lies.
pub(super) fn absolute(path: &std::path::Path) -> Outcome<String> {
    let whole = std::path::absolute(path).map_err(|fault| Failure::of_reading(path, &fault))?;
    Ok(whole.to_string_lossy().into_owned())
}
