"""TLS between a worker and its hub.

A connection is read in one thread and written in another, which a TLS connection must not be. So a thread of its own
has that one, and the worker has the other end of a pair of plain sockets.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from typing import Optional

#: Seconds that the handshake may take.
HANDSHAKE = 10
#: Bytes that are taken at a time.
PIECE = 1 << 16


def context(ca: Optional[str] = None, certificate: Optional[str] = None, key: Optional[str] = None) -> ssl.SSLContext:
    """Trusts the roots in the file ``ca``, or this system's, and only a hub whose certificate is for its host.

    ``certificate`` and ``key`` are shown to a hub that asks for them.
    """
    made = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        made.load_cert_chain(certificate, key)
    return made


def secure(sock: socket.socket, tls: ssl.SSLContext, host: str) -> socket.socket:
    """Shakes hands with ``host`` and returns a socket for what is said in plain."""
    sock.settimeout(HANDSHAKE)
    wrapped = tls.wrap_socket(sock, server_hostname=host)
    near, far = socket.socketpair()
    wrapped.setblocking(False)
    far.setblocking(False)
    threading.Thread(target=_carry, args=(wrapped, far), name="gatewright-tls", daemon=True).start()
    return near


def _carry(tls: ssl.SSLSocket, plain: socket.socket) -> None:
    """Carries bytes in both directions until either side ends."""
    inward, outward = memoryview(b""), memoryview(b"")
    with tls, plain, selectors.DefaultSelector() as selector:
        selector.register(tls, selectors.EVENT_READ)
        selector.register(plain, selectors.EVENT_READ)
        try:
            while True:
                inward, more_in = _pass_on(tls, plain, inward)
                outward, more_out = _pass_on(plain, tls, outward)
                if more_in or more_out:
                    continue
                _watch(selector, tls, not inward, bool(outward))
                _watch(selector, plain, not outward, bool(inward))
                selector.select()
        except (OSError, EOFError):
            pass  # the other side sees it as the end


def _pass_on(source: socket.socket, sink: socket.socket, rest: memoryview) -> tuple[memoryview, bool]:
    """Gives what was taken, or is there to take; returns what is left of it, and whether any of it went."""
    if not rest:
        taken = _take(source)
        if taken == b"":
            raise EOFError
        rest = memoryview(taken or b"")
    given = _give(sink, rest) if rest else 0
    return rest[given:], given > 0


def _watch(selector: selectors.BaseSelector, sock: socket.socket, reads: bool, writes: bool) -> None:
    events = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0)
    selector.modify(sock, events)


def _take(sock: socket.socket) -> Optional[bytes]:
    """What has come; ``None`` if nothing has, nothing at the end."""
    try:
        return sock.recv(PIECE)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None


def _give(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0
