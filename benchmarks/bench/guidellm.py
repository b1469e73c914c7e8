#!/usr/bin/env python3
"""Our load generator beside guidellm: do they agree, and how fast is each?

    benchmarks/bench/guidellm.py --guidellm VENV/bin/guidellm [--binary target/release/gatewright]

Needs `pip install guidellm openai` in an environment of its own (several gigabytes), and curl.

1. Agreement: guidellm's mock server and ours, with the same settings, each loaded by both clients; time to first token,
   between tokens, latency. Goal: within 2 % or 1 ms.
2. Speed: our mock without delays, plain completions and streams, as many requests as each client makes in some seconds.
   Goals: 100 times and 20 times guidellm's rate.
3. Clients: our mock asked by the `openai` client and by curl, once by every API.

Prints the tables and puts them into RESULTS.md beside this file.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TTFT, ITL, TOKENS = 50, 10, 32
BEGIN, END = "<!-- guidellm -->", "<!-- /guidellm -->"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def server(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1800):
            if process.poll() is not None:
                sys.exit(f"ended early: {command}")
            try:
                urllib.request.urlopen(f"{url}/v1/models", timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def guidellm_mock(options):
    port = free_port()
    command = [options.guidellm, "mock-server", "--port", port, "--ttft-ms", TTFT, "--itl-ms", ITL, "--output-tokens", TOKENS]
    return server([str(word) for word in command], port)


def our_mock(options, ttft=TTFT, itl=ITL):
    port = free_port()
    command = [options.binary, "mock", "--listen", f"127.0.0.1:{port}"]
    command += ["--set", f"openai.ttft.fixed={ttft / 1e3}", "--set", f"openai.itl.fixed={itl / 1e3}"]
    return server([str(word) for word in command], port)


def by_guidellm(options, folder, url, profile, constraint, stream=True, route="/v1/chat/completions"):
    out = folder / "guidellm.json"
    out.unlink(missing_ok=True)
    command = [options.guidellm, "run", "--disable-console", "--profile", profile, "--constraint", constraint]
    command += ["--backend", f"kind=openai_http,target={url},model=llama-3.1-8b-instruct,request_format={route},stream={str(stream).lower()}"]
    command += ["--data", f"kind=json_file,path={folder / 'prompts.jsonl'}", "--output", f"kind=json,path={out}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True)
    if not out.exists():
        sys.exit(f"{done.stdout}\n{done.stderr}")
    benchmark = json.loads(out.read_text())["benchmarks"][0]
    metrics = benchmark["metrics"]

    def median(name):
        return metrics[name]["successful"]["percentiles"]["p50"]

    return {
        "ttft": median("time_to_first_token_ms"),
        "itl": metrics["inter_token_latency_ms"]["successful"]["mean"],
        "latency": median("request_latency") * 1e3,
        "rate": metrics["requests_per_second"]["successful"]["mean"],
    }


def by_us(options, folder, url, flags):
    out = folder / "ours.json"
    command = [options.binary, "--quiet", "bench", url, "--output", out, *flags]
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 4):
        sys.exit(f"{done.stdout}\n{done.stderr}")
    result = json.loads(out.read_text())["steps"][0]["result"]
    told = result["distributions"]

    def median(name):
        found = [q["value"] for q in (told.get(name) or {"quantiles": []})["quantiles"] if q["q"] == 0.5]
        return found[0] / 1e6 if found else None

    itl = told.get("itl")
    return {
        "ttft": median("ttft"),
        "itl": itl["mean"] / 1e6 if itl else None,
        "latency": median("response_time"),
        "rate": result["run"]["achieved_rate"],
        "valid": result["verdict"] == "valid",
    }


def agreement(options, folder):
    lines = ["| server | number | guidellm | gatewright | difference | within 2 % or 1 ms |", "|---|---|---|---|---|---|"]
    all_hold = True
    model = ["--openai", "chat", "--model", "llama-3.1-8b-instruct", "--prompt", "Tell me about the rivers of the world."]
    model += ["--max-tokens", TOKENS, "--exact-tokens", "--streams", 4, "--requests", 120, "--warmup", 8]
    for name, start in (("guidellm's mock", guidellm_mock), ("our mock", our_mock)):
        with start(options) as url:
            theirs = by_guidellm(options, folder, url, "kind=concurrent,streams=4", "kind=max_requests,count=120")
            ours = by_us(options, folder, url, model)
        for number, label in (("ttft", "first token p50, ms"), ("itl", "between tokens, mean, ms"), ("latency", "latency p50, ms")):
            before, after = theirs[number], ours[number]
            holds = abs(after - before) <= max(1.0, 0.02 * before)
            all_hold &= holds
            lines.append(f"| {name} | {label} | {before:.2f} | {after:.2f} | {after - before:+.2f} ({after / before - 1:+.1%}) | {'yes' if holds else '**no**'} |")
    return lines, all_hold


def speed(options, folder):
    lines = ["| what | guidellm req/s | gatewright req/s | ratio | goal |", "|---|---|---|---|---|"]
    seconds = options.seconds
    plain = ["--openai", "completions", "--no-stream", "--model", "m", "--prompt", "Hello", "--max-tokens", 8]
    stream = ["--openai", "chat", "--model", "m", "--prompt", "Hello", "--max-tokens", 8]
    cases = (("plain completions, 8 tokens", plain, "/v1/completions", False, 100), ("chat as a stream, 8 tokens", stream, "/v1/chat/completions", True, 20))
    for name, flags, route, is_stream, goal in cases:
        with our_mock(options, 0, 0) as url:
            theirs = by_guidellm(options, folder, url, "kind=throughput,max_concurrency=64", f"kind=max_duration,seconds={seconds}", is_stream, route)
            ours = by_us(options, folder, url, [*flags, "--max-concurrency", 64, "--duration", f"{seconds}s", "--threads", 1])
        ratio = ours["rate"] / theirs["rate"]
        lines.append(f"| {name} | {theirs['rate']:,.0f} | {ours['rate']:,.0f} | {ratio:.0f}x | {goal}x |")
    return lines


OPENAI = """
import sys
import openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none")
model = client.models.list().data[0].id
ask = [{"role": "user", "content": "Tell me about rivers."}]
whole = client.chat.completions.create(model=model, messages=ask, max_tokens=8)
assert whole.choices[0].message.content and whole.usage.completion_tokens == 8, whole
stream = client.chat.completions.create(model=model, messages=ask, max_tokens=8, stream=True, stream_options={"include_usage": True})
chunks = list(stream)
assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) == 8, chunks
assert chunks[-1].usage.completion_tokens == 8, chunks[-1]
assert client.completions.create(model=model, prompt="Hi", max_tokens=4).choices[0].text
assert len(client.embeddings.create(model=model, input=["a", "b"]).data) == 2
assert client.responses.create(model=model, input="Hi", max_output_tokens=16).output_text
events = [event.type for event in client.responses.create(model=model, input="Hi", max_output_tokens=16, stream=True)]
assert events[0] == "response.created" and events[-1] == "response.incomplete", events
tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
called = client.chat.completions.create(model=model, messages=ask, tools=[tool], tool_choice="required")
assert called.choices[0].message.tool_calls[0].function.name == "weather", called
print(f"openai {openai.__version__}")
"""


def clients(options):
    lines = ["| client | what | works |", "|---|---|---|"]
    with our_mock(options, 0.001, 0.001) as url:
        python = options.guidellm.parent / "python"
        asked = subprocess.run([python, "-c", OPENAI, url], capture_output=True, text=True)
        told = asked.stdout.strip() if asked.returncode == 0 else asked.stderr.strip().splitlines()[-1]
        what = "models, chat (whole, stream, tool call), completions, embeddings, responses (whole, stream)"
        lines.append(f"| `openai` ({told}) | {what} | {'yes' if asked.returncode == 0 else '**no**'} |")
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "stream": True})
        curl = ["curl", "-sN", f"{url}/v1/chat/completions", "-H", "content-type: application/json", "-d", body]
        asked = subprocess.run(curl, capture_output=True, text=True).stdout
        lines.append(f"| curl | chat as a stream | {'yes' if asked.rstrip().endswith('data: [DONE]') else '**no**'} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guidellm", required=True, type=pathlib.Path)
    parser.add_argument("--binary", default=ROOT / "target/release/gatewright", type=pathlib.Path)
    parser.add_argument("--seconds", default=8, type=int)
    options = parser.parse_args()
    options.guidellm, options.binary = options.guidellm.absolute(), options.binary.absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with (folder / "prompts.jsonl").open("w") as rows:
            for number in range(60_000):
                text = f"{number} tell me about the rivers of the world"
                rows.write(json.dumps({"prompt": text, "output_tokens_count": TOKENS}) + "\n")
        agreed, holds = agreement(options, folder)
        asked = clients(options)
        fast = speed(options, folder)
    version = subprocess.run([options.guidellm, "--version"], capture_output=True, text=True).stdout.strip()
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    lines = [BEGIN, "## Beside guidellm", "", f"`benchmarks/bench/guidellm.py`, {time.strftime('%Y-%m-%d')}, {version}, {os.cpu_count()} processors, load average {load}.", ""]
    lines += ["Four streams, 32 tokens, first token after 50 ms, 10 ms between tokens:", "", *agreed, "", "Without delays, one thread of ours:", "", *fast, "", "Our mock server, asked by others:", "", *asked, END]
    text = "\n".join(lines)
    print(text)
    results = HERE / "RESULTS.md"
    old = results.read_text()
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.S)
    results.write_text(pattern.sub(lambda _: text, old) if BEGIN in old else f"{old.rstrip()}\n\n{text}\n")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
