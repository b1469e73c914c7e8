"""Simulations from Python: the same as by the command, and policies of one's own."""

import json

import nanoarrow
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


# Two nodes and a function that starts from nothing.
CITY = {
    "system": {
        "function": {
            "f": {
                "python": "m:C",
                "replicas": {"min": 0, "max": 4},
                "concurrency": 1,
                "requests": {"cpu": 1, "memory": "100MiB"},
                "autoscale": {"policy": "per_request"},
            }
        },
        "cluster": {
            "nodes": [
                {"name": "big", "cpu": 8, "memory": "8GiB"},
                {"name": "small", "device": "nano", "cpu": 2, "memory": "1GiB", "labels": {"zone": "edge"}},
            ]
        },
    },
    "model": {"function": {"f": {"service": {"fixed": 0.5}, "start": {"fixed": 1.0}}}},
    "demand": [{"function": "f", "arrival": {"constant": {"rate": 0.1}}, "requests": 10}],
}


def test_a_scheduler_of_ones_own():
    seen = []

    def edge(want, node):
        seen.append((want, node))
        return 1.5 if node.labels.get("zone") == "edge" else 1.4

    result = gatewright.simulate(CITY, scheduler=edge, records=True)
    assert set(result.records["node"]) == {"small"}
    want, node = next(pair for pair in seen if pair[1].name == "small")
    assert (want.function, want.image, want.cpu, want.memory) == ("f", None, 1.0, 100 * 2**20)
    assert (node.device, node.cpu, node.free_cpu, node.memory) == ("nano", 2.0, 2.0, 2**30)
    assert (node.replicas, node.has_image, node.free_memory) == (0, False, 2**30)
    other = gatewright.simulate(CITY, scheduler=lambda want, node: node.cpu, records=True)
    assert set(other.records["node"]) == {"big"}
    with pytest.raises(ValueError, match="the system has none"):
        gatewright.simulate(SCENARIO, scheduler=edge)


def test_a_keep_alive_of_ones_own():
    def cold(keep_alive):
        return gatewright.simulate(CITY, keep_alive=keep_alive, records=True).records["cold"]

    assert cold(lambda: None) == [True] + [False] * 9, "for ever"
    assert cold(lambda: 1.0) == [True] * 10

    class Learns:
        """Starts one in time for the next request, once it has seen two."""

        def __init__(self):
            self.idle_times = []

        def arrived(self, idle):
            if idle is not None:
                self.idle_times.append(idle)

        def idle(self):
            if len(self.idle_times) < 2:
                return 0.5
            return 0.5, (self.idle_times[-1] - 2.0, 3.0)

    assert cold(Learns) == [True] * 3 + [False] * 7
    with pytest.raises(ValueError, match="-1 seconds"):
        cold(lambda: -1)
    with pytest.raises(TypeError):
        cold(lambda: "long")


def test_where_there_is_no_room_what_is_worth_least_goes():
    functions = {name: {**CITY["system"]["function"]["f"], "requests": {"cpu": 2}} for name in "abc"}
    arrival = {"constant": {"rate": 0.05}}
    packed = {
        "system": {"function": functions, "cluster": {"nodes": [{"name": "n", "cpu": 4, "memory": "8GiB"}]}},
        "model": {"function": {name: CITY["model"]["function"]["f"] for name in "abc"}},
        # One after another, in the order of their names, and the first two again.
        "demand": [{"function": name, "arrival": arrival, "requests": 2} for name in "abc"],
    }
    asked = []

    class Prefers:
        def __init__(self, worth):
            self.value = worth

        def idle(self):
            return None

        def worth(self, used, requests, start_seconds, memory):
            asked.append((used, requests, start_seconds))
            return self.value

    def cold(worths):
        policies = {name: Prefers(worth) for name, worth in worths.items()}
        records = gatewright.simulate(packed, keep_alive=policies, records=True).records
        later = [name for name, sent, cold in zip(records["function"], records["sent_ns"], records["cold"]) if sent and cold]
        return set(later)

    assert "a" not in cold({"a": 9, "b": 1, "c": 1}), "it never had to go"
    assert "b" not in cold({"a": 1, "b": 9, "c": 1})
    assert asked[0][1:] == (1, 1.0)


def test_a_service_of_ones_own():
    calls = []

    class Warms:
        """The first call of a replica takes longer."""

        def __init__(self):
            self.seen = set()

        def __call__(self, call):
            calls.append(call)
            first = call.replica not in self.seen
            self.seen.add(call.replica)
            return 2.0 if first else 0.25

    result = gatewright.simulate(CITY, service=Warms, keep_alive=lambda: None, records=True)
    spans = [end - start for start, end in zip(result.records["started_ns"], result.records["finished_ns"])]
    assert spans == [2_000_000_000] + [250_000_000] * 9
    assert [call.request for call in calls] == list(range(10))
    assert calls[0].cold and calls[0].in_flight == 1 and calls[0].attempt == 1 and calls[0].now == 1.0
    assert calls[0].node.name in ("big", "small") and len({call.seed for call in calls}) == 10
    again = list(calls)
    calls.clear()
    gatewright.simulate(CITY, service={"f": Warms}, keep_alive=lambda: None)
    assert [call.seed for call in calls] == [call.seed for call in again]
    with pytest.raises(ValueError, match="a service is NaN"):
        gatewright.simulate(CITY, service=lambda call: float("nan"))


def test_records_are_an_arrow_table():
    records = gatewright.simulate(CITY, records=True).records
    table = nanoarrow.ArrayStream(records).read_all()
    assert len(table) == records.rows == 10
    columns = {child.schema.name: child.to_pylist() for child in table.iter_children()}
    assert list(columns) == list(records)
    for name in records:
        if name not in ("function", "status", "route", "node", "reason", "cache"):
            assert columns[name] == records[name], name
    types = {field.name: field.type.name for field in table.schema.fields}
    assert (types["id"], types["cold"], types["node"]) == ("UINT64", "BOOL", "DICTIONARY")
    with pytest.raises(KeyError):
        records["nothing"]


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
