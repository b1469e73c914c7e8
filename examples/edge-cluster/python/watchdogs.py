"""faas-sim's `watchdogs`: a process that takes several requests at a time, and one process for each request.

OpenFaaS' HTTP watchdog keeps its program (`workers`: so many work at a time), its forking one starts it for each request
(`fork`: what that takes).
"""

import gatewright

system = {"function": {"f": {"python": "models:F", "concurrency": 4, "replicas": {"min": 1}, "timeout": "1h"}}}
demand = [{"function": "f", "arrival": {"poisson": {"rate": 6}}, "duration": "10m"}]
service = {"exponential": {"mean": 0.25}}
MODELS = {
    "http, 4 workers": {"service": service, "workers": 4},
    "http, 2 workers": {"service": service, "workers": 2},
    "forking": {"service": service, "fork": {"log_normal": {"mean": 0.12, "cv": 0.3}}},
}

for name, model in MODELS.items():
    result = gatewright.simulate({"system": system, "model": {"function": {"f": model}}, "seed": 1, "demand": demand})
    times = result.summary["response_time"]
    print(f"{name:<16} p50 {times['p50_ns'] / 1e9:.3f} s, p95 {times['p95_ns'] / 1e9:.3f} s")
