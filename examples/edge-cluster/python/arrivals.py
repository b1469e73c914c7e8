"""faas-sim's `request_gen`: how requests arrive.

Every arrival of `gatewright bench` is one here: the same schedule, request by request.
"""

import gatewright
from city import requests

ARRIVALS = {
    "constant": {"constant": {"rate": 5}},
    "exponential": {"poisson": {"rate": 5}},
    "sine": {"sine": {"rate": 5, "amplitude": 4, "period": "4m"}},
    "random walk": {"random_walk": {"rate": 5, "deviation": 1, "every": "10s", "min": 1, "max": 12}},
    "ramp": {"ramp": {"from": 1, "to": 9, "over": "4m"}},
}

for name, arrival in ARRIVALS.items():
    result = gatewright.simulate(requests(arrival, duration="4m"), records=True)
    minutes = [0] * 4
    for sent in result.records["sent_ns"]:
        minutes[min(sent // 60_000_000_000, 3)] += 1
    print(f"{name:<12} {' '.join(f'{count:5}' for count in minutes)} requests in each minute")
