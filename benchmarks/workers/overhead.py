#!/usr/bin/env python3
"""Calls a second between a Rust hub and one worker, without HTTP: the time of a call alone, and calls in a window.

    cargo build --release -p gatewright-worker --example speed && pip install ./python
    python3 benchmarks/workers/overhead.py

One no-op worker over TCP on this machine, in pure Python and in Rust (the latter in the hub's own process). The runs
take turns, so that what else the machine does hits all alike. The table has the median and the best run: on a machine
that others use too, the best one is nearer to what the program can do.

Prints a table and writes it to SOCKET.md beside this file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPEED = HERE.parent.parent / "target/release/examples/speed"
#: Window of the worker, callers at a time.
LOADS = ((1, 1), (16, 16), (16, 64))
NOOP = "class Noop:\n    def __call__(self, x):\n        return x\n"


def run(language, window, callers, seconds, folder):
    command = [SPEED, "--window", window, "--callers", callers, "--seconds", seconds]
    if language == "Python":
        worker = [sys.executable, "-m", "gatewright.worker", "noop:Noop", "--hub", "{hub}", "--function", "hub"]
        command += ["--", *worker, "--ahead", window]
    out = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=120)
    if out.returncode:
        raise SystemExit(f"{SPEED} failed:\n{out.stderr}")
    return json.loads(out.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    if not SPEED.exists():
        raise SystemExit("build it first: cargo build --release -p gatewright-worker --example speed")
    results = {(language, load): [] for load in LOADS for language in ("Python", "Rust")}
    loads = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "noop.py").write_text(NOOP)
        for _ in range(options.rounds):
            for language, load in results:
                results[language, load].append(run(language, *load, options.seconds, folder))
            loads.append(os.getloadavg()[0])
            print(f"{len(loads)} of {options.rounds} done, load {loads[-1]:.1f}", file=sys.stderr)
    lines = [
        "| worker | window | callers | calls/s, median | best | p50 µs, median | best | p99 µs, median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (language, (window, callers)), runs in results.items():
        rate, p50, p99 = ([one[key] for one in runs] for key in ("rate", "p50", "p99"))
        lines.append(
            f"| {language} | {window} | {callers} | {statistics.median(rate):,.0f} | {max(rate):,.0f} "
            f"| {statistics.median(p50):,.1f} | {min(p50):,.1f} | {statistics.median(p99):,.1f} |"
        )
    table = "\n".join(lines)
    print(table)
    noise = f"{os.cpu_count()} cores, load average {min(loads):.1f} to {max(loads):.1f} while it ran"
    heading = f"{options.rounds} runs of {options.seconds:g} s each, {noise}, Python {sys.version.split()[0]}."
    (HERE / "SOCKET.md").write_text(f"# One worker at a Rust hub, over TCP without HTTP\n\n{heading}\n\n{table}\n")


if __name__ == "__main__":
    main()
