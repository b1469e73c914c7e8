"""faas-sim's `basic`: deploy a function in a city, send requests, look at what became of them."""

import gatewright
from city import SCENARIO, SPREAD, by

result = gatewright.simulate(SCENARIO, set=SPREAD, records=True)
print(f"{result.summary['requests']} requests, {result.summary['statuses']['ok']} answered")
times = by(result.records, "node")
for node in result.nodes:
    if node["replicas_max"] > 0:
        own = times.get(node["node"], [0.0])
        print(f"{node['node']}: {len(own)} requests, {sum(own) / len(own):.3f} s on average, pulled {node['pulled'] / 1e6:.0f} MB")
