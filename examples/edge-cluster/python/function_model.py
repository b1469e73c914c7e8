"""faas-sim's `custom_function_sim`: what a call of the function takes, as a program.

A model is asked when a request begins to be served. This one depends on the device, has a slow first call in each replica
(a cache fills), and luck of its own.
"""

import random

import gatewright
from city import SCENARIO, SPREAD, by

SECONDS = {"rpi3": 2.0, "tx2": 0.4, "nuc": 0.2}


class Classifier:
    def __init__(self):
        self.warm = set()

    def __call__(self, call):
        first = call.replica not in self.warm
        self.warm.add(call.replica)
        seconds = SECONDS.get(call.node.device, 0.1) * random.Random(call.seed).uniform(0.9, 1.1)
        return seconds + (3.0 if first else 0.0)


result = gatewright.simulate(SCENARIO, set=SPREAD, service=Classifier, records=True)
for node, times in sorted(by(result.records, "node").items()):
    print(f"{node}: {len(times)} requests, the quickest {min(times):.2f} s, the slowest {max(times):.2f} s")
