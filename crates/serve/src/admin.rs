//! Operations, health and metrics, on an address of their own, in the shape of OpenFaaS.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use gatewright_control::config::{self, SystemFile, nearest};
use gatewright_control::health::Condition;
use gatewright_control::{Act, FunctionView, OperationError, ReplicaKey, ReplicaState, System};
use serde::{Deserialize, Serialize};
use slotmap::SecondaryMap;

use crate::function::Function;
use crate::headers::Client;
use crate::metrics::Metrics;
use crate::plane::Plane;
use crate::python::Origin;
use crate::token::Token;

/// Where the format of `/metrics` is named.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) plane: Arc<Plane>,
    metrics: Arc<Metrics>,
    token: Arc<Token>,
}

/// A function as the admin API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionStatus {
    name: String,
    /// Replicas that take requests.
    available_replicas: u32,
    /// Replicas wanted.
    replicas: u32,
    min_replicas: u32,
    max_replicas: u32,
    queued: usize,
    in_flight: u64,
    /// Seconds that a request which came now would wait for its turn.
    expected_wait: f64,
    /// Replicas that failed in a row.
    failures: u32,
    /// What its replicas run.
    runs: String,
    /// The table of the system file that it is made of, without what is at its default.
    config: serde_json::Value,
    invocation_count: u64,
    totals: gatewright_control::Totals,
    instances: Vec<Instance>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    number: u64,
    state: ReplicaState,
    in_flight: usize,
    /// Whether it was started elsewhere and joined.
    joined: bool,
    /// Whether it is given requests while it runs.
    condition: Condition,
    /// Requests at a time that it is given, if that is learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    /// The URL that it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    /// What it says of its machine, if it joined.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    origin: Option<Arc<Origin>>,
}

#[derive(Deserialize)]
struct ScaleRequest {
    replicas: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteRequest {
    function_name: String,
}

/// An error as JSON.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: String,
    hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({ "error": self.error });
        if let Some(hint) = self.hint {
            body["hint"] = hint.into();
        }
        (self.status, Json(body)).into_response()
    }
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        let status = match error {
            OperationError::UnknownFunction(_) | OperationError::UnknownNode(_) => {
                StatusCode::NOT_FOUND
            }
            OperationError::AlreadyDeployed(_) => StatusCode::CONFLICT,
            OperationError::Invalid { .. } => StatusCode::BAD_REQUEST,
            OperationError::NotWhileServed { .. } => StatusCode::CONFLICT,
        };
        let anew = matches!(error, OperationError::NotWhileServed { .. });
        let hint = anew.then(|| "remove it and deploy it anew".to_owned());
        Self { hint, ..Self::new(status, error.to_string()) }
    }
}

/// The admin API. With a token, everything but health asks for it.
pub(crate) fn router(plane: Arc<Plane>, metrics: Arc<Metrics>, token: Arc<Token>) -> Router {
    let admin = Admin { plane, metrics, token };
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/system/functions", get(list).post(deploy).put(update).delete(remove))
        .route("/system/logs", get(crate::admin_logs::logs))
        .route("/system/function/{name}", get(show))
        .route("/system/scale-function/{name}", post(scale))
        .route("/system/reload/{name}", post(reload))
        .route("/system/suspend-function/{name}", post(suspend))
        .route("/function/{name}", any(invoke))
        .merge(crate::purging::router(Arc::clone(&admin.plane)))
        .route_layer(middleware::from_fn_with_state(admin.clone(), check_token))
        .route("/healthz", get(health))
        .route("/docs", get(docs))
        .route("/docs/openapi.json", get(openapi))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here") })
        .with_state(admin)
}

async fn check_token(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if !admin.token.admits(presented(request.headers())) {
        let error = "the admin API asks for a token: Authorization: Bearer ...".to_owned();
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (challenge, Problem::new(StatusCode::UNAUTHORIZED, error)).into_response();
    }
    next.run(request).await
}

/// The token that a request comes with.
fn presented(headers: &HeaderMap) -> &str {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim())
}

