"""HTTP requests against servers that do as a test says, on loopback."""

import contextlib
import itertools
import socket
import threading
import time

import pytest
from processes import free_ports

from ssd_tf.client import rest as http

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.contextmanager
def listening(answer):
    """A server, and the connections that it has had.

    Args:
      answer: called in a thread for each connection, with it and its number
        from 0; the connection is closed then.
    """
    connections = []

    def serve(connection, number):
        with connection, contextlib.suppress(OSError):
            answer(connection, number)

    def accept():
        with contextlib.suppress(OSError):
            for number in itertools.count():
                connections.append(listener.accept()[0])
                arguments = (connections[-1], number)
                threading.Thread(target=serve, args=arguments).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield http.Server(*listener.getsockname()), connections
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in connections:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def ask(server, seconds=20.0, body=b"{}"):
    deadline = time.monotonic() + seconds
    return server.request(deadline, "POST", "/v1/models/ssd:predict", body)


def receive(connection):
    """Reads a request of `ask`; its body may come in a packet of its own.

    Who closes a connection with something unread takes back what it has sent.
    """
    asked = b""
    while not asked.endswith(b"\r\n\r\n{}"):
        part = connection.recv(1 << 16)
        assert part, asked
        asked += part


def trickling(data):
    """Answers with a byte now and then, which alone is never late."""

    def answer(connection, _):
        connection.recv(1 << 16)
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.01)

    return answer


def test_an_answer():
    def answer(connection, _):
        receive(connection)
        connection.sendall(GOOD)

    with listening(answer) as (server, _):
        assert ask(server) == http.Answer(200, b"{}")


@pytest.mark.parametrize(
    "answer",
    [
        trickling(b"HTTP/1.1 200 OK\r\nX: " + bytes(100_000)),
        trickling(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100_000)),
        lambda connection, _: time.sleep(1.5),
    ],
    ids=["head", "body", "nothing"],
)
def test_the_deadline_is_that_of_the_whole_answer(answer):
    with listening(answer) as (server, _):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            ask(server, seconds=0.3)
        assert time.monotonic() - start < 1.2


def test_the_deadline_is_also_that_of_sending():
    with listening(lambda connection, _: time.sleep(1.5)) as (server, _):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            ask(server, 0.3, body=bytes(50_000_000))
        assert time.monotonic() - start < 1.2


def test_no_time_is_left():
    with listening(trickling(GOOD)) as (server, connections):
        with pytest.raises(TimeoutError):
            ask(server, seconds=-1.0)
        assert not connections


def dropping(connection, number):
    receive(connection)


def test_what_breaks_is_sent_once():
    with listening(dropping) as (server, connections):
        with pytest.raises(http.BrokenError):
            ask(server)
        assert len(connections) == 1


def test_half_an_answer_is_no_answer():
    def answer(connection, _):
        receive(connection)
        connection.sendall(GOOD[:-1])

    with listening(answer) as (server, connections):
        with pytest.raises(http.BrokenError):
            ask(server)
        assert len(connections) == 1


def test_a_connection_that_is_closed_is_not_used_again():
    def answer(connection, _):
        receive(connection)
        connection.sendall(GOOD)

    with listening(answer) as (server, connections):
        for _ in range(3):
            assert ask(server).status == 200
            time.sleep(0.05)  # until it is closed
        assert len(connections) == 3


def test_a_large_body_may_be_refused_before_it_has_come():
    def answer(connection, _):
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    with listening(answer) as (server, _):
        assert ask(server, body=bytes(5_000_000)).status == 413


def test_what_is_no_http():
    def answer(connection, _):
        receive(connection)
        connection.sendall(b"SSH-2.0-x\r\n")

    with listening(answer) as (server, _):
        with pytest.raises(http.NoHttpError):
            ask(server)


def test_nobody_listens():
    (port,) = free_ports(1)
    with pytest.raises(http.UnreachableError, match="^Connection refused$"):
        ask(http.Server("127.0.0.1", port))
