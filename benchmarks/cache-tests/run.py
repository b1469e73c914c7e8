#!/usr/bin/env python3
"""Runs the public suite http-tests/cache-tests against the relay.

Without --suite it installs npm's package `http-cache-tests`, an older cut of the suite, into a temporary folder.
With the path of a checkout of the newer suite (with its dependencies installed) it runs that. It needs node 18 or
newer and a built gateway. Exit status 1 if fewer tests pass than --required and --optimal say.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONFIG = """\
[gateway]
listen = "127.0.0.1:{front}"
admin = "127.0.0.1:{admin}"

[function.origin]
http = "http://127.0.0.1:{back}"
timeout = "20s"

[[route]]
path = "/"
to = "origin"
cache = {policy}

[[route]]
path = "/{{*path}}"
to = "origin"
cache = {policy}
"""
POLICY = '{ stale_if_error = "1h" }'


def main():
    arguments = read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        suite = Path(arguments.suite).resolve() if arguments.suite else installed(folder)
        results = run(suite, arguments.gatewright.resolve(), folder, arguments)
        if arguments.id:
            return 0
        graded = json.loads(output(["node", HERE / "grade.mjs", suite, results]))
    failing = report(graded, arguments.suite is not None, arguments.write)
    passed = {kind: total["passed"] for kind, total in graded["totals"].items()}
    short = passed["required"] < arguments.required or passed["optimal"] < arguments.optimal
    return 1 if short or failing else 0


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", help="a checkout of the newer suite")
    parser.add_argument("--gatewright", type=Path, default=HERE / "../../target/release/gatewright")
    parser.add_argument("--required", type=int, default=150, help="required tests that must pass")
    parser.add_argument("--optimal", type=int, default=75, help="optimal tests that must pass")
    parser.add_argument("--policy", default=POLICY, help="cache policy of the route, as TOML")
    parser.add_argument("--id", help="run this one test and show what went to and fro")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md")
    return parser.parse_args()


def installed(folder):
    print("installing http-cache-tests", file=sys.stderr)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder]
    subprocess.run([*command, "http-cache-tests"], check=True, stdout=sys.stderr)
    return folder / "node_modules/http-cache-tests"


def run(suite, gatewright, folder, arguments):
    """Runs the origin, the gateway and the tests; the path of the results."""
    engine = suite / "test-engine" if (suite / "test-engine").is_dir() else suite
    front, admin, back = free_ports(3)
    (folder / "gatewright.toml").write_text(
        CONFIG.format(front=front, admin=admin, back=back, policy=arguments.policy)
    )
    settings = {
        "npm_config_protocol": "http",
        "npm_config_port": str(back),
        "npm_config_pidfile": str(folder / "origin.pid"),
        "npm_config_base": f"http://127.0.0.1:{front}",
        "npm_config_id": arguments.id or "",
        "npm_package_config_id": "",
    }
    environment = os.environ | settings
    servers = []
    with open(folder / "log", "w") as log:
        try:
            origin = ["node", "--require", HERE / "loopback.cjs", engine / "server/server.mjs"]
            gateway = [gatewright, "serve", folder / "gatewright.toml"]
            for command, port in [(origin, back), (gateway, front)]:
                servers.append(
                    subprocess.Popen(command, cwd=suite, env=environment, stdout=log, stderr=log)
                )
                wait_for(port)
            tests = ["node", "--no-warnings", engine / "cli.mjs"]
            if arguments.id:
                subprocess.run(tests, cwd=suite, env=environment, check=True)
                return None
            results = folder / "results.json"
            results.write_text(json_of(output(tests, cwd=suite, env=environment)))
            return results
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait()


def json_of(text):
    """The last JSON object of what the suite prints: some versions say more before it."""
    return text[text.index("\n{") if not text.startswith("{") else 0 :]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def output(command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def report(graded, newer, write):
    """Prints totals and what did not pass; the failing ids that nobody has explained."""
    known = tomllib.loads((HERE / "explained.toml").read_text())
    cut = "checkout of the newer suite" if newer else "npm package http-cache-tests"
    lines = [f"## {cut}, {time.strftime('%Y-%m-%d')}", ""]
    for kind, total in graded["totals"].items():
        lines.append(f"- {kind}: {total['passed']} of {total['of']}")
    unexplained = []
    for kind in ("required", "optimal"):
        lines += ["", f"### {kind} tests that do not pass", ""]
        for test in graded["missed"]:
            if test["kind"] != kind:
                continue
            why = known.get(test["id"])
            if why is None:
                unexplained.append(test["id"])
                said = test["said"]
                why = f"not explained yet; the suite says: {said[1] if isinstance(said, list) else said}"
            lines.append(f"- `{test['id']}` ({test['name']}): {why}")
    checks = [test["id"] for test in graded["missed"] if test["kind"] == "check"]
    lines += ["", "### behaviours that the relay does not show (neither right nor wrong)", "", ", ".join(checks), ""]
    text = "\n".join(lines)
    print(text)
    if write:
        write_part(text, cut)
    return unexplained


def write_part(text, cut):
    """Puts the results of this cut of the suite in place of its last ones."""
    path = HERE / "RESULTS.md"
    old = path.read_text() if path.exists() else "# The relay and http-tests/cache-tests\n"
    head, *parts = old.split("\n## ")
    parts = [part for part in parts if not part.startswith(cut)] + [text.removeprefix("## ")]
    path.write_text("\n## ".join([head.rstrip() + "\n", *(part.rstrip() + "\n" for part in sorted(parts))]))


if __name__ == "__main__":
    sys.exit(main())
