#!/usr/bin/env python3
"""The main job, end to end: serve, load, calibrate, predict a load that was not measured, then measure it.

    make demo

Two systems are rehearsed: `examples/square` (a Python class that takes 0.25 s, four worker processes) and
`examples/lunch` (a relay with a cache before a slow upstream). Each is loaded at two rates, a model is fitted on
the records, a third rate is simulated, and only then measured. Records, models, predictions and a summary stay in
the output folder.
"""

import argparse
import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Rehearsal:
    """A system, what is asked of it, the loads it is fitted on, and the load that is predicted."""

    name: str
    example: Path
    path: str
    demand: str
    body: str | None = None
    fit: tuple[float, ...] = ()
    fit_seconds: int = 20
    held_out: float = 0.0
    held_out_seconds: int = 30
    settings: list[str] = field(default_factory=list)
    upstream: list[str] = field(default_factory=list)


REHEARSALS = [
    Rehearsal(
        name="square",
        example=ROOT / "examples/square",
        path="/function/square",
        demand='function = "square"',
        body="3",
        fit=(6, 10),
        held_out=13,
    ),
    Rehearsal(
        name="lunch",
        example=ROOT / "examples/lunch",
        path="/restaurant",
        demand='route = "/restaurant"',
        fit=(50, 100),
        fit_seconds=15,
        held_out=200,
        held_out_seconds=12,
        # Short lives, nothing stale and a slow upstream, so that misses matter: a tenth of a second of waiting in
        # every 0.6 s.
        settings=["route.0.cache.ttl=500ms", "route.0.cache.stale_while_revalidate=0s"],
        upstream=["--latency", "0.1"],
    ),
]


