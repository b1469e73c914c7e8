use std::path::Path;
use std::sync::Arc;

use gatewright_control::cache::CachePolicy;
use gatewright_control::compress::{Compress, CompressRules};
use gatewright_control::config;
use matchit::{Params, Router};

use crate::ServeError;
use crate::check::{Check, Side};
use crate::limits::Limit;
use crate::upgrade::Upgrades;

/// Path under which every function can be asked for.
const FUNCTION_PATH: &str = "/function/{name}";

/// Where the paths of the gateway lead.
#[derive(Debug)]
pub(crate) struct Routes {
    router: Router<Destination>,
}

/// Where a path leads.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// To the function that the path itself names.
    Named,
    /// To a route of the system file.
    Route(Arc<Route>),
}

/// A route of the system file.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its pattern, for records.
    pub(crate) pattern: Arc<str>,
    /// Name of the function it leads to.
    pub(crate) function: Arc<str>,
    /// Path at the upstream; the request's own unless given.
    target: Option<Template>,
    /// How responses are stored, if they are.
    pub(crate) cache: Option<CachePolicy>,
    /// What successful responses must look like.
    pub(crate) check: Option<Check>,
    /// What its connections may switch to, if they may.
    pub(crate) upgrade: Option<Upgrades>,
    /// What of its answers is compressed.
    pub(crate) compress: Option<Arc<CompressRules>>,
    /// How often each client may ask.
    pub(crate) limit: Option<Limit>,
    /// Names of the API keys that it asks for, if it says.
    pub(crate) keys: Option<Vec<String>>,
}

/// A path with gaps.
#[derive(Debug)]
struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Gap(String),
}

/// A value of a gap that would lead out of its place: `.` or `..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Escapes;

impl Routes {
    /// Reads routes; `base_dir` is the folder of the system file, where schemas are looked for.
    pub(crate) fn new(system: &config::SystemFile, base_dir: &Path) -> Result<Self, ServeError> {
        let mut router = Router::new();
        router.insert(FUNCTION_PATH, Destination::Named).expect("the first route fits");
        for described in &system.routes {
            let wrong = |what: String| ServeError::Route { path: described.path.clone(), what };
            let (function, target) = described.target();
            let target = target.map(Template::parse).transpose().map_err(wrong)?;
            if let Some(unknown) = target.as_ref().and_then(|to| to.unknown(&described.path)) {
                return Err(wrong(format!(
                    "`to` uses {{{unknown}}}, which its path does not have"
                )));
            }
            let cache = described.cache.clone().map(CachePolicy::checked);
            let own = described.check.as_ref().map(|check| (check, Side::Response));
            let output = system.function.get(function).filter(|function| function.passes_on());
            let output = output.and_then(|function| function.output.as_ref());
            let check = own.or_else(|| output.map(|check| (check, Side::Output)));
            let check = check.map(|(check, side)| Check::read(check, base_dir, side));
            let route = Route {
                pattern: described.path.as_str().into(),
                function: function.into(),
                target,
                cache: cache.transpose().map_err(|error| wrong(format!("cache: {error}")))?,
                check: check.transpose().map_err(wrong)?,
                upgrade: described.upgrade.as_ref().map(Upgrades::new),
                compress: described.compress.as_ref().and_then(Compress::rules).map(Arc::new),
                limit: described.limit.as_ref().map(|limit| Limit::new(limit, "route")),
                keys: described.keys.clone(),
            };
            router
                .insert(described.path.clone(), Destination::Route(Arc::new(route)))
                .map_err(|error| wrong(error.to_string()))?;
        }
        Ok(Self { router })
    }

    /// Where a path leads, with the values of its gaps.
    pub(crate) fn find<'s, 'p>(
        &'s self,
        path: &'p str,
    ) -> Option<(&'s Destination, Params<'s, 'p>)> {
        let found = self.router.at(path).ok()?;
        Some((found.value, found.params))
    }
}

