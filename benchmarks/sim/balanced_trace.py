#!/usr/bin/env python3
"""Writes a trace in the format of Azure Functions 2019 from which DSLab's `faas-benchmark --preset balanced` makes the
scenario of crates/sim/examples/balanced.rs: 800 equal functions, of which it takes 30, with the same times and sizes.

usage: balanced_trace.py FOLDER
"""

import csv
import math
import pathlib
import sys
from statistics import NormalDist

FUNCTIONS = 800
MINUTES = 1440
# 30 functions with 20 requests a minute each are 10 requests a second.
A_MINUTE = 20
MEGABYTES = 170
# Log-normal with a mean of one second and a coefficient of variation of 1; in milliseconds.
SIGMA = math.sqrt(math.log(2))
MU = math.log(1000) - SIGMA**2 / 2
PERCENTS = [0, 1, 25, 50, 75, 99, 100]


def quantile(percent: float) -> float:
    """The quantile; the first and the last of ten thousand draws for 0 % and 100 %."""
    share = min(max(percent / 100, 1e-4), 1 - 1e-4)
    return math.exp(MU + SIGMA * NormalDist().inv_cdf(share))


def write(path: pathlib.Path, head: list[str], row: list[object]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(head)
        for number in range(FUNCTIONS):
            table.writerow([*(f"{kind}{number:03}" for kind in "oaf"), *row])


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    who = ["HashOwner", "HashApp", "HashFunction"]
    minutes = [str(minute + 1) for minute in range(MINUTES)]
    write(
        folder / "invocations_per_function_md.anon.d01.csv",
        [*who, "Trigger", *minutes],
        ["http", *[A_MINUTE] * MINUTES],
    )
    times = [f"{quantile(percent):.3f}" for percent in PERCENTS]
    write(
        folder / "function_durations_percentiles.anon.d01.csv",
        [*who, "Average", "Count", "Minimum", "Maximum", *(f"percentile_Average_{p}" for p in PERCENTS)],
        [1000, A_MINUTE * MINUTES, times[0], times[-1], *times],
    )
    write(
        folder / "app_memory_percentiles.anon.d01.csv",
        [*who, "SampleCount", "AverageAllocatedMb", "AverageAllocatedMb_pct100"],
        [A_MINUTE * MINUTES, MEGABYTES, MEGABYTES],
    )


if __name__ == "__main__":
    main()
