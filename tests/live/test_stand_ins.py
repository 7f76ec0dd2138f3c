"""The stand-ins themselves: each limit that a journey passes is really there."""

import socket
import ssl
from contextlib import ExitStack
from urllib.parse import unquote, urlsplit

import pytest

from harness.answers import ROWS
from harness.deployments import PASSWORD
from harness.processes import Failed, wait_until
from harness.redis_server import RedisServer
from harness.stand_ins import IDLE_SCALE


def ask(url, context, *lines):
    """Send lines to a server, over TLS if there is a `context`; return what it answers."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 5) as sock:
        wrapped = context and context.wrap_socket(sock, server_hostname=parts.hostname)
        with wrapped or sock as stream:
            stream.sendall("".join(f"{line}\r\n" for line in (*lines, "QUIT")).encode())
            return b"".join(iter(lambda: stream.recv(4096), b"")).decode()


def ask_in_vain(url, context):
    """Return why a server cannot be asked, or its answer if it can."""
    try:
        return ask(url, context, "PING")
    except OSError as error:
        return str(error)


def trusting(path, check_hostname):
    context = ssl.create_default_context(cafile=path)
    context.check_hostname = check_hostname
    return context


def refuses(server, *words):
    """Return the server's own words if it refuses a client's command, otherwise an empty text."""
    try:
        RedisServer.command(server, *words)
    except Failed as error:
        return str(error)
    return ""


@pytest.fixture(scope="module", params=ROWS)
def provider(request):
    """The key of each row, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def server(provider, stand_in):
    """The running stand-in of that row."""
    with stand_in(ROWS[provider]) as server:
        yield server


def test_has_the_limits_of_its_row(provider, server):
    row = ROWS[provider]
    limit = int(server.info("clients", "maxclients"))
    assert limit == min(row["max_connections"] or limit, 1000)
    policy = server.info("memory", "maxmemory_policy")
    assert policy == row["eviction"] or (row["in_render_yaml"] and policy == "noeviction")
    assert server.info("cluster", "cluster_enabled") == str(int(row["cluster_mode"]))
    assert server.idle_timeout == (row["idle_timeout_s"] or 0) // IDLE_SCALE
    for word in row["refused_commands"]:
        assert "unknown command" in refuses(server, word)
    assert server.command("SELECT", 0) == "OK"
    assert refuses(server, "SELECT", row["databases"])
    if row["databases"] > 1:
        assert not refuses(server, "SELECT", row["databases"] - 1)


def test_is_reached_by_a_url_of_the_rows_form(provider, server, certificates):
    row = ROWS[provider]
    form, given = urlsplit(row["url_form"]), urlsplit(server.given_url)
    assert (given.scheme, given.username, given.path) == (form.scheme, form.username, form.path)
    assert unquote(given.password or "") == (PASSWORD if form.password else "")

    ca = certificates.public if row["ca"] == "system" else certificates.own
    trusted = certificates.herokus.chain if row["ca"] == "self_signed" else ca.pem
    context = trusting(trusted, row["check_hostname"]) if row["tls"] != "none" else None
    account = " ".join(filter(None, (given.username, PASSWORD)))
    auth = [f"AUTH {account}"] if form.password else []
    assert ask(server.given_url, context, *auth, "PING").endswith("+PONG\r\n+OK\r\n")
    if auth:
        assert ask(server.given_url, context, "PING").startswith("-NOAUTH")
        assert ask(server.given_url, context, f"AUTH {account}x").startswith("-WRONGPASS")
    if context:
        assert "PONG" not in ask_in_vain(server.given_url, None)
        stranger = trusting(certificates.stranger.pem, False)
        assert "CERTIFICATE_VERIFY_FAILED" in ask_in_vain(server.given_url, stranger)
    if context and not row["check_hostname"]:
        assert "is not valid for" in ask_in_vain(server.given_url, trusting(trusted, True))


def test_counts_the_connections_it_refuses(stand_in):
    row = ROWS["heroku"]
    with stand_in(row) as server, ExitStack() as stack:
        for _ in range(row["max_connections"] + 1):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(server.socket))
        assert sock.recv(100) == b"-ERR max number of clients reached\r\n"
        stack.close()
        wait_until(lambda: not refuses(server, "PING"), 10, "a free connection")
        assert server.info("stats", "rejected_connections") != "0"


def test_closes_an_idle_connection_and_says_so(stand_in):
    with stand_in(ROWS["scalingo"]) as server, socket.socket(socket.AF_UNIX) as sock:
        assert server.idle_closes() == 0
        sock.settimeout(60)
        sock.connect(str(server.socket))
        server.close_idle()
        assert sock.recv(100) == b""
        assert server.idle_closes() == 1
