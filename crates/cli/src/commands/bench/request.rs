//! The flags that say what is asked for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gatewright_bench::{
    Amount, DataSpec, MissingCall, OpenAiApi, OpenAiTarget, Order, Prefix, Replies, Scenario,
    Synthetic, TargetSpec,
};

use serde_json::{Map, Value};

use super::values::{parse_amount, parse_header, parse_label, parse_table};
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
    #[arg(long, value_name = "FILE", conflicts_with = "body", hide_short_help = true)]
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

    #[command(flatten)]
    data: DataFlags,
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

    /// Name of the model [default: the first that the server has].
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

    /// Further fields of each request, such as '{ temperature = 0.2 }'.
    #[arg(long, value_name = "TABLE", value_parser = parse_table::<Map<String, Value>>)]
    #[arg(hide_short_help = true)]
    extra: Option<Map<String, Value>>,

    /// Path of the API after the URL, if it is another than OpenAI's.
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    api_path: Option<String>,

    /// In sessions with --openai responses, rely on the server to remember what was said (previous_response_id).
    #[arg(long, conflicts_with = "recorded_replies", hide_short_help = true)]
    server_history: bool,

    /// So many of a session's first messages have to be answered with a call of a tool, whose made up result is the next
    /// request. The tools are those of --extra, or one that looks things up.
    #[arg(long, value_name = "N", hide_short_help = true)]
    tool_turns: Option<u32>,

    /// Tokens of the result of a call [default: 32].
    #[arg(long, value_name = "TOKENS", value_parser = parse_amount, requires = "tool_turns")]
    #[arg(hide_short_help = true)]
    tool_result_tokens: Option<Amount>,

    /// What it means if the model does not call [default: fail].
    #[arg(long, value_enum, value_name = "WHAT", requires = "tool_turns", hide_short_help = true)]
    missing_call: Option<Missing>,

    /// In the later turns of sessions, say what the data has for the model's answers, and not what it really said.
    #[arg(long, hide_short_help = true)]
    recorded_replies: bool,
}

/// What requests are filled with.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Data")]
struct DataFlags {
    /// File that fills places like {{name}} in URL, headers and body, and prompts.
    ///
    /// A row for each request: .csv with a header, .jsonl, .json with a list, .parquet, .txt with a prompt a line; all of
    /// them perhaps with .gz behind. Of several files the columns stand beside one another. A language model is asked with the column prompt (or messages, a conversation) and for so many tokens as output_tokens says. What
    /// is filled in is escaped where it stands; {{name|raw}} is not.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_tokens")]
    data: Vec<PathBuf>,

    /// Other name of a column, such as prompt=question; may be given again.
    #[arg(long, value_name = "NAME=COLUMN", value_parser = parse_label, hide_short_help = true)]
    column: Vec<(String, String)>,

    /// Rows in any order, drawn from the seed.
    #[arg(long, hide_short_help = true)]
    shuffle: bool,

    /// Made up prompts of so many tokens: 128, or { mean = 128, deviation = 32, min = 16, max = 512 }.
    #[arg(long, value_name = "TOKENS", value_parser = parse_amount)]
    prompt_tokens: Option<Amount>,

    /// Tokens of each answer to a made up prompt, in the same ways.
    #[arg(long, value_name = "TOKENS", value_parser = parse_amount, requires = "prompt_tokens")]
    #[arg(hide_short_help = true)]
    output_tokens: Option<Amount>,

    /// File with a tokenizer (tokenizer.json) whose tokens these are, for models of another kind.
    #[arg(long, value_name = "FILE", requires = "prompt_tokens", hide_short_help = true)]
    tokenizer: Option<PathBuf>,

