//! What the types of a function do not hold.

use std::time::Duration;

use super::{
    Cache, Check, ConfigError, Function, Gateway, Hub, ImageRule, ProcessMode, RateLimit, Replicas,
    Runtime, SystemFile, Timeouts, nearest,
};
use crate::cluster::Cluster;
use crate::{ImageChoice, Scale};

/// A busy worker answers a ping within about 0.3 s, from its second thread.
const MIN_LIVENESS: Duration = Duration::from_millis(500);

pub(super) fn check_gateway(gateway: &Gateway) -> Result<(), ConfigError> {
    match gateway.threads {
        Some(threads) if threads.get() > 1024 => {
            Err(ConfigError::new("gateway.threads", "more than 1024 threads", None))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_hub(hub: &Hub) -> Result<(), ConfigError> {
    let spans = [("hub.liveness", hub.liveness), ("hub.remote_liveness", hub.remote_liveness)];
    match spans.into_iter().find(|(_, span)| span.get() < MIN_LIVENESS) {
        Some((key, span)) => {
            let what = format!("{span} is less than a worker that is well may take to answer");
            Err(ConfigError::new(key, &what, Some("give at least 500ms".to_owned())))
        }
        None => Ok(()),
    }
}

pub(super) fn check_cache(cache: &Cache) -> Result<(), ConfigError> {
    if let Some(fault) = cache.shared.as_ref().and_then(|shared| shared.fault()) {
        let hint = Some("write shared = \"redis://host:6379\"".to_owned());
        return Err(ConfigError::new("cache.shared", fault, hint));
    }
    if let Some(tls) = &cache.shared_tls {
        let wrong = |what| Err(ConfigError::new("cache.shared_tls", what, None));
        if !cache.shared.as_ref().is_some_and(super::SharedUrl::is_secure) {
            return wrong("it is for a shared tier at rediss://");
        }
        if tls.certificate.is_some() != tls.key.is_some() {
            return wrong("certificate and key go together");
        }
    }
    match &cache.disk {
        Some(disk) if disk.path.is_empty() => {
            Err(ConfigError::new("cache.disk", "its path is empty", None))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_function(name: &str, function: &Function) -> Result<(), ConfigError> {
    let at = || format!("function `{name}`");
    let wrong = |what: &str| Err(ConfigError::new(at(), what, None));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(allowed) {
        return wrong("its name must be 1 to 63 letters, digits, `-`, `_` or `.`");
    }
    check_runtime(name, function)?;
    let deployment = function.deployment(name);
    let Scale { min, max } = deployment.scale;
    let rules = [
        (max >= 1 || function.remote, "replicas.max must be at least 1"),
        (min <= max, "replicas.min is above replicas.max"),
        (max <= 100_000, "replicas.max is above 100000"),
        (function.concurrency != Some(0), "concurrency must be at least 1"),
        (
            function.concurrency.is_none() || function.batch.is_none(),
            "`concurrency` is not for functions with `batch`: a worker has one batch at a time",
        ),
        (
            function.retries.attempts >= 1,
            "retries.attempts must be at least 1, which means no retry",
        ),
        (function.retries.attempts <= 100, "retries.attempts is above 100"),
        ((0.0..=1_000.0).contains(&function.retries.budget), "retries.budget must be 0 to 1000"),
        (!function.timeout.get().is_zero(), "timeout must be above 0"),
        (!function.start_timeout.get().is_zero(), "start_timeout must be above 0"),
        (
            function.batch.as_ref().is_none_or(|batch| batch.max_size >= 1),
            "batch.max_size must be at least 1",
        ),
        (
            function.process.is_some() || function.mode.is_none(),
            "`mode` is for `process` functions",
        ),
        (
            function.mode == Some(ProcessMode::Http)
                || function.http.is_some()
                || function.health.is_none(),
            "`health` is for `http` functions and a `process` with mode = \"http\"",
        ),
        (
            function.health.as_ref().is_none_or(|check| check.path().starts_with('/')),
            "`health` does not begin with `/`",
        ),
        (
            function.input.as_ref().is_none_or(Check::is_status_of_error),
            "input.status must be 400 to 599",
        ),
        (
            function.output.as_ref().is_none_or(Check::is_status_of_error),
            "output.status must be 400 to 599",
        ),
    ];
    if let Some((_, what)) = rules.into_iter().find(|(holds, _)| !holds) {
        return wrong(what);
    }
    if let Some(Err(what)) = function.limit.as_ref().map(RateLimit::check) {
        return wrong(&format!("limit.{what}"));
    }
    function.balance.check().or_else(|what| wrong(&format!("balance.{what}")))?;
    function.autoscale.check().or_else(|what| wrong(&format!("autoscale.{what}")))?;
    function.keep_alive.check().or_else(|what| wrong(&format!("keep_alive.{what}")))
}

fn check_runtime(name: &str, function: &Function) -> Result<(), ConfigError> {
    let at = || format!("function `{name}`");
    let wrong = |what: &str| Err(ConfigError::new(at(), what, None));
    let runtime = function.runtime();
    if function.tls.is_some() && !matches!(runtime, Ok(Runtime::Http(_))) {
        return wrong("`tls` is for https:// upstreams");
    }
    if let Some(what) = upstream_rules(function) {
        return wrong(&what);
    }
    match runtime {
        Err(what) => return wrong(what),
        Ok(Runtime::Python(class)) => {
            let parts = class.split_once(':');
            if parts.is_none_or(|(module, class)| module.is_empty() || class.is_empty()) {
                let hint = Some("write python = \"module:Class\"".to_owned());
                return Err(ConfigError::new(at(), "`python` names no class", hint));
            }
        }
        Ok(Runtime::Process(command, mode)) => {
            if command.first().is_none_or(String::is_empty) {
                let hint = Some("write process = [\"./program\", \"argument\"]".to_owned());
                return Err(ConfigError::new(at(), "`process` names no program", hint));
            }
            if !function.args.is_empty() || !function.kwargs.is_empty() {
                return wrong("`args` and `kwargs` are for `python` functions");
            }
            if function.batch.is_some() {
                return wrong("`batch` is for functions with workers");
            }
            if function.memory_limit.is_some() && mode == ProcessMode::Fork {
                return wrong("`memory_limit` is for functions with workers and mode = \"http\"");
            }
        }
        Ok(Runtime::Remote) => {
            if !function.args.is_empty() || !function.kwargs.is_empty() || !function.env.is_empty()
            {
                return wrong(
                    "`args`, `kwargs` and `env` belong to its workers, which run elsewhere",
                );
            }
            if function.replicas != Replicas::default() || function.memory_limit.is_some() {
                return wrong(
                    "`replicas` and `memory_limit` are for workers that the gateway starts",
                );
            }
        }
        Ok(Runtime::Http(upstreams)) => {
            if let Err((what, hint)) = upstreams.check() {
                return Err(ConfigError::new(at(), what, hint));
            }
            if !upstreams.any_secure() && function.tls.is_some() {
                return wrong("`tls` is for https:// upstreams");
            }
            if upstreams.endpoints().len() > 1 && function.replicas != Replicas::default() {
                return wrong("`replicas` is not for several upstreams: each is one");
            }
            if function
                .tls
                .as_ref()
                .is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some())
            {
                return wrong("tls.certificate and tls.key go together");
            }
            if !function.args.is_empty() || !function.kwargs.is_empty() {
                return wrong("`args` and `kwargs` are for `python` functions");
            }
        }
    }
    Ok(())
}

/// The machines, and whether each function has a place among them.
pub(super) fn check_cluster(file: &SystemFile) -> Result<(), ConfigError> {
    let placement = file.cluster.placement.check();
    placement.map_err(|what| ConfigError::new("cluster.placement", &what, None))?;
    let cluster = Cluster::new(&file.cluster, &file.image)?;
    for (name, function) in &file.function {
        let at = || format!("function `{name}`");
        for rule in &function.images {
            if !file.image.contains_key(rule.name()) {
                let hint = nearest(rule.name(), file.image.keys().map(String::as_str));
                let what = format!("there is no image `{}`", rule.name());
                return Err(ConfigError::new(at(), &what, hint));
            }
            if let ImageRule::Rule(rule) = rule
                && !(rule.share > 0.0 && rule.share <= 1.0)
            {
                let what = format!(
                    "the share of image `{}` is {}; give above 0, at most 1",
                    rule.image, rule.share
                );
                return Err(ConfigError::new(at(), &what, None));
            }
        }
        let Some(cluster) = &cluster else { continue };
        check_shares(name, function)?;
        let data = &function.data;
        for item in data.setup.iter().chain(&data.reads).chain(&data.writes) {
            if cluster.item(item).is_none() {
                let hint = Some(
                    "add it to the `items` of a bucket in [cluster.storage.BUCKET]".to_owned(),
                );
                let what = format!("nothing in the cluster is called `{item}`");
                return Err(ConfigError::new(at(), &what, hint));
            }
        }
        cluster.could_hold(&file.cluster.placement, &function.deployment(name)).map_err(|why| {
            let hint = Some("lower its `requests`, or add nodes that have them".to_owned());
            ConfigError::new(at(), &format!("no node can ever hold a replica of it: {why}"), hint)
        })?;
    }
    Ok(())
}

/// Whether the images' shares leave room for the replicas that a function begins with.
fn check_shares(name: &str, function: &Function) -> Result<(), ConfigError> {
    let deployment = function.deployment(name);
    if deployment.images.is_empty() {
        return Ok(());
    }
    let room = |choice: &ImageChoice| choice.at_most(deployment.scale.max);
    let room: u64 = deployment.images.iter().map(|choice| u64::from(room(choice))).sum();
    let least = deployment.scale.min.max(1);
    if room >= u64::from(least) {
        return Ok(());
    }
    let what = format!(
        "the shares of its images leave room for {room} of its replicas, and {least} are to run"
    );
    let hint = "raise a `share`, or replicas.max, of which it is one".to_owned();
    Err(ConfigError::new(format!("function `{name}`"), &what, Some(hint)))
}

/// What is wrong with the keys for upstreams, if anything.
fn upstream_rules(function: &Function) -> Option<String> {
    let retries = &function.retries;
    let within = |status: &u16| *status == 429 || (500..=599).contains(status);
    let wrong = |keys: &str| Some(format!("{keys} are for `http` functions"));
    match function.http {
        Some(_) if !retries.statuses.iter().all(within) => {
            return Some("retries.statuses must be 429 or 500 to 599".to_owned());
        }
        Some(_) => {}
        None if function.http2 || function.timeouts != Timeouts::default() => {
            return wrong("`http2` and `timeouts`");
        }
        None if function.breaker.is_some()
            || function.eject.is_some()
            || function.adapt.is_some() =>
        {
            return wrong("`breaker`, `eject` and `adapt`");
        }
        None if !retries.statuses.is_empty() || retries.retry_after => {
            return wrong("retries.statuses and retries.retry_after");
        }
        None => {}
    }
    let checks = [
        ("timeouts", Some(function.timeouts.check())),
        ("breaker", function.breaker.as_ref().map(|rules| rules.check())),
        ("eject", function.eject.as_ref().map(|rules| rules.check())),
        ("health", function.health.as_ref().map(|health| health.check().check())),
        ("adapt", function.adapt.as_ref().map(|rules| rules.check())),
    ];
    let wrong = |(key, check): (&str, Option<Result<(), &str>>)| {
        check?.err().map(|what| format!("{key}.{what}"))
    };
    checks.into_iter().find_map(wrong)
}
