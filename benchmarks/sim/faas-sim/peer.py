"""The scenario beside this file as a benchmark of faas-sim: requests at a constant rate to five replicas on its urban
sensing topology, half a second each, no limit of how many at a time, resources looked at every second.

usage: peer.py REQUESTS    prints the requests and the seconds on a core that they took
"""

import collections
import collections.abc
import sys
import time

# ether is older than Python 3.10.
collections.Iterable = collections.abc.Iterable

import ether.scenarios.urbansensing as urban_sensing
from sim.benchmark import Benchmark
from sim.core import Environment
from sim.docker import ImageProperties
from sim.faas import (
    Function,
    FunctionContainer,
    FunctionDeployment,
    FunctionImage,
    FunctionRequest,
    FunctionSimulator,
    ScalingConfiguration,
    SimulatorFactory,
)
from sim.faassim import Simulation
from sim.topology import Topology
from skippy.core.utils import parse_size_string

RATE, REPLICAS, SERVICE = 100, 5, 0.5


class Work(FunctionSimulator):
    def invoke(self, env, replica, request):
        yield env.timeout(SERVICE)


class Factory(SimulatorFactory):
    def create(self, env, fn):
        return Work()


class Constant(Benchmark):
    def __init__(self, requests):
        self.requests = requests
        self.spent = 0.0

    def setup(self, env: Environment):
        for arch in ("arm32", "x86", "aarch64"):
            env.container_registry.put(ImageProperties("work", parse_size_string("58M"), arch=arch))

    def run(self, env: Environment):
        image = FunctionImage(image="work")
        scaling = ScalingConfiguration()
        scaling.scale_min = REPLICAS
        deployment = FunctionDeployment(Function("work", fn_images=[image]), [FunctionContainer(image)], scaling)
        yield from env.faas.deploy(deployment)
        while len(env.faas.get_replicas("work", running())) < REPLICAS:
            yield env.timeout(1)
        begin = time.process_time()
        requests = []
        for _ in range(self.requests):
            requests.append(env.process(env.faas.invoke(FunctionRequest("work"))))
            yield env.timeout(1 / RATE)
        for request in requests:
            yield request
        self.spent = time.process_time() - begin


def running():
    from sim.faas import FunctionState

    return FunctionState.RUNNING


def main():
    topology = Topology()
    urban_sensing.UrbanSensingScenario().materialize(topology)
    topology.init_docker_registry()
    benchmark = Constant(int(sys.argv[1]))
    simulation = Simulation(topology, benchmark)
    simulation.create_simulator_factory = Factory
    simulation.run()
    print(benchmark.requests, benchmark.spent)


if __name__ == "__main__":
    main()
