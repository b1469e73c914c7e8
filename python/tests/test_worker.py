"""Worker processes on real sockets."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from gatewright import protocol


def test_hello_says_who_it_is_and_shows_the_token(start):
    worker = start("models:Echo", "--name", "echo-1", "--window", "3")
    expected = [protocol.HELLO, protocol.VERSION, "echo-1", worker.process.pid, 3, "secret", None, socket.gethostname()]
    hello = worker.receive()
    assert hello[:8] == expected
    labels, cpus, memory = hello[8:]
    assert labels == {} and cpus == os.cpu_count() and memory > 1 << 20


def test_the_token_is_kept_from_user_code(start):
    worker = start("models:Token")
    worker.begin()
    assert worker.call() == [protocol.RESPONSE, 1, None]


def test_arguments_reach_constructor_and_call(start):
    worker = start("models:Echo")
    assert worker.begin(1, "a", key=[2]) == [protocol.READY]
    answer = worker.call(3, b"\xff", name={"x": None})
    assert answer == [protocol.RESPONSE, 1, [[[1, "a"], {"key": [2]}], [3, b"\xff"], {"name": {"x": None}}]]


def test_integers_keep_their_value_however_long(start):
    worker = start("models:Square")
    worker.begin()
    for x in (3, 10**10, -(10**30), 2**64):
        assert worker.call(x) == [protocol.RESPONSE, 1, x**2]


@pytest.mark.parametrize(
    ("what", "kind"),
    [("object", "TypeError"), ("half character", "UnicodeEncodeError"), ("deep", "ValueError")]
    + [("digits", "OverflowError"), ("exit", "SystemExit")],
)
def test_a_result_that_cannot_be_sent_is_an_error_and_the_worker_lives(start, what, kind):
    worker = start("models:Odd")
    worker.begin()
    assert worker.call(what)[:3] == [protocol.ERROR, 1, kind]
    assert worker.call("fine") == [protocol.RESPONSE, 1, {"fine": True}]


def test_dataclasses_dates_and_keys_that_are_no_strings_are_sent(start):
    worker = start("models:Odd")
    worker.begin()
    assert worker.call("keys")[2] == {1: "a", None: "b"}
    assert worker.call("dataclass")[2] == {"x": 1, "when": "2026-01-02"}


def test_values_that_json_has_not_become_what_it_has(start):
    pytest.importorskip("numpy")
    worker = start("models:Rich")
    assert worker.begin() == [protocol.READY]
    assert worker.call()[2] == {
        "tuple": [1, [2]],
        "set": [3],
        "array": [[0, 1], [2, 3]],
        "scalar": 0.5,
        "moment": "2026-01-02T03:04:05+00:00",
        "time": "01:02:00",
        "span": 90.0,
        "decimal": "1.10",
        "uuid": "00000000-0000-0000-0000-000000000007",
        "enum": "red",
    }


def test_an_exception_is_an_error_with_its_traceback(start):
    worker = start("models:Square")
    worker.begin()
    number, kind, message, trace, retryable = worker.call("x")[1:]
    assert (number, kind, retryable) == (1, "TypeError", False)
    assert "unsupported operand" in message
    assert "return x**2" in trace
    assert worker.call(2) == [protocol.RESPONSE, 1, 4]
    assert worker.call(y=1)[2] == "TypeError"


def test_an_exception_may_say_that_it_is_worth_another_attempt(start):
    worker = start("models:Odd")
    worker.begin()
    answer = worker.call("retryable")
    assert (answer[2], answer[3], answer[5]) == ("RuntimeError", "busy \\ud800", True)


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("nomodel:Square", "ModuleNotFoundError", "there is no module `nomodel`"),
        ("models:Sqare", "AttributeError", "module `models` has no class `Sqare`, but `Square`"),
        ("models", "ValueError", "`models` is not of the form module:Class"),
        ("models:NeedsFile", "OSError", "no weights in w.bin"),
        ("models:double", "TypeError", "`models:double` is not a class, so it takes no constructor arguments"),
    ],
)
def test_what_cannot_be_constructed_is_an_init_error(start, target, kind, message):
    worker = start(target)
    answer = worker.begin("w.bin")
    assert answer[:2] == [protocol.INIT_ERROR, kind]
    assert message in answer[2]
    assert worker.exit_status() == 1


def test_an_object_that_cannot_be_called_is_an_init_error(start):
    answer = start("models:NotCallable").begin()
    assert answer[0] == protocol.INIT_ERROR
    assert "no method `__call__`" in answer[2]


def test_a_function_is_served_as_it_is(start):
    worker = start("models:double")
    worker.begin()
    assert worker.call(4) == [protocol.RESPONSE, 1, 8]


def test_coroutines_are_awaited(start):
    worker = start("models:Later")
    worker.begin()
    assert worker.call(4) == [protocol.RESPONSE, 1, 5]


def test_a_generator_comes_in_chunks(start):
    worker = start("models:Tokens")
    worker.begin()
    worker.request(9, 2)
    frames = [worker.receive() for _ in range(5)]
    assert frames[:4] == [[protocol.CHUNK, 9, piece] for piece in ("t0 ", "t1 ", b"\x00", '{"n": 1}\n')]
    assert frames[4] == [protocol.RESPONSE, 9, None]


def test_pings_are_answered_during_a_long_call(start):
    worker = start("models:Sleeper")
    worker.begin()
    worker.request(1, 1.5)
    worker.send(protocol.PING, 7)
    assert worker.receive() == [protocol.PONG, 7]
    worker.send(protocol.PING, 8)
    assert worker.receive() == [protocol.PONG, 8]
    assert worker.receive() == [protocol.RESPONSE, 1, 1.5]
    worker.send(protocol.PING, 9)
    assert worker.receive() == [protocol.PONG, 9]


def test_requests_that_come_during_a_long_call_are_answered_in_their_order(start):
    worker = start("models:Sleeper")
    worker.begin()
    for number, seconds in enumerate([0.5, 0, 0.3, 0]):
        worker.request(number, seconds)
        time.sleep(0.15)
    answers = [worker.receive() for _ in range(4)]
    assert [answer[1] for answer in answers] == [0, 1, 2, 3]


def test_a_cancelled_request_is_not_begun(start):
    worker = start("models:Sleeper")
    worker.begin()
    worker.request(1, 0.5)
    worker.request(2, 1000)
    worker.send(protocol.CANCEL, 2)
    worker.send(protocol.CANCEL, 77)
    assert worker.receive() == [protocol.RESPONSE, 1, 0.5]
    assert worker.receive()[:3] == [protocol.ERROR, 2, "Cancelled"]


def test_a_wider_window_runs_calls_side_by_side(start):
    worker = start("models:Meeting", "--window", "2")
    worker.begin()
    worker.request(1)
    worker.request(2)
    assert sorted([worker.receive(), worker.receive()]) == [[protocol.RESPONSE, n, "met"] for n in (1, 2)]


def test_answers_that_wait_for_others_are_not_held_by_a_long_call(start):
    worker = start("models:Unwatched", "--ahead", "100")
    worker.begin()
    time.sleep(0.3)  # the thread that watches begins a look that takes an hour
    encode = worker.encoder.encode
    frames = [encode(protocol.REQUEST, number, None, 1, [0], {}) for number in range(50)]
    worker.socket.sendall(b"".join(frames) + encode(protocol.REQUEST, 50, None, 1, [1000], {}))
    assert [worker.receive() for _ in range(50)] == [[protocol.RESPONSE, number, 0] for number in range(50)]


def test_answers_are_not_held_by_a_long_call_after_another_one(start):
    worker = start("models:Sleeper", "--ahead", "100")
    worker.begin()
    worker.request(0, 0.5)
    time.sleep(0.3)  # the other thread reads meanwhile, also what comes now
    encode = worker.encoder.encode
    frames = [encode(protocol.REQUEST, number, None, 1, [0], {}) for number in range(1, 50)]
    worker.socket.sendall(b"".join(frames) + encode(protocol.REQUEST, 50, None, 1, [1000], {}))
    assert worker.receive() == [protocol.RESPONSE, 0, 0.5]
    assert [worker.receive() for _ in range(49)] == [[protocol.RESPONSE, number, 0] for number in range(1, 50)]


def test_labels_are_told(start):
    worker = start("models:Echo", "--label", "zone=a", "--label", "gpu=")
    assert worker.receive()[8] == {"zone": "a", "gpu": ""}


@pytest.mark.parametrize("how", ["signal", "frame"])
@pytest.mark.parametrize("pause", [0, 0.4])
def test_draining_finishes_what_was_taken(start, how, pause):
    worker = start("models:Sleeper")
    worker.begin()
    worker.request(1, 1.2)
    worker.request(2, 0)
    time.sleep(0.2 + pause)
    if how == "signal":
        worker.process.send_signal(signal.SIGTERM)
        assert worker.receive() == [protocol.DRAIN], "it asks for no more"
    else:
        worker.send(protocol.DRAIN)
    assert worker.receive() == [protocol.RESPONSE, 1, 1.2]
    assert worker.receive() == [protocol.RESPONSE, 2, 0]
    if how == "signal":
        worker.send(protocol.DRAIN)
    assert worker.receive() == [protocol.BYE, "done"]
    assert worker.exit_status() == 0


def test_an_idle_worker_drains_at_once(start):
    worker = start("models:Sleeper")
    worker.begin()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.receive() == [protocol.DRAIN]
    worker.send(protocol.DRAIN)
    assert worker.receive() == [protocol.BYE, "done"]
    assert worker.exit_status() == 0


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_ends_when_its_gateway_is_gone(start, busy):
    worker = start("models:Sleeper")
    worker.begin()
    if busy:
        worker.request(1, 1000)
        time.sleep(0.1)
    worker.socket.close()
    worker.exit_status()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_worker_ends_with_the_process_that_started_it(start, tmp_path):
    # A parent that starts a worker which nobody ever answers, and is killed.
    script = textwrap.dedent(
        """
        import os, socket, subprocess, sys, time
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(sys.argv[1])
        listener.listen()
        child = subprocess.Popen([sys.executable, "-m", "gatewright.worker", "--class", "models:Echo",
            "--connect", "unix:" + sys.argv[1], "--parent", str(os.getpid())])
        listener.accept()
        print(child.pid, flush=True)
        time.sleep(1000)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "parent.sock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(worker)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_frames_may_come_in_any_pieces(start):
    worker = start("models:Echo")
    worker.begin()
    for byte in worker.encoder.encode(protocol.REQUEST, 1, 5000, 1, ["x" * 300], {}):
        worker.socket.sendall(bytes([byte]))
    assert worker.receive()[2][1] == ["x" * 300]


