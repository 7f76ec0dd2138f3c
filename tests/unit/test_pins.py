"""REDIS_CA_CERTS in place of the host name: which servers each pin accepts, by real handshakes.

harness/pin_chains.py makes pins and chains, and says who is right. harness/inside/handshakes.py
lets them meet, in each Python of this machine.
"""

import functools
import json
import os
import shutil
import ssl
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from harness import pin_chains
from harness.answers import SERVICE
from harness.asking import EVERY_PYTHON, python_of
from harness.edits import change
from harness.inside import handshakes
from harness.pin_chains import HOST, text_of
from harness.processes import Failed
from harness.tallies import proven, tally

SCRIPT = Path(handshakes.__file__)
BOTH, VERSIONS = ("required", "optional"), ("TLSv1_2", "TLSv1_3")
# Without --all, each pin meets each server once.
ONCE = {"cert_reqs": ["required"], "versions": ["TLSv1_3"]}
EACH_WAY = {"cert_reqs": list(BOTH), "versions": list(VERSIONS)}
# One pin of each kind, for the handshakes over sockets.
OVER_SOCKETS = (
    "root",
    "leaf",
    "root, leaf",
    "leaf, between",
    "root, between",
    "leaf, its renewed",
    "self-signed, no extensions",
    "self-signed CA",
    "new, no identifiers",
)


class Matrix:
    """What a script reports, beside what the model says."""

    def __init__(self, report, expected, ways):
        self.report = report
        self.right = ways * sum(expected.values())
        self.wrong_accepted, self.right_refused = [], []
        for (trust, server), right in expected.items():
            accepted = report["accepted"][trust].get(server, [])
            if right and len(accepted) < ways:
                why = report["unreadable"].get(trust, f"but for {accepted}")
                self.right_refused.append(f"{trust} | {server} | {why}")
            if accepted and not right:
                self.wrong_accepted.append(f"{trust} | {server}")

    def tally(self, what):
        """Add its numbers to what is printed at the end of the run."""
        tally(
            "matrix of pins",
            what,
            Pythons=1,
            handshakes=self.report["handshakes"],
            of_a_right_server=self.right,
            wrong_accepted=len(self.wrong_accepted),
            right_refused=len(self.right_refused),
            bytes_to_a_refused_server=self.report["bytes"],
        )
        proven(handshakes=self.report["handshakes"])