    /// Beginnings that made up prompts share: { tokens = 256, count = 4, weight = 1 }; may be given again.
    #[arg(long, value_name = "TABLE", value_parser = parse_table::<Prefix>, requires = "prompt_tokens")]
    #[arg(hide_short_help = true)]
    prefix: Vec<Prefix>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Missing {
    /// The request has failed, and its conversation is over
    Fail,
    /// The conversation is over
    End,
    /// The user says something else
    GoOn,
}

impl From<Missing> for MissingCall {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Fail => Self::Fail,
            Missing::End => Self::End,
            Missing::GoOn => Self::GoOn,
        }
    }
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
    /// Puts what the flags say over the scenario: a URL replaces those of a file, other flags are for the one target.
    pub(super) fn apply(&self, url: Option<&str>, scenario: &mut Scenario) -> Outcome<()> {
        self.data.apply(&mut scenario.data)?;
        let targets = &mut scenario.target;
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
            || model.says()
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
        let Some(openai) = &mut target.openai else {
            let hint = "add --openai chat, completions, responses or embeddings";
            return if model.says() {
                Err(Failure::usage("these flags are for a language model").hint(hint))
            } else {
                Ok(())
            };
        };
        model.apply(openai);
        Ok(())
    }
}

impl Model {
    /// Whether it says anything besides which API is asked.
    fn says(&self) -> bool {
        self.model.is_some()
            || !self.prompts.is_empty()
            || self.max_tokens.is_some()
            || self.no_stream
            || self.recorded_replies
            || self.server_history
            || self.tool_turns.is_some()
            || self.extra.is_some()
            || self.api_path.is_some()
    }

    fn apply(&self, openai: &mut OpenAiTarget) {
        if self.model.is_some() {
            openai.model.clone_from(&self.model);
        }
        if !self.prompts.is_empty() {
            openai.prompts.clone_from(&self.prompts);
        }
        openai.max_tokens = self.max_tokens.or(openai.max_tokens);
        openai.exact_tokens |= self.exact_tokens;
        openai.stream &= !self.no_stream;
        openai.extra.extend(self.extra.clone().unwrap_or_default());
        openai.path = self.api_path.clone().or_else(|| openai.path.take());
        if self.recorded_replies {
            openai.replies = Replies::Recorded;
        }
        if self.server_history {
            openai.replies = Replies::Server;
        }
        openai.tool_turns = self.tool_turns.unwrap_or(openai.tool_turns);
        openai.tool_result_tokens = self.tool_result_tokens.unwrap_or(openai.tool_result_tokens);
        openai.missing_call = self.missing_call.map_or(openai.missing_call, Into::into);
    }
}

impl DataFlags {
    fn apply(&self, data: &mut Option<DataSpec>) -> Outcome<()> {
        if let [first, others @ ..] = &self.data[..] {
            let spec = data.get_or_insert_default();
            (spec.file, spec.synthetic, spec.trace) = (Some(absolute(first)?), None, None);
            spec.beside = others.iter().map(|path| absolute(path)).collect::<Outcome<Vec<_>>>()?;
        }
        if let Some(prompt_tokens) = self.prompt_tokens {
            let (output_tokens, prefix) = (self.output_tokens, self.prefix.clone());
            let tokenizer = self.tokenizer.as_deref().map(absolute).transpose()?;
            let spec = data.get_or_insert_default();
            spec.synthetic = Some(Synthetic { prompt_tokens, output_tokens, prefix, tokenizer });
            (spec.file, spec.trace, spec.beside) = (None, None, Vec::new());
        }
        match data {
            Some(spec) => {
                spec.columns.extend(self.column.iter().cloned());
                if self.shuffle {
                    spec.order = Order::Random;
                }
                Ok(())
            }
            None if self.column.is_empty() && !self.shuffle => Ok(()),
            None => {
                Err(Failure::usage("--column and --shuffle are for data").hint("add --data FILE"))
            }
        }
    }
}

/// A path of a flag, which begins where the command is run and not where the scenario lies.
pub(super) fn absolute(path: &std::path::Path) -> Outcome<String> {
    let whole = std::path::absolute(path).map_err(|fault| Failure::of_reading(path, &fault))?;
    Ok(whole.to_string_lossy().into_owned())
}
