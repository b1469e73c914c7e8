"""faas-sim's `custom_scheduler`: who says which node a replica goes to.

A scheduler gives each node that can hold the replica a score; the highest takes it. This one wants a GPU, and spreads.
"""

import gatewright
from city import SCENARIO


def gpus_first(want, node):
    return (10 if node.device in ("tx2", "nx", "nano") else 0) - node.replicas


for name, policy in (("skippy", None), ("gpus first", gpus_first)):
    result = gatewright.simulate(SCENARIO, scheduler=policy, records=True)
    nodes = {name for name in result.records["node"] if name}
    kinds = sorted({name.rpartition("-")[0] for name in nodes})
    p95 = result.summary["response_time"]["p95_ns"] / 1e9
    print(f"{name}: 95 % within {p95:.2f} s, on {len(nodes)} nodes ({', '.join(kinds)})")
