"""Simulations from Python: the same as by the command, and policies of one's own."""

import json

import pytest

import gatewright

SYSTEM = {
    "function": {
        "square": {
            "python": "models:Square",
            "replicas": {"min": 1, "max": 8},
            "concurrency": 1,
            "queue": {"capacity": 100000},
            "timeout": "1day",
        }
    }
}
MODEL = {"function": {"square": {"service": {"exponential": {"mean": 1.0}}, "start": {"fixed": 0.5}}}}
SCENARIO = {
    "system": SYSTEM,
    "model": MODEL,
    "seed": 7,
    "demand": [{"function": "square", "arrival": {"poisson": {"rate": 0.8}}, "requests": 200_000}],
}


def test_a_dict_is_simulated():
    result = gatewright.simulate(SCENARIO)
    assert (result.seed, result.summary["requests"], result.summary["statuses"]["ok"]) == (7, 200_000, 200_000)
    # M/M/1 at load 0.8: 5 seconds.
    assert result.summary["response_time"]["mean_ns"] / 1e9 == pytest.approx(5.0, rel=0.1)
    assert result.functions[0]["function"] == "square" and result.records is None
    assert result == gatewright.simulate(SCENARIO), "the same seed, the same numbers"
    assert result.summary != gatewright.simulate(SCENARIO, seed=8).summary


def test_files_are_read_from_the_folder_of_the_scenario(tmp_path):
    (tmp_path / "s.toml").write_text(
        'system = "g.toml"\nmodel = "m.toml"\n[[demand]]\nfunction = "f"\n'
        'arrival = { constant = { rate = 10 } }\nrequests = 100\n'
    )
    (tmp_path / "g.toml").write_text('[function.f]\npython = "m:C"\nreplicas = { min = 1 }\n')
    (tmp_path / "m.toml").write_text("[function.f]\nservice = { fixed = 0.5 }\n")
    result = gatewright.simulate(tmp_path / "s.toml")
    assert result.summary["requests"] == 100
    model = {"function": {"f": {"service": {"fixed": 0.01}}}}
    faster = gatewright.simulate(str(tmp_path / "s.toml"), model=model)
    assert faster.summary["response_time"]["max_ns"] == 10_000_000
    (tmp_path / "m.toml").unlink()
    with pytest.raises(OSError, match="m.toml"):
        gatewright.simulate(tmp_path / "s.toml")


def test_what_if():
    slow = gatewright.simulate(SCENARIO)
    fast = gatewright.simulate(SCENARIO, set={"function.square.replicas.min": 2})
    assert fast.summary["response_time"]["mean_ns"] < slow.summary["response_time"]["mean_ns"] / 2
    assert SCENARIO["system"] is SYSTEM, "what was given stays as it was"


def test_replications_are_runs_with_seeds_one_apart():
    result = gatewright.simulate(SCENARIO, seed=3, replications=3)
    assert result.replications == [gatewright.simulate(SCENARIO, seed=seed).summary for seed in (3, 4, 5)]
    assert result.summary["requests"] == 600_000


def test_records_are_columns():
    result = gatewright.simulate(SCENARIO, records=True)
    columns = result.records
    assert {len(column) for column in columns.values()} == {200_000}
    assert columns["function"][0] == "square" and columns["status"][0] == "ok" and columns["node"][0] is None
    times = [end - start for start, end in zip(columns["sent_ns"], columns["finished_ns"])]
    assert sum(times) / len(times) == pytest.approx(result.summary["response_time"]["mean_ns"])
    with pytest.raises(ValueError, match="replications"):
        gatewright.simulate(SCENARIO, records=True, replications=2)


def test_an_autoscaler_of_ones_own():
    seen = []

    def two(view):
        seen.append((view.now, view.ready, view.min, view.max))
        return 2

    result = gatewright.simulate(SCENARIO, autoscaler=two, interval=60.0)
    assert seen[0] == (60.0, 1, 1, 8) and seen[1][:2] == (120.0, 2)
    assert result.functions[0]["replicas_max"] == 2
    assert gatewright.simulate(SCENARIO, autoscaler={"square": lambda view: None}).functions[0]["replicas_max"] == 1


def test_a_class_has_an_instance_for_each_run():
    made = []

    class Counting:
        def __init__(self):
            made.append(self)
            self.asked = 0

        def __call__(self, view):
            self.asked += 1
            return None

    gatewright.simulate(SCENARIO, autoscaler=Counting, replications=3)
    assert len(made) == 3 and all(one.asked > 10 for one in made)


def test_a_balancer_of_ones_own():
    three = {"function.square.replicas.min": 3}
    last = gatewright.simulate(
        {**SCENARIO, "demand": [{**SCENARIO["demand"][0], "requests": 2_000}]},
        set=three,
        records=True,
        balancer=lambda free, key: len(free) - 1,
    )
    counts = [last.records["replica"].count(replica) for replica in range(3)]
    assert counts[2] > counts[1] > counts[0] > 0, counts


def test_an_error_in_a_policy_is_raised():
    def broken(view):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        gatewright.simulate(SCENARIO, autoscaler=broken)
    with pytest.raises(ValueError, match="chose 9 of 1"):
        gatewright.simulate(SCENARIO, balancer=lambda free, key: 9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": "one"}, "seed|integer|u64"),
        ({"demand": []}, "demand"),
        ({"model": {"function": {}}}, "has no model"),
        ({"seed": None}, "None, say"),
        ({"model": {"function": {"square": {"service": {"fixed": -1}}}}}, "fixed"),
    ],
)
def test_what_cannot_be_simulated_is_said(change, said):
    with pytest.raises(ValueError, match=said):
        gatewright.simulate({**SCENARIO, **change})
    with pytest.raises(ValueError, match="no demand leads"):
        gatewright.simulate(SCENARIO, autoscaler={"cube": lambda view: 1})


def test_results_can_be_written_as_json():
    assert json.dumps(gatewright.simulate(SCENARIO).summary)
