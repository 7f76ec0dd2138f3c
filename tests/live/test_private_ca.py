"""The recipe of docs/redis.md for a CA of one's own, run as printed, accepted by every Python."""

import re
import shutil
import socket
import subprocess
import textwrap
import urllib.parse

import pytest

from harness.asking import ANSWERED, EVERY_PYTHON, ask, python_of
from harness.processes import free_port, run
from harness.redis_server import RedisServer

SERVER = "SERVER=DNS:redis.example.com"
PLACE = "/etc/redis/"
OPTIONAL = [("tls-auth-clients yes", "tls-auth-clients no")]
# Python itself judges the certificates, by OpenSSL's strict rules and without the service.
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
    """The indented blocks of the page's section on it, which is its last."""
    page = (deployment("self_hosted").project.path / "docs/redis.md").read_text()
    _, section = page.split("## A CA of your own\n")
    assert "\n## " not in section
    blocks = re.findall(r"(?:^ {4}.*\n)+", section, re.MULTILINE)
    commands, configuration = (textwrap.dedent(block) for block in blocks)
    return commands, configuration


@pytest.fixture(scope="module")
def folder(printed, tmp_path_factory):
    """The files that the recipe's commands make, for the host localhost."""
    if not shutil.which("openssl"):
        pytest.skip("NOT TESTED: no openssl on PATH")
    folder = tmp_path_factory.mktemp("ca")
    make(printed[0], folder, "DNS:localhost")
    return folder


class Printed(RedisServer):
    """A server whose only password stands in its lines. The tests connect as `user`."""

    user = "default"

    def _write_configuration(self):
        password, self.password = self.password, None
        super()._write_configuration()
        self.password = password

    def _ask(self, stream, *words):
        if words[0] == "AUTH":
            words = ("AUTH", self.user, *words[1:])
        return super()._ask(stream, *words)


def make(commands, folder, server):
    """Run the commands in the folder, after the change that a person makes."""
    assert commands.count(SERVER) == 1
    commands = commands.replace(SERVER, f"SERVER={server}")
    subprocess.run(["bash", "-e", "-c", commands], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def server(printed, folder):
    """server(changes) -> (URL, server), with the configuration as printed and then changed."""
    running = []

    def server(changes=(), folder=folder, user="default", host="localhost"):
        lines = printed[1]
        for old, new in [(PLACE, f"{folder}/"), *changes]:
            assert old in lines
            lines = lines.replace(old, new)
        port = free_port()
        lines = lines.replace("tls-port 6379", f"tls-port {port}")
        # The reader of the page does this, too, because Redis is on another machine.
        lines += f"bind {' '.join({'127.0.0.1', own_address()})}\n"
        found = re.search(r"^requirepass (\S+)$|^user \w+ .* >(\S+)", lines, re.MULTILINE)
        password = found and (found[1] or found[2])
        made = Printed(port=0, password=password, extra=lines.splitlines())
        made.user = user
        running.append(made.start())
        return f"rediss://{user}:{password}@{host}:{port}/0", made

    yield server
    for started in running:
        started.stop()


def own_address():
    """Return the address by which others reach this machine; 127.0.0.1 if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # This sends nothing.
        except OSError:
            return "127.0.0.1"
        return sock.getsockname()[0]


def given(folder, *names):
    """Return the settings that give these files."""
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
    # With the printed lines the server wants a client certificate.
    before = asks.commands_seen().get("auth", 0) + asks.commands_seen().get("hello", 0)
    place.configure(url, **given(folder, "REDIS_CA_CERTS"))
    code, text = ask(place)
    assert code != 0
    # Which error it is depends on what arrives first, the server's alert or its reset.
    assert re.search("CERTIFICATE_REQUIRED|EOF occurred|reset by peer|Broken pipe", text)
    assert asks.commands_seen().get("auth", 0) + asks.commands_seen().get("hello", 0) == before

    url, _ = server(OPTIONAL)
    # As a person pastes them into a dashboard.
    empty = {"REDIS_CLIENT_CERT": "", "REDIS_CLIENT_KEY": ""}
    place.configure(url, **given(folder, "REDIS_CA_CERTS"), **empty)
    assert ask(place) == ANSWERED


@pytest.mark.all
def test_another_ca_of_the_same_recipe_is_refused(deployment, printed, folder, server, tmp_path):
    make(printed[0], tmp_path, "DNS:localhost")
    url, stranger = server(OPTIONAL, tmp_path)
    place = deployment("self_hosted")
    place.configure(url, **given(folder, "REDIS_CA_CERTS"))
    code, text = ask(place)
    assert code != 0
    assert "CERTIFICATE_VERIFY_FAILED" in text
    assert stranger.commands_seen() == {}


PASSWORD = "requirepass PASSWORD\n"


@pytest.mark.all
@pytest.mark.parametrize("who", ["default", "a user of its own", "nobody"])
def test_another_machine_gets_in_with_a_password_only(who, deployment, printed, server, tmp_path):
    """Protected mode allows loopback only, and this machine's own address is not loopback."""
    if (address := own_address()) == "127.0.0.1":
        pytest.skip("NOT TESTED: this machine has no address but 127.0.0.1")
    place = deployment("self_hosted")
    make(printed[0], tmp_path, f"IP:{address}")
    page = (place.project.path / "docs/redis.md").read_text()
    user, rights = re.search(r"^ +ACL SETUSER (\S+) (.*)$", page, re.MULTILINE).groups()
    assert "`user default off`" in page and "`user` for `ACL SETUSER`" in page.replace("\n ", "")
    changes, name = {
        "default": ([], "default"),
        "a user of its own": (
            [(PASSWORD, f"user default off\nuser {user} {rights}\n")],
            user,
        ),
        "nobody": ([(PASSWORD, "")], "default"),
    }[who]
    url, _ = server(changes, tmp_path, name, address)
    place.configure(url, **given(tmp_path))
    code, text = ask(place)
    if who == "nobody":
        assert code != 0
        assert "protected mode" in text
    else:
        assert (code, text) == ANSWERED


def test_an_address_can_be_named_too(deployment, printed, server, tmp_path):
    make(printed[0], tmp_path, "IP:127.0.0.1")
    url, _ = server(folder=tmp_path, host="127.0.0.1")
    place = deployment("self_hosted")
    place.configure(url, **given(tmp_path))
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
        # This is what the line is there for.
        assert done.returncode != 0
        assert "CA cert does not include key usage extension" in done.stderr


def test_only_a_provider_with_an_own_ca_gets_the_recipe(deployment):
    page = (deployment("heroku").project.path / "docs/redis.md").read_text()
    assert "## A CA of your own" not in page
