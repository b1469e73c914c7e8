"""faas-sim's `analysis`: records as a table.

`result.records` is an Arrow table to pandas, polars, DuckDB and pyarrow, and a mapping from names to lists to all others.
For the fourteen data frames of faas-sim see `gatewright simulate --frames`.
"""

import gatewright
from city import SCENARIO, SPREAD

records = gatewright.simulate(SCENARIO, set=SPREAD, records=True).records
try:
    import polars

    table = polars.DataFrame(records)
    seconds = (polars.col("finished_ns") - polars.col("sent_ns")) / 1e9
    by_node = table.group_by(polars.col("node").cast(str)).agg(seconds.mean().alias("mean"), polars.len().alias("requests"))
    rows = by_node.sort("node").rows()
except ImportError:
    nodes = {}
    for node, sent, finished in zip(records["node"], records["sent_ns"], records["finished_ns"]):
        nodes.setdefault(node, []).append((finished - sent) / 1e9)
    rows = [(node, sum(times) / len(times), len(times)) for node, times in sorted(nodes.items())]

print("node            mean, s  requests")
for node, mean, requests in rows:
    print(f"{node:<15} {mean:7.3f}  {requests:8}")
