"""A stand-in for the gateway: a socket, and worker processes that connect to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from gatewright import protocol
from gatewright.protocol import Decoder, Encoder

HERE = Path(__file__).parent


class Peer:
    """One worker process, seen from the gateway."""

    def __init__(self, process: subprocess.Popen, sock: socket.socket) -> None:
        self.process = process
        self.socket = sock
        self.encoder = Encoder()
        self.decoder = Decoder()

    def send(self, *fields: Any) -> None:
        self.socket.sendall(self.encoder.encode(*fields))

    def receive(self) -> Optional[list]:
        while True:
            frame = self.decoder.next_frame()
            if frame is not None:
                return frame
            count = self.socket.recv_into(self.decoder.space())
            if count == 0:
                return None
            self.decoder.received(count)

    def begin(self, *args: Any, max_frame: int = protocol.MAX_FRAME, **kwargs: Any) -> list:
        """From hello to ready, or to whatever comes instead."""
        assert self.receive()[0] == protocol.HELLO
        self.send(protocol.INIT, max_frame, args, kwargs)
        return self.receive()

    def request(self, number: int, *args: Any, **kwargs: Any) -> None:
        self.send(protocol.REQUEST, number, None, 1, args, kwargs)

    def call(self, *args: Any, **kwargs: Any) -> list:
        self.request(1, *args, **kwargs)
        return self.receive()

    def exit_status(self) -> int:
        return self.process.wait(timeout=20)


@pytest.fixture
def start(tmp_path):
    """Starts a worker that serves a class of ``models.py`` and waits for its connection."""
    peers = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "hub.sock"))
    listener.listen()
    listener.settimeout(20)

    def start(target: str, *options: str) -> Peer:
        address = f"unix:{tmp_path / 'hub.sock'}"
        command = [sys.executable, "-m", "gatewright.worker", "--connect", address, "--class", target]
        command += ["--path", str(HERE), *options]
        environment = {**os.environ, "GATEWRIGHT_WORKER_TOKEN": "secret"}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        sock, _ = listener.accept()
        sock.settimeout(20)
        peers.append(Peer(process, sock))
        return peers[-1]

    yield start
    for peer in peers:
        peer.socket.close()
        peer.process.kill()
        peer.process.wait()
        peer.process.stderr.close()
    listener.close()