/// Ready when every function of the system file was deployed and every one that is to have replicas has one that runs.
async fn health(State(admin): State<Admin>) -> Response {
    let missing = admin.plane.driver.look(|system| {
        let views = system.function_index().filter_map(|(_, key)| system.function(key));
        let waiting = views.filter(|view| view.deployment.scale.min >= 1 && view.running == 0);
        waiting.map(|view| view.deployment.name.clone()).collect::<Vec<_>>()
    });
    let draining = admin.plane.draining.load(std::sync::atomic::Ordering::Relaxed);
    let started = admin.plane.started.load(std::sync::atomic::Ordering::Relaxed);
    let ready = started && missing.is_empty() && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": ready, "draining": draining, "waiting_for": missing });
    (status, Json(body)).into_response()
}

/// What can be asked here, for people.
async fn docs() -> axum::response::Html<&'static str> {
    axum::response::Html(include_str!("../docs/admin.html"))
}

/// What can be asked here, for programs.
async fn openapi(State(admin): State<Admin>, headers: HeaderMap) -> Json<serde_json::Value> {
    let mut functions: Vec<_> = admin.plane.functions.read().values().cloned().collect();
    // Who may not operate them is not told which there are.
    if !admin.token.admits(presented(&headers)) {
        functions.clear();
    }
    Json(crate::openapi::with_functions(&functions))
}

async fn show_metrics(State(admin): State<Admin>) -> Response {
    let cache = admin.plane.store.stats();
    let text = admin.plane.driver.look(|system| admin.metrics.text(system, &cache));
    ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response()
}

async fn list(State(admin): State<Admin>) -> Json<Vec<FunctionStatus>> {
    let origins = admin.plane.driver.origins();
    let all: Vec<_> = admin.plane.driver.look(|system| {
        let views = system.function_index().filter_map(|(_, key)| system.function(key));
        views.map(|view| describe(system, &view, &origins)).collect()
    });
    Json(all.into_iter().map(|status| admin.with_config(status)).collect())
}

async fn show(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<FunctionStatus>, Problem> {
    let origins = admin.plane.driver.origins();
    let found = admin.plane.driver.look(|system| {
        let view = system.function(system.lookup(&name)?)?;
        Some(describe(system, &view, &origins))
    });
    found.map(|found| Json(admin.with_config(found))).ok_or_else(|| admin.unknown(&name))
}

fn describe(
    system: &System,
    view: &FunctionView<'_>,
    origins: &SecondaryMap<ReplicaKey, Arc<Origin>>,
) -> FunctionStatus {
    let instances = system.replicas(view.key, None).map(|replica| Instance {
        number: replica.number,
        state: replica.state,
        in_flight: replica.in_flight,
        joined: replica.joined,
        condition: replica.condition,
        limit: replica.limit,
        upstream: view.deployment.endpoints.get(replica.endpoint).map(|at| at.url.clone()),
        origin: origins.get(replica.key).cloned(),
    });
    FunctionStatus {
        name: view.deployment.name.clone(),
        available_replicas: view.running,
        replicas: view.desired,
        min_replicas: view.deployment.scale.min,
        max_replicas: view.deployment.scale.max,
        queued: view.queued,
        in_flight: u64::from(view.in_flight),
        expected_wait: view.expected_wait.as_secs_f64(),
        failures: view.failures,
        runs: String::new(),
        config: serde_json::Value::Null,
        invocation_count: view.totals.arrived,
        totals: view.totals,
        instances: instances.collect(),
    }
}

async fn scale(
    State(admin): State<Admin>,
    Path(function): Path<String>,
    Json(wish): Json<ScaleRequest>,
) -> Result<Json<serde_json::Value>, Problem> {
    let replicas = admin.operate(Act::ScaleTo { function, replicas: wish.replicas })?;
    Ok(Json(serde_json::json!({ "replicas": replicas })))
}

/// Replaces every replica that the gateway started by a new one, one after another.
async fn reload(
    State(admin): State<Admin>,
    Path(function): Path<String>,
) -> Result<(StatusCode, Json<serde_json::Value>), Problem> {
    let replicas = admin.operate(Act::Reload { function })?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "replicas": replicas }))))
}

/// Wants no replicas until somebody asks for the function.
async fn suspend(
    State(admin): State<Admin>,
    Path(function): Path<String>,
) -> Result<StatusCode, Problem> {
    admin.operate(Act::Suspend { function })?;
    Ok(StatusCode::ACCEPTED)
}

