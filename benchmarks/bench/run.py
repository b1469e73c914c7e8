#!/usr/bin/env python3
"""The load engine beside wrk, against nginx on this machine; needs nginx, wrk, cargo and nothing else.

    benchmarks/bench/run.py [--rounds 3] [--seconds 4]

1. Closed loop: 64 connections, one thread, ours and wrk in turn, with the same header fields: nginx reads as much of
   either. Rate and processor time a request.
2. Open loop: 1,000 and 10,000 requests a second; how late they are sent.
3. Honesty: 1,000 requests a second for 5 s, the server frozen for 1 s in the middle. One request in five then
   waits between 0 and 1 s, so the true p90 is 0.5 s.

Prints the tables and writes them to RESULTS.md beside this file. "Other" is what everything else on the machine
used of its processors meanwhile (100 % is one of them): a quiet machine is below 10 %.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TICK = os.sysconf("SC_CLK_TCK")

NGINX = """
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ default_type text/plain; return 200 "a small body from a quick server\\n"; }}
    }}
}}
"""


class Nginx:
    """nginx with one worker on a free port, in a directory that is removed afterwards."""

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = pathlib.Path(self.directory.name, "nginx.conf")
        config.write_text(NGINX.format(directory=self.directory.name, port=self.port))
        command = ["nginx", "-p", self.directory.name, "-c", str(config)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{self.port}/"
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.05)
        else:
            sys.exit("nginx did not start; try `nginx -t` to see why")
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.worker = int(children[0])
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.directory.cleanup()

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.worker}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK


def machine_cpu():
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(field) for field in pathlib.Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICK


def measured(nginx, command, during=lambda: None):
    """Runs a command: what it printed, its processor time, and the load of everything else in per cent."""
    before, server_before, started = machine_cpu(), nginx.cpu(), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    during()
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # 4: the generator says that it was itself the limit, which the table shows.
    if process.returncode not in (0, 4):
        sys.exit(f"failed with {process.returncode}: {' '.join(command)}")
    elapsed = time.monotonic() - started
    cpu = usage.ru_utime + usage.ru_stime
    server = nginx.cpu() - server_before
    other = max(0.0, machine_cpu() - before - cpu - server) / elapsed * 100
    return output, cpu, server / elapsed * 100, other


def ours(nginx, strategy, seconds, threads=1, during=lambda: None):
    binary = ROOT / "target/release/gatewright"
    offer = {"concurrent": "--streams", "constant": "--rate"}
    kind, number = strategy.split("=")
    command = [str(binary), "--quiet", "bench", nginx.url, offer[kind], number, "--duration", f"{seconds}s"]
    command += ["--threads", str(threads), "--format", "json"]
    output, cpu, server, other = measured(nginx, command, during)
    outcome = json.loads(output)["steps"][0]["result"]
    requests = outcome["run"]["requests"]
    row = {"rate": outcome["run"]["achieved_rate"], "cpu_us": cpu * 1e6 / requests}
    return outcome | row | {"server": server, "other": other}


def wrk(nginx, seconds):
    fields = ["user-agent: gatewright-bench/0.1.0", "accept: */*", "x-request-id: bench-000000000000"]
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", *(word for field in fields for word in ("-H", field)), nginx.url]
    output, cpu, server, other = measured(nginx, command)
    requests = int(re.search(r"(\d+) requests in", output).group(1))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1))
    return {"rate": rate, "cpu_us": cpu * 1e6 / requests, "server": server, "other": other}


def closed_loop(nginx, rounds, seconds):
    lines = ["| round | ours req/s | wrk req/s | ratio | ours CPU us/req | wrk CPU us/req | ratio | nginx % | other % |"]
    lines += ["|---" * 9 + "|"]
    ratios, cpu_ratios = [], []
    for number in range(rounds * 2):
        mine, peer = ours(nginx, "concurrent=64", seconds), wrk(nginx, seconds)
        ratios.append(mine["rate"] / peer["rate"])
        cpu_ratios.append(mine["cpu_us"] / peer["cpu_us"])
        lines.append(
            f"| {number // 2 + 1}{'ab'[number % 2]} | {mine['rate']:,.0f} | {peer['rate']:,.0f} | {ratios[-1]:.2f} "
            f"| {mine['cpu_us']:.2f} | {peer['cpu_us']:.2f} | {cpu_ratios[-1]:.2f} "
            f"| {mine['server']:.0f}, {peer['server']:.0f} | {mine['other']:.0f}, {peer['other']:.0f} |"
        )
    rate, cpu = statistics.median(ratios), statistics.median(cpu_ratios)
    lines.append(f"| **median** | | | **{rate:.2f}** | | | **{cpu:.2f}** | | |")
    told = f"CPU a request {cpu:.2f} of wrk's (goal: at most 1), so {1 / cpu:.2f} of its rate for each core; rate {rate:.2f}"
    return lines, cpu <= 1, told


def micros(summary, name):
    value = summary[f"{name}_ns"]
    return "-" if value is None else f"{value / 1e3:,.0f}"


def open_loop(nginx, rounds, seconds):
    lines = ["| round | wanted/s | achieved/s | late p50 us | late p99 us | response p50 us | p99 us | p99.9 us | CPU us/req | other % | verdict |"]
    lines += ["|---" * 11 + "|"]
    half, nearly_all = [], []
    for number, rate in ((number, rate) for number in range(rounds) for rate in (1_000, 10_000)):
        outcome = ours(nginx, f"constant={rate}", seconds)
        late, response = outcome["run"]["lateness"], outcome["run"]["response_time"]
        half.append(late["p50_ns"] / 1e3)
        nearly_all.append(late["p99_ns"] / 1e3)
        verdict = outcome["verdict"] if isinstance(outcome["verdict"], str) else "generator-limited"
        lines.append(
            f"| {number + 1} | {rate:,} | {outcome['rate']:,.0f} | {micros(late, 'p50')} | {micros(late, 'p99')} "
            f"| {micros(response, 'p50')} | {micros(response, 'p99')} | {micros(response, 'p999')} "
            f"| {outcome['cpu_us']:.1f} | {outcome['other']:.0f} | {verdict} |"
        )
    p50, p99 = statistics.median(half), statistics.median(nearly_all)
    told = f"lateness p50 {p50:.0f} us, p99 {p99:.0f} us (goals on a quiet machine: 60 and 200), medians of the rounds"
    return lines, p50 <= 60 and p99 <= 200, told


def frozen(nginx, rounds):
    def freeze():
        time.sleep(2)
        os.kill(nginx.worker, signal.SIGSTOP)
        time.sleep(1)
        os.kill(nginx.worker, signal.SIGCONT)

    lines = ["| round | response p50 ms | p90 ms | p95 ms | p99 ms | connections | failed | verdict |", "|---" * 8 + "|"]
    off = []
    for number in range(rounds):
        outcome = ours(nginx, "constant=1000", 5, during=freeze)
        response, statuses = outcome["run"]["response_time"], outcome["run"]["statuses"]
        p50, p90, p95, p99 = (response[f"p{q}_ns"] / 1e6 for q in (50, 90, 95, 99))
        off.append(max(abs(p90 / 500 - 1), abs(p95 / 750 - 1), abs(p99 / 950 - 1)))
        verdict = outcome["verdict"] if isinstance(outcome["verdict"], str) else "generator-limited"
        lines.append(
            f"| {number + 1} | {p50:.2f} | {p90:.0f} | {p95:.0f} | {p99:.0f} | {outcome['connections_peak']} "
            f"| {outcome['run']['requests'] - statuses['ok']} | {verdict} |"
        )
    told = f"with the server frozen for 1 s, p90, p95 and p99 at most {max(off):.0%} from 0.5, 0.75 and 0.95 s (goal: 10 %)"
    return lines, max(off) <= 0.1, told


def version(command):
    output = subprocess.run(command, capture_output=True, text=True)
    return (output.stdout + output.stderr).splitlines()[0].split(" [")[0].strip()


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    for program in ("nginx", "wrk", "cargo"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed; this comparison needs it")
    build = ["cargo", "build", "--quiet", "--release", "--package", "gatewright-cli"]
    subprocess.run(build, cwd=ROOT, check=True)

    load = os.getloadavg()[0]
    with Nginx() as nginx:
        parts = [
            ("Closed loop, 64 connections, one thread", closed_loop(nginx, arguments.rounds, arguments.seconds)),
            ("Open loop, 1,000 and 10,000 requests a second", open_loop(nginx, arguments.rounds, arguments.seconds)),
            ("Server frozen for 1 s of 5 s at 1,000 requests a second", frozen(nginx, arguments.rounds)),
        ]
    text = ["# The load engine beside wrk", ""]
    text += [f"{datetime.date.today()}, {os.cpu_count()} processors ({processor()}), Linux {platform.release()}; "
             f"{version(['nginx', '-v'])}, one worker; {version(['wrk', '-v'])}; load average before: {load:.2f}. "
             "Made by `benchmarks/bench/run.py`.", ""]
    text += [f"- {'met' if good else '**not met**'}: {what}" for _, (_, good, what) in parts]
    for title, (lines, _, _) in parts:
        text += ["", f"## {title}", "", *lines]
    report = "\n".join(text) + "\n"
    print(report)
    results = HERE / "RESULTS.md"
    # What guidellm.py has written stays.
    _, mark, beside = results.read_text().partition("<!-- guidellm -->") if results.exists() else ("", "", "")
    results.write_text(report + (f"\n{mark}{beside}" if mark else ""))
    sys.exit(0 if all(good for _, (_, good, _) in parts) else 3)


if __name__ == "__main__":
    main()
