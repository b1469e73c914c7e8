#!/usr/bin/env python3
"""No-op Python workers behind HTTP: Gatewright beside mosec and gibbs, in one run.

    make build venv && python3 benchmarks/workers/run.py

Needs `wrk` (Debian: apt-get install wrk). The peers are installed from PyPI into a folder of their own under
the system's temporary directory. Each system serves a function that does nothing on two worker processes; `wrk`
loads them in turn (ours, peer, ours, peer ...), so that what else the machine does hits all of them alike. gibbs is
run with its `popitem` fault mended (a waiter re-checks that there is a worker), else half of its answers are errors.

Prints a table and writes it to RESULTS.md beside this file.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = Path(tempfile.gettempdir()) / "gatewright-bench-workers"
CONNECTIONS = (1, 16, 64)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class System:
    """A server under test: how it is started, where it answers, and what its processes cost."""

    name = ""
    path = "/"

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def start(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            self.command(),
            cwd=folder,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{self.name}.log").open("w"),
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
                connection.request("POST", self.path, body="1", headers={"Content-Type": "application/json"})
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise SystemExit(f"{self.name} did not answer within 60 s; see its log in {folder}")

    def stop(self) -> None:
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """Everything in the server's process group and session."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[3]) == self.process.pid:
                    found.append(int(entry.name))
        return found

    def rss_mib(self) -> float:
        total = 0
        for pid in self.processes():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            match = re.search(r"VmRSS:\s+(\d+)", status)
            total += int(match.group(1)) if match else 0
        return total / 1024

    def cpu_seconds(self) -> float:
        ticks = 0
        for pid in self.processes():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Gatewright(System):
    name = "gatewright"
    path = "/function/noop"

    def __init__(self, binary: Path, python: Path) -> None:
        super().__init__()
        self.binary, self.python = binary, python

    def command(self) -> list[str]:
        return [
            str(self.binary), "serve", "gatewright.toml",
            "--set", f"gateway.listen=127.0.0.1:{self.port}",
            "--set", f"gateway.admin=127.0.0.1:{free_port()}",
        ]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "GATEWRIGHT_PYTHON": str(self.python)}


class Mosec(System):
    name = "mosec"
    path = "/inference"

    def command(self) -> list[str]:
        return [
            str(PEERS / "bin/python"), "mosec_app.py", "--port", str(self.port),
            "--address", "127.0.0.1", "--log-level", "error",
        ]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{PEERS / 'bin'}:{os.environ['PATH']}"}


class Gibbs(System):
    name = "gibbs (mended)"
    path = "/"

    def __init__(self) -> None:
        super().__init__()
        self.hub_port = free_port()

    def command(self) -> list[str]:
        return [str(PEERS / "bin/python"), "gibbs_app.py", str(self.port), str(self.hub_port)]


FILES = {
    "models.py": "class Noop:\n    def __call__(self, *args, **kwargs):\n        return 1\n",
    "gatewright.toml": (
        '[function.noop]\npython = "models:Noop"\nreplicas = { min = 2, max = 2 }\n'
        "queue = { capacity = 10000 }\n"
    ),
    "mosec_app.py": """
from mosec import Server, Worker


class Noop(Worker):
    def forward(self, data):
        return 1


if __name__ == "__main__":
    server = Server()
    server.append_worker(Noop, num=2)
    server.run()
""",
    "gibbs_app.py": """
import sys
import time

import gibbs.hub
import uvicorn
from fastapi import FastAPI
from gibbs import Hub, Worker


class Noop:
    def __call__(self, *args, **kwargs):
        return 1


async def get_next_worker(self):
    async with self.w_access:
        while True:
            while not self.w_ts:
                await self.w_access.wait()
            address, stamp = self.w_ts.popitem()
            if time.time() - stamp < self.heartbeat_t:
                return address


gibbs.hub.WorkerManager.get_next_worker = get_next_worker

if __name__ == "__main__":
    port, hub_port = int(sys.argv[1]), int(sys.argv[2])
    for _ in range(2):
        Worker(Noop, gibbs_port=hub_port).start()
    app = FastAPI()
    hub = Hub(port=hub_port)

    @app.post("/")
    async def call():
        return await hub.request(1)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")
""",
    "post.lua": 'wrk.method = "POST"\nwrk.body = "1"\nwrk.headers["Content-Type"] = "application/json"\n',
}


