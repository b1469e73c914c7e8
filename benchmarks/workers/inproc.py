#!/usr/bin/env python3
"""Calls a second of `hub.request` from asyncio, no HTTP: Gatewright beside gibbs, in one run.

    pip install ./python && python3 benchmarks/workers/inproc.py

Two no-op workers, and 1, 16 and 64 callers that each make one call after another. The systems take turns (ours,
theirs, ours with a window, ours ...) in processes of their own, so that what else the machine does hits all alike;
the ratio is the median of the pairs. gibbs is installed from PyPI into a folder of its own under the system's
temporary directory, and run with its `popitem` fault mended (a waiter re-checks that there is a worker), else it
fails as soon as there are two callers.

Prints a table and writes it to INPROC.md beside this file.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = Path(tempfile.gettempdir()) / "gatewright-bench-workers"
CALLERS = (1, 16, 64)
SYSTEMS = ("gatewright", "gibbs", "gatewright window=16")


class Noop:
    def __call__(self, *args, **kwargs):
        return 1


def gibbs_parts(port):
    import gibbs.hub
    from gibbs import Hub, Worker

    async def get_next_worker(self):
        async with self.w_access:
            while True:
                while not self.w_ts:
                    await self.w_access.wait()
                address, stamp = self.w_ts.popitem()
                if time.time() - stamp < self.heartbeat_t:
                    return address

    gibbs.hub.WorkerManager.get_next_worker = get_next_worker
    return Hub(port=port), [Worker(Noop, gibbs_port=port) for _ in range(2)]


def gatewright_parts(port, window):
    from gatewright import Hub, Worker

    return Hub(port=port, window=window), [Worker(Noop, port=port) for _ in range(2)]


async def measure(hub, callers, seconds):
    """Calls a second, and the median of their times in microseconds."""
    # Until both workers are there and warm.
    for _ in range(20):
        await asyncio.gather(*(hub.request(1) for _ in range(4)))
    await asyncio.sleep(1.2)
    await asyncio.gather(*(hub.request(1) for _ in range(200)))
    times = []
    start = time.perf_counter()
    end = start + seconds

    async def call():
        before = time.perf_counter()
        while before < end:
            await hub.request(1)
            after = time.perf_counter()
            times.append(after - before)
            before = after

    await asyncio.gather(*(call() for _ in range(callers)))
    took = time.perf_counter() - start
    times.sort()
    return {"rate": len(times) / took, "p50": times[len(times) // 2] * 1e6, "p99": times[len(times) * 99 // 100] * 1e6}


def side(system, callers, seconds):
    """One measurement, in this process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parts = gibbs_parts(port) if system == "gibbs" else gatewright_parts(port, 16 if "window" in system else 1)
    hub, workers = parts
    for worker in workers:
        worker.start()
    try:
        print(json.dumps(asyncio.run(measure(hub, callers, seconds))), flush=True)
    finally:
        for worker in workers:
            worker.kill()
        os._exit(0)


def run_side(system, callers, seconds):
    python = str(PEERS / "bin/python") if system == "gibbs" else sys.executable
    command = [python, __file__, "--side", system, "--callers", str(callers), "--seconds", str(seconds)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60 + seconds * 5)
    if not out.stdout:
        raise SystemExit(f"{system} failed:\n{out.stderr}")
    return json.loads(out.stdout)


def install_gibbs():
    if subprocess.run([str(PEERS / "bin/python"), "-c", "import gibbs"], capture_output=True).returncode:
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        subprocess.run([str(PEERS / "bin/pip"), "install", "--quiet", "gibbs"], check=True)


def table(results):
    lines = ["| callers | system | calls/s | p50, µs | p99, µs | times gibbs |", "|---|---|---|---|---|---|"]
    for callers in CALLERS:
        theirs = results[callers, "gibbs"]
        for system in SYSTEMS:
            ours = results[callers, system]
            middle = {key: statistics.median(one[key] for one in ours) for key in ours[0]}
            ratio = statistics.median(a["rate"] / b["rate"] for a, b in zip(ours, theirs))
            lines.append(
                f"| {callers} | {system} | {middle['rate']:,.0f} | {middle['p50']:,.0f} | {middle['p99']:,.0f} | {ratio:.1f} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--side", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--callers", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        return side(options.side, options.callers, options.seconds)
    try:
        import gatewright.hub  # noqa: F401
    except ImportError:
        raise SystemExit("gatewright is not installed here: pip install ./python") from None
    install_gibbs()
    results = {(callers, system): [] for callers in CALLERS for system in SYSTEMS}
    for number in range(options.pairs):
        for callers in CALLERS:
            for system in SYSTEMS:
                results[callers, system].append(run_side(system, callers, options.seconds))
        print(f"{number + 1} of {options.pairs} done, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    text = table(results)
    print(text)
    heading = f"Median of {options.pairs} runs of {options.seconds:g} s, {os.cpu_count()} cores, Python {sys.version.split()[0]}."
    (HERE / "INPROC.md").write_text(f"# `hub.request` from asyncio, two no-op workers\n\n{heading}\n\n{text}\n")


if __name__ == "__main__":
    main()