def test_large_values_go_both_ways(start):
    worker = start("models:Echo")
    worker.begin()
    large = os.urandom(5_000_000)
    assert worker.call(large)[2][1] == [large]
    assert worker.call(1)[2][1] == [1]


def test_a_result_above_the_gateways_limit_is_an_error(start):
    worker = start("models:Echo")
    worker.begin(max_frame=1000)
    answer = worker.call("x" * 2000)
    assert answer[:3] == [protocol.ERROR, 1, "ValueError"]
    assert "too long" in answer[3]
    assert worker.call("x")[0] == protocol.RESPONSE


@pytest.mark.parametrize("garbage", [b"\x01\0\0\0\xc1", b"\xff\xff\xff\xff", b"\x02\0\0\0\x91\x63"])
def test_garbage_ends_the_worker_with_a_reason(start, garbage):
    worker = start("models:Echo")
    worker.begin()
    worker.socket.sendall(garbage)
    assert worker.exit_status() == 1
    assert "gatewright worker: " in worker.process.stderr.read()


def test_garbage_during_a_call_ends_the_worker_too(start):
    worker = start("models:Sleeper")
    worker.begin()
    worker.request(1, 1000)
    worker.socket.sendall(b"\x02\0\0\0\x91\x63")
    assert worker.exit_status() == 1


