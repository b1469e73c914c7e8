//! Who may use whom. ARCHITECTURE.md shows the same table to people.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::command::workspace;

/// What a crate does: nothing but decide, run in virtual time, live with clock and sockets, or put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pure,
    Virtual,
    Live,
    Top,
}

struct Room {
    name: &'static str,
    kind: Kind,
    /// Crates of the workspace that it may use besides `determinism`.
    uses: &'static [&'static str],
    /// Those that only its tests and examples may use, to prove that it works with them.
    meets: &'static [&'static str],
}

const ROOMS: [Room; 12] = [
    Room { name: "determinism", kind: Kind::Pure, uses: &[], meets: &[] },
    Room { name: "control", kind: Kind::Pure, uses: &[], meets: &[] },
    Room { name: "workload", kind: Kind::Pure, uses: &[], meets: &[] },
    Room { name: "record", kind: Kind::Pure, uses: &[], meets: &[] },
    Room { name: "protocol", kind: Kind::Pure, uses: &[], meets: &[] },
    Room { name: "sim", kind: Kind::Virtual, uses: &["control", "workload", "record"], meets: &[] },
    Room {
        name: "twin",
        kind: Kind::Virtual,
        uses: &["control", "workload", "record", "sim"],
        meets: &[],
    },
    Room { name: "serve", kind: Kind::Live, uses: &["control", "record", "protocol"], meets: &[] },
    Room { name: "worker", kind: Kind::Live, uses: &["protocol"], meets: &["control", "serve"] },
    Room { name: "bench", kind: Kind::Live, uses: &["workload", "record", "protocol"], meets: &[] },
    Room { name: "mock", kind: Kind::Live, uses: &["workload", "protocol", "sim"], meets: &[] },
    Room {
        name: "cli",
        kind: Kind::Top,
        uses: &[
            "control", "workload", "record", "protocol", "sim", "twin", "serve", "bench", "mock",
        ],
        meets: &[],
    },
];

/// What reaches for a clock, a socket or a thread, and so has no place below a live crate.
const LIVE_ONLY: [&str; 7] = ["tokio", "mio", "hyper", "hyper-util", "axum", "socket2", "rustix"];

const PREFIX: &str = "gatewright-";

/// The text that `cargo` prints about this workspace.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(workspace())
        .output()
        .expect("cargo starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {told}");
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// For each crate of the workspace, the crates of the workspace that its manifest names, and whether it is for tests
/// only.
fn uses() -> BTreeMap<String, BTreeSet<(String, bool)>> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata is JSON");
    let short = |package: &Value| {
        package["name"].as_str().and_then(|name| name.strip_prefix(PREFIX)).map(str::to_owned)
    };
    let packages = metadata["packages"].as_array().expect("there are packages");
    packages
        .iter()
        .map(|package| {
            let name = short(package).expect("every crate's name begins with gatewright-");
            let dependencies = package["dependencies"].as_array().expect("a list");
            let used =
                dependencies.iter().filter_map(|used| Some((short(used)?, used["kind"] == "dev")));
            (name, used.collect())
        })
        .collect()
}

fn room(name: &str) -> &'static Room {
    ROOMS.iter().find(|room| room.name == name).unwrap_or_else(|| {
        panic!("crate `{name}` has no place in the house: say in this table whom it may use")
    })
}

#[test]
fn a_crate_uses_only_those_below_it() {
    for (name, used) in uses() {
        let room = room(&name);
        for (other, for_tests) in used {
            let named = |names: &[&str]| names.contains(&other.as_str());
            let met = for_tests && named(room.meets);
            let allowed = other == "determinism" || named(room.uses) || met;
            assert!(allowed, "crate `{name}` must not use `{other}`");
        }
    }
}

#[test]
fn nothing_live_is_below_a_pure_or_virtual_crate() {
    for name in uses().into_keys() {
        if !matches!(room(&name).kind, Kind::Pure | Kind::Virtual) {
            continue;
        }
        let package = format!("{PREFIX}{name}");
        let tree =
            cargo(&["tree", "-p", &package, "-e", "normal", "--prefix", "none", "-f", "{p}"]);
        let crates: BTreeSet<_> =
            tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert!(crates.contains(package.as_str()), "the tree of `{name}` is not one: {tree}");
        for live in LIVE_ONLY {
            assert!(!crates.contains(live), "crate `{name}` must not depend on {live}");
        }
    }
}

#[test]
fn every_pure_crate_bans_clock_files_and_threads() {
    let bans = |name: &str| {
        let path = workspace().join("crates").join(name).join("clippy.toml");
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let model = bans("determinism");
    assert!(model.contains("std::time::Instant"), "the bans are not in determinism/clippy.toml");
    for name in uses().into_keys() {
        if room(&name).kind == Kind::Pure {
            assert!(bans(&name) == model, "crates/{name}/clippy.toml differs from determinism's");
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for name in uses().into_keys() {
        let path = workspace().join("crates").join(&name).join("Cargo.toml");
        let manifest = std::fs::read_to_string(path).expect("every crate has a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "crates/{name} has its own lints");
    }
}
