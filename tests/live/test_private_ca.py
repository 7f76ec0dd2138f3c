"""The README's recipe for a CA of one's own, run as printed, accepted by every Python."""

import re
import shutil
import subprocess
import textwrap
import urllib.parse

import pytest

from tests.live.asking import ANSWERED, EVERY_PYTHON, ask, python_of
from tests.live.deployments import PASSWORD
from tests.support.processes import free_port, run
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.live
SERVER = "SERVER=DNS:redis.example.com"
PLACE = "/etc/redis/"
# What Python itself says of the certificates, with OpenSSL's strict rules and without the service.
STRICT = """
import socket, ssl, sys
host, port, folder, name = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
context.verify_flags |= ssl.VERIFY_X509_STRICT
context.load_cert_chain(f"{folder}/client.pem", f"{folder}/client.key")
with socket.create_connection((host, int(port)), timeout=10) as sock:
    print(context.wrap_socket(sock, server_hostname=name).version())
"""


@pytest.fixture(scope="module")
def printed(deployment):
    """The indented blocks of the README's section on it."""
    readme = (deployment("self_hosted").project.path / "README.md").read_text()
    _, section = readme.split("### A CA of your own\n")
    section, _ = section.split("\n## ", 1)
    blocks = re.findall(r"(?:^ {4}.*\n)+", section, re.MULTILINE)
    commands, configuration = (textwrap.dedent(block) for block in blocks)
    return commands, configuration


@pytest.fixture(scope="module")
def folder(printed, tmp_path_factory):
    """The files that its commands make, for the host localhost."""
    if not shutil.which("openssl"):
        pytest.skip("NOT TESTED: no openssl on PATH")
    folder = tmp_path_factory.mktemp("ca")
    make(printed[0], folder, "DNS:localhost")
    return folder


def make(commands, folder, server):
    """Run them in the folder, with what a person changes in them changed."""
    assert commands.count(SERVER) == 1
    commands = commands.replace(SERVER, f"SERVER={server}")
    subprocess.run(["bash", "-e", "-c", commands], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def server(printed, folder):
    """server(changes) -> a RedisServer with the configuration as printed and these changes."""
    running = []

    def server(changes=(), folder=folder):
        lines = printed[1]
        for old, new in [(PLACE, f"{folder}/"), *changes]:
            assert old in lines
            lines = lines.replace(old, new)
        port = free_port()
        lines = lines.replace("tls-port 6379", f"tls-port {port}")
        running.append(RedisServer(port=0, password=PASSWORD, extra=lines.splitlines()).start())
        return f"rediss://:{urllib.parse.quote(PASSWORD, safe='')}@localhost:{port}/0", running[-1]

    yield server
    for started in running:
        started.stop()


def given(folder, *names):
    """The settings for these files."""
    files = {
        "REDIS_CA_CERTS": "ca.pem",
        "REDIS_CLIENT_CERT": "client.pem",
        "REDIS_CLIENT_KEY": "client.key",
    }
    return {name: str(folder / file) for name, file in files.items() if name in (names or files)}


def test_no_key_is_readable_by_others(folder):
    assert {path.name for path in folder.glob("*.key")} == {"ca.key", "redis.key", "client.key"}
    for path in folder.glob("*.key"):
        assert path.stat().st_mode & 0o077 == 0


@EVERY_PYTHON
def test_every_python_connects_with_it(version, deployment, folder, server):
    place = deployment("self_hosted", python=python_of(version))
    url, asks = server()
    place.configure(url, **given(folder))
    assert ask(place) == ANSWERED
    # The certificate names another host.
    place.configure(url.replace("@localhost", "@127.0.0.1"), **given(folder))
    code, text = ask(place)
    assert code != 0
    assert "not valid for '127.0.0.1'" in text
    # The server wants a client certificate, as printed.
    before = asks.commands_seen().get("auth", 0) + asks.commands_seen().get("hello", 0)
    place.configure(url, **given(folder, "REDIS_CA_CERTS"))
    code, text = ask(place)
    assert code != 0
    # Which of them it is depends on whether the server's alert is read before its reset comes.
    assert re.search("CERTIFICATE_REQUIRED|EOF occurred|reset by peer|Broken pipe", text)
    assert asks.commands_seen().get("auth", 0) + asks.commands_seen().get("hello", 0) == before

    url, _ = server([("tls-auth-clients yes", "tls-auth-clients no")])
    place.configure(url, **given(folder, "REDIS_CA_CERTS"))
    assert ask(place) == ANSWERED


def test_another_ca_of_the_same_recipe_is_refused(deployment, printed, folder, server, tmp_path):
    make(printed[0], tmp_path, "DNS:localhost")
    url, stranger = server([("tls-auth-clients yes", "tls-auth-clients no")], tmp_path)
    place = deployment("self_hosted")
    place.configure(url, **given(folder, "REDIS_CA_CERTS"))
    code, text = ask(place)
    assert code != 0
    assert "CERTIFICATE_VERIFY_FAILED" in text
    assert stranger.commands_seen() == {}


def test_an_address_can_be_named_too(deployment, printed, server, tmp_path):
    make(printed[0], tmp_path, "IP:127.0.0.1")
    url, _ = server(folder=tmp_path)
    place = deployment("self_hosted")
    place.configure(url.replace("@localhost", "@127.0.0.1"), **given(tmp_path))
    assert ask(place) == ANSWERED


@EVERY_PYTHON
@pytest.mark.parametrize("usage", [True, False], ids=["as printed", "without keyUsage"])
def test_a_strict_python_accepts_it_by_itself(usage, version, printed, server, tmp_path):
    commands = printed[0]
    if not usage:
        line = "\\nkeyUsage=critical,keyCertSign,cRLSign"
        assert commands.count(line) == 1
        commands = commands.replace(line, "")
    make(commands, tmp_path, "DNS:localhost")
    url, _ = server(folder=tmp_path)
    port = str(urllib.parse.urlsplit(url).port)
    command = [python_of(version), "-c", STRICT, "127.0.0.1", port, str(tmp_path), "localhost"]
    done = run(command, cwd=tmp_path, env={}, seconds=30)
    if usage:
        assert (done.returncode, done.stdout) == (0, "TLSv1.3\n"), done.stderr
    else:
        # What the line is there for.
        assert done.returncode != 0
        assert "CA cert does not include key usage extension" in done.stderr


def test_only_a_provider_with_an_own_ca_gets_the_recipe(deployment):
    readme = (deployment("heroku").project.path / "README.md").read_text()
    assert "### A CA of your own" not in readme
