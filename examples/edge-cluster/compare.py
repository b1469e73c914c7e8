"""Two published comparisons in small, by `gatewright simulate`.

Placement in a city (Rausch, Rashed, Dustdar: "Optimized container scheduling for data-intensive serverless edge
computing", 2021) and keep-alive (Shahrad and others: "Serverless in the Wild", 2020).

usage: python compare.py [path of gatewright]
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = sys.argv[1] if len(sys.argv) > 1 else "gatewright"


def simulate(scenario: str, *settings: str) -> dict:
    """The result of a scenario with some keys of its system file set."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    command = [PROGRAM, "--quiet", "simulate", scenario, "--format", "json", *flags]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def placement() -> None:
    print("placement    p50      p95      pulled     energy of those at work")
    for policy in ["skippy", "kubernetes", "random", "bin_packing"]:
        result = simulate("city-scenario.toml", f"cluster.placement.policy={policy}")
        times = result["report"]["response_time"]
        used = [node for node in result["nodes"] if node["replicas_max"] > 0]
        pulled = sum(node["pulled"] for node in used) / 1e9
        energy = sum(node["joules"] for node in used) / 3600
        print(
            f"{policy:<12} {times['p50_ns'] / 1e9:6.2f} s {times['p95_ns'] / 1e9:6.2f} s"
            f" {pulled:6.1f} GB {energy:8.1f} Wh"
        )


def keep_alive() -> None:
    rules = {
        "none": '{ policy = "none" }',
        "fixed 10 min": '{ policy = "fixed", idle = "10m" }',
        "fixed 20 min": '{ policy = "fixed", idle = "20m" }',
        "fixed 60 min": '{ policy = "fixed", idle = "60m" }',
        "fixed 120 min": '{ policy = "fixed", idle = "120m" }',
        "hybrid 4 h": '{ policy = "hybrid_histogram" }',
    }
    names = ["timer", "report", "backup", "hook", "api"]
    print("keep-alive     cold:", " ".join(f"{name:>7}" for name in names), "  replica-hours")
    for name, rule in rules.items():
        settings = [f"function.{one}.keep_alive={rule}" for one in names]
        result = simulate("keep-alive-scenario.toml", *settings)
        cold = [100 * one["report"]["cold"] / one["report"]["requests"] for one in result["demands"]]
        hours = sum(one["replica_seconds"] for one in result["functions"]) / 3600
        shares = " ".join(f"{share:6.1f}%" for share in cold)
        print(f"{name:<14}      {shares}   {hours:8.1f}")


if __name__ == "__main__":
    placement()
    print()
    keep_alive()