impl Route {
    /// Path at the upstream for a request. Values stay encoded as they came.
    pub(crate) fn upstream_path(
        &self,
        path: &str,
        params: &Params<'_, '_>,
    ) -> Result<String, Escapes> {
        if params.iter().any(|(_, value)| value.split('/').any(is_dots)) {
            return Err(Escapes);
        }
        let Some(template) = &self.target else { return Ok(path.to_owned()) };
        let mut filled = String::with_capacity(path.len() + 32);
        for part in &template.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Gap(name) => filled.push_str(params.get(name).unwrap_or_default()),
            }
        }
        Ok(filled)
    }
}

/// Whether a segment is `.` or `..`, in any spelling.
fn is_dots(segment: &str) -> bool {
    let plain = segment.replace("%2e", ".").replace("%2E", ".");
    plain == "." || plain == ".."
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, behind)) = after.split_once('}') else {
                return Err(format!("`to` has a {{ without its }}: {text}"));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Gap(name.trim_start_matches('*').to_owned()));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts })
    }

    /// A gap that the pattern does not fill.
    fn unknown(&self, pattern: &str) -> Option<&str> {
        self.parts.iter().find_map(|part| match part {
            Part::Gap(name)
                if !pattern.contains(&format!("{{{name}}}"))
                    && !pattern.contains(&format!("{{*{name}}}")) =>
            {
                Some(name.as_str())
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(routes: &[(&str, &str)]) -> Result<Routes, ServeError> {
        let routes: Vec<_> = routes
            .iter()
            .map(|(path, to)| config::Route {
                path: (*path).to_owned(),
                to: (*to).to_owned(),
                cache: None,
                check: None,
                upgrade: None,
                compress: None,
                limit: None,
                keys: None,
            })
            .collect();
        let system = config::SystemFile { routes, ..config::SystemFile::default() };
        Routes::new(&system, Path::new("."))
    }

    fn upstream_path(routes: &Routes, path: &str) -> Option<Result<String, Escapes>> {
        match routes.find(path)? {
            (Destination::Named, _) => None,
            (Destination::Route(route), params) => Some(route.upstream_path(path, &params)),
        }
    }

    #[test]
    fn paths_are_filled_in_as_they_came() {
        let routes = routes(&[
            ("/restaurant/{id}", "r:/api/restaurant/{id}/menu"),
            ("/any/{*rest}", "r:/{rest}"),
            ("/own/{x}", "r"),
        ])
        .unwrap();
        let path = |path| upstream_path(&routes, path).unwrap().unwrap();
        assert_eq!(path("/restaurant/a%2Fb"), "/api/restaurant/a%2Fb/menu");
        assert_eq!(path("/any/a/b/c"), "/a/b/c");
        assert_eq!(path("/own/1"), "/own/1");
        assert!(routes.find("/nowhere").is_none());
        assert!(matches!(routes.find("/function/f"), Some((Destination::Named, _))));
    }

    #[test]
    fn dots_do_not_lead_out() {
        let routes =
            routes(&[("/r/{id}", "r:/api/{id}"), ("/any/{*rest}", "r:/a/{rest}")]).unwrap();
        for path in ["/r/..", "/r/.%2e", "/r/%2E%2e", "/r/.", "/any/x/../../y", "/any/x/%2e%2e/y"] {
            assert_eq!(upstream_path(&routes, path), Some(Err(Escapes)), "{path}");
        }
        assert_eq!(upstream_path(&routes, "/r/..."), Some(Ok("/api/...".to_owned())));
    }

    #[test]
    fn what_cannot_be_routed_is_refused_at_the_start() {
        let error = |list| routes(list).unwrap_err().to_string();
        let gap = error(&[("/r/{id}", "r:/api/{ident}")]);
        assert_eq!(gap, "route `/r/{id}`: `to` uses {ident}, which its path does not have");
        assert!(error(&[("/r/{id}", "r:/api/{id")]).contains("without its }"));
        assert!(error(&[("/r/{a}", "r"), ("/r/{b}", "r")]).contains("route `/r/{b}`"));
        assert!(error(&[("/function/{x}", "r")]).contains("route `/function/{x}`"));
    }
}