def test_a_refused_worker_says_why(start):
    worker = start("models:Echo")
    worker.receive()
    worker.send(protocol.BYE, "wrong token")
    assert worker.exit_status() == 1
    assert "refused this worker: wrong token" in worker.process.stderr.read()


def test_setup_health_teardown_and_the_request_in_hand(start, tmp_path):
    log = tmp_path / "log"
    worker = start("models:Careful")
    assert worker.begin(str(log)) == [protocol.READY]
    worker.send(protocol.PING, 5)
    assert worker.receive() == [protocol.PONG, 5]
    assert worker.call() == [protocol.RESPONSE, 1, [1, 1, True, False]]
    worker.send(protocol.DRAIN)
    assert worker.receive() == [protocol.BYE, "done"]
    assert worker.exit_status() == 0
    assert log.read_text().split() == ["setup", "health", "teardown"]


def test_who_is_not_well_says_so_and_ends(start, tmp_path):
    worker = start("models:Careful")
    worker.begin(str(tmp_path / "log"), well=False)
    worker.send(protocol.PING, 5)
    assert worker.receive() == [protocol.PONG, 5]
    assert worker.receive() == [protocol.BYE, "not healthy: health() returned False"]
    assert worker.exit_status() == 1


def test_an_asynchronous_generator_comes_in_chunks(start):
    worker = start("models:AsyncTokens")
    worker.begin()
    worker.request(4, 2)
    frames = [worker.receive() for _ in range(3)]
    assert frames == [[protocol.CHUNK, 4, "a0"], [protocol.CHUNK, 4, "a1"], [protocol.RESPONSE, 4, None]]


def test_a_coroutine_is_cancelled_with_its_request(start):
    worker = start("models:LongAsync")
    worker.begin()
    worker.request(6)
    time.sleep(0.3)
    worker.send(protocol.CANCEL, 6)
    assert worker.receive()[:3] == [protocol.ERROR, 6, "asyncio.exceptions.CancelledError"]


def test_a_batch_is_one_call_and_each_request_has_its_answer(start):
    worker = start("models:Lists", "--batch", "2")
    assert worker.begin() == [protocol.READY]
    worker.send(protocol.BATCH, 2)
    worker.request(1, "a")
    worker.request(2, x=3)
    assert [worker.receive() for _ in range(2)] == [
        [protocol.RESPONSE, 1, [2, "a"]],
        [protocol.RESPONSE, 2, [2, {"x": 3}]],
    ]
    worker.send(protocol.BATCH, 2)
    worker.request(3, "object")
    worker.request(4, 1, 2)
    answers = sorted(worker.receive()[:3] for _ in range(2))
    assert answers == [[protocol.ERROR, 3, "TypeError"], [protocol.ERROR, 4, "TypeError"]]
    worker.send(protocol.BATCH, 2)
    worker.request(5, "short")
    worker.request(6, "short")
    for number in (5, 6):
        assert worker.receive()[1:4] == [number, "ValueError", "a batch of 2 requests was answered with 1 results"]
    worker.send(protocol.BATCH, 1)
    worker.request(7, "still there")
    assert worker.receive() == [protocol.RESPONSE, 7, [1, "still there"]]