class Demo:
    def __init__(self, binary: Path, out: Path) -> None:
        self.binary, self.out = binary, out
        out.mkdir(parents=True, exist_ok=True)

    def run(self, *arguments: str | Path) -> str:
        command = [str(self.binary), "--quiet", *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode not in (0, 4):
            sys.stderr.write(done.stderr)
            raise SystemExit(f"`{' '.join(command)}` ended with status {done.returncode}")
        if done.returncode == 4:
            print("  (the load generator says that it was itself the limit; see the file)", file=sys.stderr)
        return done.stdout

    def rehearse(self, job: Rehearsal) -> dict:
        heading(job.name)
        ports = Ports()
        settings = list(job.settings)
        upstream = None
        if job.upstream:
            port = free_port()
            script = [sys.executable, str(job.example / "upstream.py"), "--port", str(port), *job.upstream]
            upstream = subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(f"http://127.0.0.1:{port}/count")
            settings.append(f'function.menus.http="http://127.0.0.1:{port}"')
        try:
            return self.fit_predict_measure(job, ports, settings)
        finally:
            if upstream is not None:
                upstream.kill()
                upstream.wait()

    def fit_predict_measure(self, job: Rehearsal, ports: "Ports", settings: list[str]) -> dict:
        files: list[Path] = []
        for number, rate in enumerate(job.fit, start=1):
            say(f"measuring {rate:g} requests/s for {job.fit_seconds} s, to fit a model on")
            served = self.out / f"{job.name}-{rate:g}-served.jsonl"
            with self.serving(job, ports, settings, served):
                if job.name == "square" and number == 1:
                    self.ten_at_once(ports.url(job.path))
                seen = self.out / f"{job.name}-{rate:g}-seen.jsonl"
                self.bench(job, ports, rate, job.fit_seconds, number, seen)
            files += [served, seen]

        model = self.out / f"{job.name}.model.toml"
        self.run("calibrate", *files, "--output", model)
        say(f"model fitted: {relative(model)}")

        predicted = self.predict(job, model, settings, files)
        say(f"predicted {job.held_out:g} requests/s, which nobody has measured yet; now measuring it")
        served = self.out / f"{job.name}-{job.held_out:g}-served.jsonl"
        seen = self.out / f"{job.name}-{job.held_out:g}-seen.jsonl"
        with self.serving(job, ports, settings, served):
            measured = self.bench(job, ports, job.held_out, job.held_out_seconds, HELD_OUT_SEED, seen)
        return compare(job, predicted, measured)

    def predict(self, job: Rehearsal, model: Path, settings: list[str], records: list[Path]) -> dict:
        """The very arrivals that will be measured, and how far other arrivals and other samples would lead."""
        changes = "\n".join(f'"{key}" = {toml(value)}' for key, value in (s.split("=", 1) for s in settings))
        scenario = self.out / f"{job.name}.scenario.toml"
        scenario.write_text(
            f'system = "{os.path.relpath(job.example / "gatewright.toml", self.out)}"\n'
            f'model = "{model.name}"\nseed = {HELD_OUT_SEED}\n\n'
            f"[[demand]]\n{job.demand}\narrival = {{ poisson = {{ rate = {job.held_out:g} }} }}\n"
            f'duration = "{job.held_out_seconds}s"\n' + (f"\n[change]\n{changes}\n" if changes else "")
        )
        text = self.run("simulate", scenario, "--format", "json")
        (self.out / f"{job.name}-predicted.json").write_text(text)
        bands = self.out / f"{job.name}-bands.json"
        self.run("predict", scenario, *(f"--records={file}" for file in records), "--output", bands)
        return {**json.loads(text), "bands": json.loads(bands.read_text())["prediction"]}

    def bench(self, job: Rehearsal, ports: "Ports", rate: float, seconds: int, seed: int, records: Path) -> dict:
        body = ["--body", job.body] if job.body else []
        text = self.run(
            "bench", ports.url(job.path), "--strategy", "poisson", "--rate", f"{rate:g}", "--duration", f"{seconds}s",
            "--seed", str(seed), "--records", records, "--format", "json", *body,
        )
        (records.parent / f"{job.name}-{rate:g}-measured.json").write_text(text)
        return json.loads(text)

    def ten_at_once(self, url: str) -> None:
        """The experiment of gibbs' documentation: ideal 0.75 s, one process 2.5 s."""

        def call(_: int) -> bytes:
            request = urllib.request.Request(url, data=b"3", headers={"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read()

        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            start = time.perf_counter()
            answers = set(pool.map(call, range(10)))
            seconds = time.perf_counter() - start
        if answers != {b"9"}:
            raise SystemExit(f"wrong answers: {answers}")
        say(f"ten requests at once on four workers of 0.25 s each: {seconds:.3f} s (ideal 0.750, one process 2.5)")

    def serving(self, job: Rehearsal, ports: "Ports", settings: list[str], records: Path) -> "Serving":
        return Serving(self, job, ports, settings, records)


class Serving:
    """A gateway for the time of a `with`."""

    def __init__(self, demo: Demo, job: Rehearsal, ports: "Ports", settings: list[str], records: Path) -> None:
        flags = [f"gateway.listen=127.0.0.1:{ports.listen}", f"gateway.admin=127.0.0.1:{ports.admin}", *settings]
        self.command = [str(demo.binary), "serve", str(job.example / "gatewright.toml"), "--records", str(records)]
        for flag in flags:
            self.command += ["--set", flag]
        self.log = records.with_suffix(".log")
        self.functions = f"http://127.0.0.1:{ports.admin}/system/functions"

    def __enter__(self) -> None:
        environment = {"GATEWRIGHT_PYTHON": sys.executable, **os.environ}
        self.process = subprocess.Popen(self.command, env=environment, stdout=subprocess.DEVNULL, stderr=self.log.open("w"))
        wait_for(self.functions, self.process, self.log, all_running)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            raise SystemExit(f"the gateway did not stop well; see {relative(self.log)}")


class Ports:
    def __init__(self) -> None:
        self.listen, self.admin = free_port(), free_port()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.listen}{path}"


HELD_OUT_SEED = 9


def compare(job: Rehearsal, predicted: dict, measured: dict) -> dict:
    """Prediction beside measurement: response times as a user of an open system feels them, and throughput."""
    before, after, bands = predicted["report"], measured["steps"][0]["result"]["run"], predicted["bands"]
    rows = []
    for name in ("p50", "p95", "p99"):
        guess, truth = (report["response_time"][f"{name}_ns"] / 1e6 for report in (before, after))
        rows.append(Row(f"{name} ms", guess, truth, bands[name]["low"] * 1e3, bands[name]["high"] * 1e3))
    band = bands["throughput"]
    rows.append(Row("requests/s", before["achieved_rate"], after["achieved_rate"], band["low"], band["high"]))
    print(f"\n  {job.name + f' at {job.held_out:g} requests/s':<28}{'predicted':>10}{'measured':>11}{'signed error':>15}", end="")
    print("   9 in 10 runs with other luck")
    for row in rows:
        print(f"  {row.measure:<28}{row.predicted:>10.2f}{row.measured:>11.2f}{row.signed_error:>+15.1%}", end="")
        print(f"   {row.low:.2f} to {row.high:.2f}")
    return {"system": job.name, "rate": job.held_out, "rows": [{**asdict(row), "signed_error": row.signed_error} for row in rows]}


@dataclass
class Row:
    measure: str
    predicted: float
    measured: float
    low: float
    high: float

    @property
    def signed_error(self) -> float:
        return self.predicted / self.measured - 1


def summary(results: list[dict]) -> str:
    lines = [
        "# Prediction beside measurement",
        "",
        "Each system was simulated at a load that nobody had measured, with the arrivals that were then measured.",
        "The band is where nine in ten simulations with other arrivals and resampled models lie.",
        "",
    ]
    for result in results:
        lines += [f"## {result['system']} at {result['rate']:g} requests/s", ""]
        lines += ["| measure | predicted | measured | signed error | band |", "|---|---|---|---|---|"]
        lines += [
            f"| {row['measure']} | {row['predicted']:.2f} | {row['measured']:.2f} | {row['signed_error']:+.1%} "
            f"| {row['low']:.2f} to {row['high']:.2f} |"
            for row in result["rows"]
        ]
        lines.append("")
    return "\n".join(lines)


def all_running(answer: bytes) -> bool:
    """Whether every function has all its replicas, not just the first."""
    return all(function["availableReplicas"] == function["replicas"] for function in json.loads(answer))


def wait_for(
    url: str, process: subprocess.Popen | None = None, log: Path | None = None, enough: Callable[[bytes], bool] = bool
) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise SystemExit(f"the gateway ended with status {process.returncode}:\n{log.read_text() if log else ''}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200 and enough(answer.read()):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"{url} did not answer within 60 s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def toml(value: str) -> str:
    return value if value.startswith('"') else json.dumps(value)


def relative(path: Path) -> str:
    return os.path.relpath(path)


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gatewright", type=Path, required=True, help="the binary")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for everything that is made")
    parser.add_argument("--only", choices=[job.name for job in REHEARSALS], help="just one of the systems")
    options = parser.parse_args()
    started = time.monotonic()
    demo = Demo(options.gatewright.resolve(), options.out.resolve())
    results = [demo.rehearse(job) for job in REHEARSALS if options.only in (None, job.name)]
    (demo.out / "summary.json").write_text(json.dumps(results, indent=2) + "\n")
    (demo.out / "summary.md").write_text(summary(results))
    print(f"\nEverything is in {relative(demo.out)}/ ({time.monotonic() - started:.0f} s).")


if __name__ == "__main__":
    main()
