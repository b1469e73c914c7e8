"""The city that the examples share: a classifier on Raspberry Pis, Jetsons, NUCs and servers."""

from pathlib import Path

FOLDER = Path(__file__).parent.parent
SCENARIO = FOLDER / "city-scenario.toml"
# As Kubernetes places them: on several nodes.
SPREAD = {"cluster.placement.policy": "kubernetes"}


def requests(arrival, **limits):
    """A scenario in this city with a demand of its own; replicas are there from the start."""
    return {
        "system": str(FOLDER / "city.toml"),
        "model": str(FOLDER / "city.model.toml"),
        "seed": 1,
        "demand": [{"function": "classify", "arrival": arrival, **limits}],
    }


def by(records, column):
    """Response times in seconds by what stands in a column."""
    times = {}
    for key, sent, finished in zip(records[column], records["sent_ns"], records["finished_ns"]):
        times.setdefault(key, []).append((finished - sent) / 1e9)
    return times