class World:
    """The chains on disk, and a copy of the package; its context.py needs no redis-py."""

    def __init__(self, folder):
        self.folder = folder
        self.chains = pin_chains.Chains()
        self.pins = self._write("pins", self.chains.pins)
        self.servers = self._write("servers", self.chains.servers)
        self.extra, servers = self.chains.unpinned()
        self.named_chains = servers
        self.cas = self._write("cas", self.extra)
        self.named = self._write("named", servers)
        self.public = folder / "public.pem"
        self.public.write_text(self.chains.public.pem)
        self.package = self.copy("package")
        self._runs = 0

    def _write(self, name, chains):
        (self.folder / name).mkdir()
        return pin_chains.write(self.folder / name, chains)

    def copy(self, name, changes=(), added=""):
        """Return the folder of a copy of the package whose context.py is changed."""
        package = self.folder / name
        (package / "redis_connection").mkdir(parents=True)
        for file in (SERVICE / "redis_connection").glob("*.py"):
            shutil.copy(file, package / "redis_connection")
        path = package / "redis_connection" / "context.py"
        change(path, dict(changes))
        with path.open("a") as file:
            file.write(added)
        return package

    def pinned(self, names, as_text=False):
        """Return {name: fields of Trust}: one line of text, as dashboards store it, or a path."""
        files = {name: self.pins[name][0] for name in names}
        if as_text:
            files = {name: Path(path).read_text() for name, path in files.items()}
            files = {name: text.replace("\n", "\\n") for name, text in files.items()}
        return {name: {"check_hostname": False, "ca_certs": given} for name, given in files.items()}

    def run(self, python, trusts, servers, environment=(), **given):
        """Return the script's report, on a system whose one public CA is that of the tests."""
        self._runs += 1
        file = self.folder / f"given-{python.replace('/', '-')}-{self._runs}.json"
        defaults = {"package": str(self.package), "host": HOST, "over": "memory"}
        defaults |= {"cert_reqs": BOTH, "versions": VERSIONS, "trusts": trusts, "servers": servers}
        file.write_text(json.dumps(defaults | given))
        done = subprocess.run(
            [python, str(SCRIPT), str(file)],
            env=self.environment() | dict(environment),
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise Failed(f"{python} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def environment(self):
        found = {name: value for name, value in os.environ.items() if "REDIS" not in name}
        return found | {
            "PYTHONDONTWRITEBYTECODE": "1",
            "SSL_CERT_FILE": str(self.public),
            "SSL_CERT_DIR": str(self.folder / "nowhere"),
        }

    def expected(self, pins=None):
        """Return {(pin, server): whether it is the right one}, as the model says."""
        return {
            (pin, server): pin_chains.accepted(given, sent, self.chains.public)
            for pin, given in self.chains.pins.items()
            for server, sent in self.chains.servers.items()
            if pins is None or pin in pins
        }

    def expected_by_name(self):
        public = self.chains.public
        return {
            (trust, server): pin_chains.accepted_by_name([public, *cas], sent)
            for trust, cas in self.extra.items()
            for server, sent in self.named_chains.items()
        }

    def by_name(self):
        return {
            name: {"ca_certs": self.cas[name][0] if cas else ""} for name, cas in self.extra.items()
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("pins"))


def met_by(world, asked, python):
    """Return {what: Matrix} of all handshakes of one Python, each in every way that is `asked`."""
    every = list(world.pins)
    none = {"unpinned": {}, "pinned": world.pinned(["root"])["root"]}
    versions = asked["versions"]
    ways = len(asked["cert_reqs"]) * len(versions)
    reports = {
        "memory": world.run(python, world.pinned(every), world.servers, **asked),
        "sockets": world.run(
            python, world.pinned(OVER_SOCKETS, as_text=True), world.servers, over="sockets", **asked
        ),
        "by name": world.run(python, world.by_name(), world.named, **asked),
        "none": world.run(
            python, none, world.servers, over="sockets", cert_reqs=["none"], versions=versions
        ),
    }
    everybody = {(trust, server): True for trust in none for server in world.servers}
    expected = {
        "memory": (world.expected(), ways),
        "sockets": (world.expected(OVER_SOCKETS), ways),
        "by name": (world.expected_by_name(), ways),
        "none": (everybody, len(versions)),
    }
    return {what: Matrix(report, *expected[what]) for what, report in reports.items()}


@pytest.fixture(scope="module")
def asked(request):
    """The ways in which a pin meets a server."""
    return EACH_WAY if request.config.option.all else ONCE


@pytest.fixture(scope="module")
def matrices_of(world, asked):
    """matrices_of(python) -> what met_by() returns; each Python is asked once."""
    return functools.cache(functools.partial(met_by, world, asked))


@pytest.fixture
def matrices(matrices_of, version):
    return matrices_of(python_of(version))


def ways_of(asked):
    """The ways in words, for what is printed."""
    versions = [version.replace("TLSv1_", "TLS 1.") for version in asked["versions"]]
    return " x ".join(", ".join(each) for each in (asked["cert_reqs"], versions))


# The matrix


@EVERY_PYTHON
def test_each_pin_accepts_its_own_servers_and_no_other(version, matrices, world, asked):
    size = f"{len(world.pins)} pins x {len(world.servers)} servers x {ways_of(asked)}"
    matrices["memory"].tally(f"in memory, {size}")
    assert matrices["memory"].wrong_accepted == []
    assert matrices["memory"].right_refused == []
    assert matrices["memory"].report["bytes"] == 0


@EVERY_PYTHON
def test_no_byte_reaches_a_server_that_is_refused(version, matrices, world, asked):
    size = f"{len(OVER_SOCKETS)} pins x {len(world.servers)} servers x {ways_of(asked)}"
    matrices["sockets"].tally(f"on sockets, {size}")
    assert matrices["sockets"].wrong_accepted == []
    assert matrices["sockets"].right_refused == []
    assert matrices["sockets"].report["bytes"] == 0
    assert sum(matrices["sockets"].report["refusals"].values()) > 500


@EVERY_PYTHON
def test_who_checks_the_name_believes_the_system_and_what_stands_beside_it(
    version, matrices, world, asked
):
    size = f"{len(world.extra)} policies x {len(world.named)} servers x {ways_of(asked)}"
    matrices["by name"].tally(f"by host name, {size}")
    assert matrices["by name"].wrong_accepted == []
    assert matrices["by name"].right_refused == []
    assert matrices["by name"].report["bytes"] == 0


@EVERY_PYTHON
def test_without_verification_every_server_is_believed(version, matrices, world):
    """This also proves that each server would have taken what it was sent."""
    size = f"2 policies x {len(world.servers)} servers"
    matrices["none"].tally(f"not verified, {size}")
    assert matrices["none"].right_refused == []
    assert matrices["none"].report["refusals"] == {}


@EVERY_PYTHON
def test_what_is_no_pin_is_refused_when_it_is_read(version, matrices, world):
    public = world.chains.public
    unreadable = matrices["memory"].report["unreadable"]
    for name, given in world.chains.pins.items():
        if pin_chains.must_not_be_read(given, public):
            why = "public CA" if pin_chains.holds_public(given, public) else "between"
            assert why in unreadable[name]
        elif any(pin_chains.is_pin(cert) for cert in given):
            assert name not in unreadable


def test_the_model_says_what_the_rules_say(world):
    """Some pins are judged by hand."""
    right = {}
    for (pin, server), answer in world.expected().items():
        if answer:
            right.setdefault(pin, set()).add(server)
    leaf = {name for name in world.servers if name.startswith(("leaf, ", "leaf alone"))}
    by_root = {name for name in leaf if "between" in name}
    by_root |= {"leaf of the root", "leaf of the root, root", "sister", "other host"}
    by_root |= {"renewed", "renewed with its key"}
    by_root |= {"bought, public by root", "bought, public by root, root"}
    own = "self-signed, no extensions"
    assert len(leaf) == 9
    assert right["leaf"] == right["leaf, between"] == leaf
    assert right["root"] == right["root, between"] == by_root
    assert right["root, leaf"] == by_root | leaf
    assert right["leaf, its renewed"] == leaf | {"renewed"}
    assert right["self-signed"] == {"self-signed"}
    assert right[own] == {own}
    assert right["self-signed CA"] == {"self-signed CA", "below self-signed CA"}
    assert right["twin"] == {"below twin", "below twin, root", "below twin, twin"}
    for nobodys in ("between", "root signed by public", "public root", "root, public root"):
        assert nobodys not in right
    assert not [pin for pin in right if pin.startswith(("new", "expired", "not yet"))]


def test_the_matrix_is_large(world):
    assert len(world.pins) >= 23
    assert len(world.servers) >= 42


# Each thing that the code relies on is taken away, and the matrix must notice

READS_PINS = "    pins = pins_in(pem.text_of(trust.ca_certs))\n"
KEEPS_PINS = "        elif is_root(der, fields_of_ca):"
BESIDE = "self-signed; new, {}"  # A CA beside a server's certificate.
WEAKENED = {
    "the system's CAs are trusted beside the pin": (
        {READS_PINS: f"{READS_PINS}    context.load_default_certs()\n"},
        [("root", "bought"), ("leaf", "bought, our leaf"), ("self-signed", "mine of public")],
    ),
    "a CA in between is a pin": (
        {KEEPS_PINS: "        else:"},
        [("leaf, between", "sister"), (BESIDE.format("number alone"), "below new, number alone")],
    ),
    "a CA need not have signed itself": (
        {"    context.verify_flags |= CHECK_SELF_SIGNED\n": ""},
        [
            ("new, no identifiers", "below new, no identifiers"),
            ("new, matching identifiers", "below new, matching identifiers"),
            ("new, long identifiers", "below new, long identifiers"),
        ],
    ),
    "whom a CA names as its issuer is not looked at": (
        {"x509.names_itself_as_issuer(der)": "True"},
        [
            (BESIDE.format(form), f"below new, {form}")
            for form in (
                "usual identifiers",
                "long differing identifiers",
                "identifiers and number",
                "matching identifiers, number",
                "number alone",
                "other kind of key",
                "restricted kind of key",
                "another's number",
            )
        ],
    ),
}


@pytest.mark.parametrize("weakness", WEAKENED)
def test_a_weaker_pin_would_be_caught(weakness, world, tmp_path):
    changes, mistakes = WEAKENED[weakness]
    package = world.copy(tmp_path / "weaker", changes)
    pins = {pin for pin, _ in mistakes}
    report = world.run(
        sys.executable,
        world.pinned(pins),
        world.servers,
        package=str(package),
        cert_reqs=["required"],
        versions=["TLSv1_3"],
    )
    found = Matrix(report, world.expected(pins), ways=1).wrong_accepted
    assert {" | ".join(pair) for pair in mistakes} <= set(found)


def test_a_forgotten_host_name_would_be_caught(world, tmp_path):
    changes = {"context.check_hostname = trust.verified": "context.check_hostname = False"}
    package = world.copy(tmp_path / "weaker", changes)
    report = world.run(sys.executable, world.by_name(), world.named, package=str(package))
    found = Matrix(report, world.expected_by_name(), len(BOTH) * len(VERSIONS)).wrong_accepted
    assert {"system | public, wrong host", "system, root | own, wrong host"} <= set(found)


# The public CAs, in every form in which a system may have them


def folder_of(path, chains, text=None):
    """A folder as c_rehash leaves it."""
    path.mkdir()
    name = f"{pin_chains.hashed_name(chains.public)}.0"
    (path / name).write_text(text or chains.public.pem)
    return path


def as_openssl_has_it(pem):
    return pem.replace(" CERTIFICATE-", " TRUSTED CERTIFICATE-")


def a_file(folder, chains):
    return {"SSL_CERT_FILE": str(folder / "public.pem")}


def a_file_of_openssls_own(folder, chains):
    (folder / "trusted.pem").write_text(as_openssl_has_it(chains.public.pem))
    return {"SSL_CERT_FILE": str(folder / "trusted.pem")}


def a_folder(folder, chains):
    return {"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(folder_of(folder / "hashed", chains))}


def two_folders(folder, chains):
    (folder / "empty").mkdir()
    both = [folder / "empty", folder_of(folder / "hashed", chains)]
    return {"SSL_CERT_FILE": "", "SSL_CERT_DIR": os.pathsep.join(map(str, both))}


def a_folder_of_openssls_own(folder, chains):
    text = as_openssl_has_it(chains.public.pem)
    return {"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(folder_of(folder / "hashed", chains, text))}


def a_folder_with_a_damaged_one(folder, chains):
    damaged = "-----BEGIN CERTIFICATE-----\nAAAAA\n-----END CERTIFICATE-----\n"
    text = chains.public.pem + damaged
    return {"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(folder_of(folder / "hashed", chains, text))}


STORES = (
    a_file,
    a_file_of_openssls_own,
    a_folder,
    two_folders,
    a_folder_of_openssls_own,
    a_folder_with_a_damaged_one,
)
NOWHERE = {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}


def read_by(world, names, environment, **given):
    """Return the report of pins that are only read, and of the system's own CAs."""
    trusts = world.pinned(names) | {"system": {}}
    servers = {"bought": world.named["public, right host"]}
    return world.run(sys.executable, trusts, servers, environment, cert_reqs=["required"], **given)


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
def test_a_root_of_the_systems_store_is_no_pin(store, world, tmp_path):
    (tmp_path / "public.pem").write_text(world.chains.public.pem)
    environment = NOWHERE | store(tmp_path, world.chains)
    report = read_by(world, ["public root", "root, public root", "root", "leaf"], environment)
    # This proves that OpenSSL takes the CA from there.
    assert report["accepted"]["system"] == {"bought": [f"required {each}" for each in VERSIONS]}
    public = "holds a public CA"
    assert report["unreadable"] == {"public root": public, "root, public root": public}


def test_a_root_of_a_distributions_list_is_no_pin_where_openssl_looks_elsewhere(world, tmp_path):
    package = world.copy(tmp_path / "package", added=f"FILES_OF_CAS = ({str(world.public)!r},)\n")
    report = read_by(world, ["public root", "root", "leaf"], NOWHERE, package=str(package))
    assert report["accepted"]["system"] == {}
    assert report["unreadable"] == {"public root": "holds a public CA"}


def test_a_root_of_this_machine_is_no_pin(world, tmp_path):
    path = Path("/etc/ssl/certs/ca-certificates.crt")
    if not path.is_file():
        pytest.skip(f"NOT TESTED: {path} is not on this machine")
    certificate, end, _ = path.read_text().partition("-----END CERTIFICATE-----\n")
    given = tmp_path / "given.pem"
    given.write_text(certificate + end)
    trusts = {"machine's": {"check_hostname": False, "ca_certs": str(given)}}
    for environment in (NOWHERE, {}):
        report = world.run(sys.executable, trusts, {}, environment)
        assert report["unreadable"] == {"machine's": "holds a public CA"}


NO_LIST = """
ssl.get_default_verify_paths = lambda: ssl.DefaultVerifyPaths(
    None, None, "SSL_CERT_FILE", "/no-file", "SSL_CERT_DIR", "/no-folder"
)
"""


def test_without_any_list_of_public_cas_a_ca_is_no_pin(world, tmp_path):
    package = world.copy(tmp_path / "package", added=NO_LIST)
    path = package / "redis_connection" / "context.py"
    path.write_text(path.read_text().replace('"/', '"/nowhere/'))
    names = ["root", "root, leaf", "public root", "self-signed CA"]
    fine = ["leaf", "self-signed", "self-signed, no extensions", "leaf, between"]
    report = read_by(world, names + fine, NOWHERE, package=str(package))
    assert sorted(report["unreadable"]) == sorted(names)
    assert all("no list of public CAs" in why for why in report["unreadable"].values())


# Files that change


@pytest.fixture
def context(world, monkeypatch):
    """The module context.py, imported into this process."""
    monkeypatch.setenv("SSL_CERT_FILE", str(world.public))
    monkeypatch.syspath_prepend(world.package)
    yield import_module("redis_connection.context")
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis_connection"]:
        del sys.modules[name]


@pytest.fixture
def file(world, tmp_path):
    """A file with the pin "leaf" in it."""
    path = tmp_path / "pin.pem"
    path.write_text(text_of(world.chains.pins["leaf"]))
    return path


@pytest.fixture
def who(context, world, file):
    """who() -> which of two servers a new connection accepts with the file."""

    def who():
        trust = context.Trust(check_hostname=False, ca_certs=str(file))
        return [
            name
            for name in ("leaf alone", "renewed")
            if not handshakes.in_memory(
                context.context_of(trust),
                handshakes.server_context(*world.servers[name], "TLSv1_3"),
                HOST,
            )[0]
        ]

    return who


@pytest.fixture
def renewed(world):
    """The new certificate of the same server."""
    return world.chains.servers["renewed"][0].pem


def test_a_renewed_file_counts_from_the_next_connection(who, file, renewed):
    assert who() == ["leaf alone"]
    file.write_text(renewed)
    assert who() == ["renewed"]


def test_a_file_put_in_its_place_is_noticed_by_itself(who, file, renewed, tmp_path):
    """Kubernetes and certbot put files in place like this, possibly with an old time."""
    assert who() == ["leaf alone"]
    new = tmp_path / "new.pem"
    new.write_text(renewed)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    os.utime(new, ns=times)
    new.replace(file)
    assert file.stat().st_mtime_ns == times[1]
    assert who() == ["renewed"]


def test_the_context_is_one_as_long_as_the_file_is(context, file):
    trust = context.Trust(check_hostname=False, ca_certs=str(file))
    first = context.context_of(trust)
    assert context.context_of(trust) is first
    os.utime(file, ns=(1, 1))
    assert context.context_of(trust) is not first


@pytest.mark.parametrize("spoil", ["empty", "damaged", "public", "between", "gone"])
def test_a_file_that_cannot_be_used_any_more_keeps_the_old_pin(
    spoil, who, file, renewed, world, caplog
):
    assert who() == ["leaf alone"]
    texts = {
        "empty": "",
        "damaged": renewed[:100] + renewed[-100:],
        "public": world.chains.public.pem,
        "between": world.chains.between.pem,
    }
    if spoil == "gone":
        file.unlink()
    else:
        file.write_text(texts[spoil])
    for _ in range(3):
        assert who() == ["leaf alone"]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "the old one stays" in record.message
    # The file is read again as soon as it changes.
    file.write_text(renewed)
    assert who() == ["renewed"]
    assert len(caplog.records) == 1


def test_a_file_that_never_could_be_used_is_an_error(context, file):
    trust = context.Trust(check_hostname=False, ca_certs=str(file))
    file.write_text("no certificate")
    with pytest.raises(context.NoPin):
        context.context_of(trust)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        context.context_of(trust)


# Certificates of clients


@pytest.fixture
def client(world, tmp_path):
    """(certificate, key) as files."""
    written = pin_chains.write(tmp_path, {"client": world.chains.servers["leaf of a client"]})
    return written["client"]


@pytest.fixture
def demanding(world):
    """The context of a server that asks its clients for a certificate of the company."""
    server = handshakes.server_context(*world.servers["leaf alone"], "TLSv1_3")
    server.load_verify_locations(cadata=world.chains.root.pem)
    server.verify_mode = ssl.CERT_REQUIRED
    return server


@pytest.mark.parametrize("form", ["path", "text", "one line"])
def test_a_clients_certificate_is_shown(form, context, world, client, demanding):
    forms = {
        "path": str,
        "text": lambda path: Path(path).read_text(),
        "one line": lambda path: Path(path).read_text().replace("\n", "\\n"),
    }
    certfile, keyfile = map(forms[form], client)
    pin = {"check_hostname": False, "ca_certs": world.pins["leaf"][0]}
    trust = context.Trust(certfile=certfile, keyfile=keyfile, **pin)
    assert handshakes.in_memory(context.make_context(trust), demanding, HOST) == (
        "",
        handshakes.PING,
    )
    with pytest.raises(ssl.SSLError):
        handshakes.in_memory(context.make_context(context.Trust(**pin)), demanding, HOST)


LIFE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from redis_connection import context
if sys.argv[5] == "pipe":
    del os.memfd_create
pin, certfile, keyfile = (open(path).read() for path in sys.argv[2:5])
trust = context.Trust("required", False, pin, certfile, keyfile)
while True:
    context.make_context(trust)
    print(len(os.listdir("/dev/fd")), flush=True)
"""


@pytest.mark.parametrize("by", ["memory", "pipe"])
@EVERY_PYTHON
def test_a_clients_certificate_as_text_leaves_no_file_behind(version, by, world, client, tmp_path):
    """It leaves no descriptor either, even when it is killed while the text is being read."""
    python = python_of(version)
    place = tmp_path / "place"
    place.mkdir()
    folders = {"TMPDIR": str(place), "HOME": str(place), "TEMP": str(place)}
    arguments = [str(world.package), world.pins["leaf"][0], *client, by]
    for lines in (1, 5, 20, 80):
        with subprocess.Popen(
            [python, "-c", LIFE, *arguments],
            cwd=place,
            env=world.environment() | folders,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            descriptors = {process.stdout.readline() for _ in range(lines)}
            during = list(place.iterdir())
            process.kill()
        assert process.returncode == -9
        assert len(descriptors) == 1
        assert int(descriptors.pop()) < 10
        assert during == list(place.iterdir()) == []


def test_the_weaker_way_would_leave_a_file_behind(world, client, tmp_path):
    """This proves that a file would be found in this folder."""
    changed = "import os, tempfile\nkept = tempfile.NamedTemporaryFile()\n" + LIFE
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            changed,
            str(world.package),
            world.pins["leaf"][0],
            *client,
            "memory",
        ],
        env=world.environment() | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline()
        process.kill()
    assert [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]


# The other texts of the same certificate


def test_a_certificate_of_the_same_name_is_another_one(world):
    """The bytes are what is pinned, so chains must differ where the model says that they do."""
    every = [cert for sent in world.chains.servers.values() for cert in sent]
    assert len({cert.pem for cert in every}) == len({id(cert) for cert in every})