/// Serves a new function: the table of a function as in the system file, and its name as `service`.
async fn deploy(
    State(admin): State<Admin>,
    Json(table): Json<serde_json::Map<String, serde_json::Value>>,
) -> Result<StatusCode, Problem> {
    let (function, config) = admin.described(table)?;
    let (name, function) = (Arc::clone(&function.name), Arc::new(function));
    admin.plane.driver.deploy(Arc::clone(&function), config.deployment(&name))?;
    admin.plane.functions.write().insert(name, function);
    Ok(StatusCode::ACCEPTED)
}

/// Serves a function in another way, described as for [`deploy`]: its replicas are replaced one after another, and no
/// request is lost.
async fn update(
    State(admin): State<Admin>,
    Json(table): Json<serde_json::Map<String, serde_json::Value>>,
) -> Result<StatusCode, Problem> {
    let (mut function, config) = admin.described(table)?;
    let name = Arc::clone(&function.name);
    let served = admin.plane.functions.read().get(&name).cloned();
    let Some(served) = served else { return Err(admin.unknown(&name)) };
    if let Some(reason) = served.cannot_become(&function) {
        let function = name.to_string();
        return Err(OperationError::NotWhileServed { function, reason }.into());
    }
    function.logs = Arc::clone(&served.logs);
    let function = Arc::new(function);
    admin.plane.driver.update(Arc::clone(&function), config.deployment(&name))?;
    admin.plane.functions.write().insert(name, function);
    Ok(StatusCode::ACCEPTED)
}

impl Admin {
    /// Adds what the decisions do not know.
    fn with_config(&self, mut status: FunctionStatus) -> FunctionStatus {
        if let Some(function) = self.plane.functions.read().get(&*status.name) {
            status.runs = function.runs();
            status.config = function.described();
        }
        status
    }

    /// The function that the body of a request describes.
    fn described(
        &self,
        mut table: serde_json::Map<String, serde_json::Value>,
    ) -> Result<(Function, config::Function), Problem> {
        let wrong = |what: String| Problem::new(StatusCode::BAD_REQUEST, what);
        let Some(serde_json::Value::String(name)) = table.remove("service") else {
            return Err(wrong("`service`, the name of the function, is missing".to_owned()));
        };
        let table = serde_json::Value::Object(table);
        let config: config::Function =
            serde_json::from_value(table).map_err(|error| wrong(error.to_string()))?;
        let mut file =
            SystemFile { key: self.plane.access.described.clone(), ..SystemFile::default() };
        let config = file.function.entry(name.clone()).or_insert(config).clone();
        file.check()
            .map_err(|error| Problem { hint: error.hint.clone(), ..wrong(error.to_string()) })?;
        let folder = &self.plane.driver.workplace.base_dir;
        let function = Function::new(&name, &config, folder, self.metrics.function(&name));
        Ok((function.map_err(|error| wrong(error.to_string()))?, config))
    }

    /// Says that there is no function of this name, and which one may be meant.
    pub(crate) fn unknown(&self, name: &str) -> Problem {
        let functions = self.plane.functions.read();
        let mut names: Vec<_> = functions.keys().map(|name| &**name).collect();
        names.sort_unstable();
        let hint = nearest(name, names.into_iter());
        let error = OperationError::UnknownFunction(name.to_owned());
        Problem { hint, ..Problem::new(StatusCode::NOT_FOUND, error.to_string()) }
    }

    /// Carries out an act; a function that is not there is told with the nearest name.
    fn operate(&self, act: Act) -> Result<u32, Problem> {
        self.plane.driver.operate(act).map_err(|error| match error {
            OperationError::UnknownFunction(name) => self.unknown(&name),
            other => other.into(),
        })
    }
}

async fn remove(
    State(admin): State<Admin>,
    Json(wish): Json<DeleteRequest>,
) -> Result<StatusCode, Problem> {
    let function = wish.function_name;
    admin.operate(Act::Remove { function: function.clone() })?;
    admin.plane.functions.write().remove(function.as_str());
    Ok(StatusCode::ACCEPTED)
}

async fn invoke(State(admin): State<Admin>, request: Request) -> Response {
    let mut request = request;
    // The token is for this API, not for what it invokes.
    request.headers_mut().remove(header::AUTHORIZATION);
    match admin.plane.answer(request, Client::default()).await {
        Ok(answer) => answer.map(axum::body::Body::new),
        Err(never) => match never {},
    }
}