def load(system: System, connections: int, seconds: int, folder: Path) -> dict[str, float]:
    cpu = system.cpu_seconds()
    out = subprocess.run(
        [
            "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(folder / "post.lua"),
            f"http://127.0.0.1:{system.port}{system.path}",
        ],
        capture_output=True, text=True, check=True,
    ).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    return {
        "rate": rate,
        "p50": milliseconds(re.search(r"^\s+50%\s+(\S+)", out, re.MULTILINE).group(1)),
        "p99": milliseconds(re.search(r"^\s+99%\s+(\S+)", out, re.MULTILINE).group(1)),
        "errors": int(errors.group(1)) if errors else 0,
        "cpu_us": (system.cpu_seconds() - cpu) / requests * 1e6,
        "rss": system.rss_mib(),
    }


def milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def install_peers() -> None:
    if not (PEERS / ".made").exists():
        print("installing mosec and gibbs ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        packages = ["mosec", "gibbs", "fastapi", "uvicorn", "uvloop", "httptools"]
        subprocess.run([str(PEERS / "bin/pip"), "install", "--quiet", *packages], check=True)
        (PEERS / ".made").touch()


def table(results: dict[str, dict[int, list[dict[str, float]]]], rounds: int, seconds: int) -> str:
    lines = [
        f"No-op function, two worker processes, `wrk -t1`, median of {rounds} rounds of {seconds} s, taken in turn.",
        "",
        "| system | connections | requests/s | ratio of ours to it | p50 ms | p99 ms | CPU µs/request | errors | RSS MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, by_connections in results.items():
        for connections, runs in by_connections.items():
            median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            ours = results["gatewright"][connections]
            ratio = statistics.median(a["rate"] / b["rate"] for a, b in zip(ours, runs, strict=True))
            lines.append(
                f"| {name} | {connections} | {median['rate']:,.0f} | {ratio:.2f} | {median['p50']:.3f} "
                f"| {median['p99']:.2f} | {median['cpu_us']:.0f} | {median['errors']:.0f} | {median['rss']:.0f} |"
            )
    load_average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines += ["", f"{os.cpu_count()} cores; load average at the end {load_average}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/gatewright")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv/bin/python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", help="names of systems, separated by commas")
    options = parser.parse_args()
    for need, hint in ((options.binary, "run `make build`"), (options.python, "run `make venv`")):
        if not need.exists():
            raise SystemExit(f"{need} is missing: {hint}")
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    install_peers()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, text in FILES.items():
            (folder / name).write_text(text)
        systems = [Gatewright(options.binary.resolve(), options.python.absolute()), Mosec(), Gibbs()]
        if options.only:
            systems = [system for system in systems if system.name in options.only.split(",")]
        results: dict = {system.name: {c: [] for c in CONNECTIONS} for system in systems}
        for round_number in range(options.rounds):
            for system in systems:
                system.port = free_port()
                system.start(folder)
                try:
                    for connections in CONNECTIONS:
                        run = load(system, connections, options.seconds, folder)
                        results[system.name][connections].append(run)
                        print(f"round {round_number + 1}: {system.name} c={connections} {json.dumps(run)}", file=sys.stderr)
                finally:
                    system.stop()
        text = table(results, options.rounds, options.seconds)
        print(text)
        if not options.only:
            (HERE / "RESULTS.md").write_text("# Workers: the last result\n\n" + text)


if __name__ == "__main__":
    main()
