"""Impostors: no password reaches them, and every program says why."""

import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from harness import impostors, refusals
from harness.answers import ROWS
from harness.deployments import ONE_OF_EACH_TARGET
from harness.impostors import (
    REFUSE,
    SECRET,
    START,
    UNVERIFIED,
    Encounter,
    Meeting,
    impostor_url,
    listing,
)
from harness.leftovers import nothing_left_in
from harness.processes import wait_until
from harness.refusals import KINDS, NO_SECURE_CONNECTION, WRONG_CERTIFICATE
from harness.tls_front import only_tls_1_1

pytestmark = pytest.mark.live
AT_ONCE = 3  # Meetings of up to nine services each. Most of the time is spent waiting.
TOTALS = TRIED, ACCEPTED, CONNECTIONS, RECEIVED = (
    "bad servers tried",
    "accepted",
    "connections seen",
    "bytes received after a handshake",
)


class Totals:
    """The sums of all tests of this file, printed at the end of the run."""

    def __init__(self):
        self.rows = {}
        self.slowest = 0

    def add(self, what, fronts):
        row = self.rows.setdefault(what, dict.fromkeys(TOTALS, 0))
        row[TRIED] += len(fronts)
        row[ACCEPTED] += sum(bool(front.application_bytes) for front in fronts)
        row[CONNECTIONS] += sum(len(front.connections) for front in fronts)
        row[RECEIVED] += sum(front.application_bytes for front in fronts)

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("refusal matrix")
        for what, row in self.rows.items():
            numbers = ", ".join(f"{number} {name}" for name, number in row.items())
            terminalreporter.write_line(f"{what}: {numbers}")
        terminalreporter.write_line(f"slowest refusal: {self.slowest:.1f} of {REFUSE} s")


@pytest.fixture(scope="module")
def totals(request):
    found = Totals()
    request.config.pluginmanager.register(found)
    return found


@pytest.fixture(scope="module")
def tables(server_program, deployment, tmp_path_factory):
    """A migrated database to copy, because all services have the same tables."""
    path = tmp_path_factory.mktemp("database") / "db.sqlite3"
    place = deployment(ONE_OF_EACH_TARGET[0])
    commands = place.configure("redis://localhost:6379/0", DATABASE_URL=f"sqlite:///{path}")
    place.project.predeploy(commands)
    return path


def verifying(deployment, provider, strictness):
    """The deployment that verifies: `recommended` is `required`, or needs a pin to become it."""
    recommended = strictness == "required" or refusals.pinned_itself(ROWS[provider])
    return deployment(provider, "recommended" if recommended else strictness)


def refuses(place, strictness, tables, totals):
    with Meeting(place, refusals.refused(place.row), strictness, tables) as meeting:
        failed = meeting.problems(Encounter.refused)
        totals.add("verifying services", meeting.fronts.values())
        totals.slowest = max(totals.slowest, *(each.slowest for each in meeting.met.values()))
        assert not failed, listing(failed)
        assert meeting.server.commands_seen() == {}


def believes(place, strictness, tables, totals):
    with Meeting(place, KINDS, strictness, tables, only=["worker"]) as meeting:
        failed = meeting.problems(Encounter.believed)
        fronts = meeting.fronts
        believed = [fronts[kind] for kind in WRONG_CERTIFICATE]
        totals.add("cert_strictness=none, bad certificates", believed)
        others = [fronts[kind] for kind in NO_SECURE_CONNECTION]
        totals.add("cert_strictness=none, the other kinds", others)
        assert not failed, listing(failed)
        assert meeting.server.commands_seen()["hello"] >= len(believed)

        # Each row's doctor meets one kind, because a doctor for every kind would take too long.
        kind = list(WRONG_CERTIFICATE)[list(ROWS).index(place.provider) % len(WRONG_CERTIFICATE)]
        place.configure(impostor_url(fronts[kind]))
        _, probes = place.project.doctor()
        assert probes["handshake"]["state"] == "warn"
        assert UNVERIFIED in probes["handshake"]["seen"]
        checked = place.project.manage("check", "--deploy")
        assert "operations.W001" in checked.stderr


@pytest.fixture(scope="module")
def results(request, deployment, tables, totals, tmp_path_factory):
    """{(provider, strictness): a Future} of all meetings that were selected, side by side."""
    chosen = [item for item in request.session.items if item.path == request.path]
    pairs = [item.callspec.params["pair"] for item in chosen if "results" in item.fixturenames]
    with nothing_left_in(tmp_path_factory.getbasetemp()), ThreadPoolExecutor(AT_ONCE) as pool:
        found = {}
        for provider, strictness in pairs:
            # Projects are baked here, one after the other, while earlier meetings go on. Each has
            # its own folder, because a meeting changes the settings of its deployment.
            if strictness == "none":
                place, meeting = deployment(provider, "none"), believes
            else:
                place, meeting = verifying(deployment, provider, strictness), refuses
            place = place.copy(tmp_path_factory.mktemp(f"{provider}-{strictness}-meeting"))
            found[provider, strictness] = pool.submit(meeting, place, strictness, tables, totals)
        return found


@pytest.mark.parametrize("pair", refusals.matrix(ROWS), ids="-".join)
def test_refuses(pair, results):
    results[pair].result()


@pytest.mark.parametrize("pair", [(provider, "none") for provider in ROWS], ids="-".join)
def test_without_verification_every_certificate_is_believed_and_it_says_so(pair, results):
    """This also proves that the zeros above are counted."""
    results[pair].result()


@pytest.mark.parametrize("strictness", refusals.STRICT)
@pytest.mark.parametrize("provider", [key for key in ROWS if refusals.accepted(ROWS[key])])
def test_the_pin_and_not_the_name_identifies_the_server(provider, strictness, deployment, tables):
    place = verifying(deployment, provider, strictness)
    with Meeting(place, refusals.accepted(place.row), strictness, tables) as meeting:
        assert meeting.problems(Encounter.accepted) == {}
        assert meeting.server.commands_seen()["hello"] > 0


# Each thing that verification relies on is taken away, and the matrix above must notice.
CONTEXT = "redis_connection/context.py"
NAME_CHECK = {"context.check_hostname = trust.verified": "context.check_hostname = False"}
WEAKENED = {
    "the host name is not compared": (
        "self_hosted",
        ["wrong host", "public CA, another host"],
        CONTEXT,
        NAME_CHECK,
    ),
    "the pin is not checked": (
        "memorystore_redis",
        ["public CA, another host"],
        CONTEXT,
        {
            "trusting_the_pins(trust) if trust.pinned else trusting_the_system(trust)": (
                "trusting_the_system(trust)\n    context.check_hostname = trust.check_hostname"
            )
        },
    ),
    "no certificate is verified": (
        "self_hosted",
        list(WRONG_CERTIFICATE),
        CONTEXT,
        {'ssl.VerifyMode[f"CERT_{trust.cert_reqs.upper()}"]': "ssl.CERT_NONE", **NAME_CHECK},
    ),
    "old TLS is spoken": (
        "upstash",
        ["TLS 1.1 only"],
        CONTEXT,
        {
            "context.minimum_version = ssl.TLSVersion.TLSv1_2": (
                "context.minimum_version = ssl.TLSVersion.TLSv1"
                "; context.set_ciphers('DEFAULT@SECLEVEL=0')"
            )
        },
    ),
    "no TLS is spoken": (
        "upstash",
        ["plain port"],
        "redis_connection/policy.py",
        {"Policy(redis_url.text,": 'Policy(redis_url.text.replace("rediss:", "redis:"),'},
    ),
}


@pytest.mark.parametrize("weakness", WEAKENED)
def test_a_weaker_service_would_be_caught(weakness, deployment, tables, tmp_path):
    provider, kinds, file, changes = WEAKENED[weakness]
    place = deployment(provider).copy(tmp_path / "weaker")
    change(place.project.path / file, changes)
    with Meeting(place, kinds, "required", tables) as meeting:
        assert list(meeting.problems(Encounter.refused)) == kinds
        assert all(front.application_bytes for front in meeting.fronts.values())


def test_a_slower_service_would_be_caught(deployment, tables, tmp_path):
    """The time of `.delay()` counts from the request, not from its answer."""
    place = deployment("self_hosted").copy(tmp_path / "slower")
    change(
        place.project.path / "config" / "settings.py",
        {'{"max_retries": 0}': '{"max_retries": 1, "interval_start": 20}'},
    )
    with Meeting(place, ["another CA"], "required", tables) as meeting:
        (problem,) = meeting.problems(Encounter.refused).values()
        assert re.search("not queued yet.* of the web: after 2[0-9] s$", problem, re.MULTILINE)


def change(path, changes):
    """Replace texts in a file, each of which must stand there once."""
    text = path.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{path.name} has changed: {old}"
        text = text.replace(old, new)
    path.write_text(text)


# The other programs that connect to Redis

CLIENTS = {
    "doctor": "python manage.py doctor",
    "doctor --certificate": "python manage.py doctor --certificate",
    "celery inspect": "celery -A config inspect ping",
    "celery status": "celery -A config status",
    "celery call": "celery -A config call operations.tasks.housekeeping",
    "celery purge": "celery -A config purge --force",
    "results": (
        'python manage.py shell -c "from config.celery import app; app.backend.client.ping()"'
    ),
}


@pytest.mark.parametrize("kind", ["another CA", "public CA, another host"])
@pytest.mark.parametrize("provider", ["upstash", "heroku"])
def test_no_other_program_talks_to_it(provider, kind, deployment, impostor, certificates):
    place = deployment(provider)
    place.configure("rediss://localhost:6379/0")
    pin = impostors.settings(kind, place.row, "required", certificates.herokus, certificates)
    met = {name: impostor(kind) for name in CLIENTS}

    def run(name):
        url = impostor_url(met[name][0])
        settings = {place.row["url_env"]: url, "CELERY_RESULT_BACKEND": url, **pin}
        return place.project.run(CLIENTS[name], settings)

    with ThreadPoolExecutor(len(met)) as pool:
        ended = dict(zip(met, pool.map(run, met), strict=True))
    for name, done in ended.items():
        front, server = met[name]
        output = done.stdout + done.stderr
        # This command is there to look at certificates that are not known yet.
        assert (done.returncode == 0) == (name == "doctor --certificate"), (name, output)
        assert SECRET not in output
        assert front.connections, name
        assert front.application_bytes == 0, name
        assert server.commands_seen() == {}, name


@pytest.mark.parametrize(
    ("provider", "kind"),
    [("self_hosted", "another CA")]
    + [(provider, "public CA, another host") for provider in ONE_OF_EACH_TARGET],
)
def test_nothing_of_a_whole_deployment_talks_to_it(
    provider, kind, deployment, impostor, certificates, running, tmp_path
):
    """All programs run as the target starts them. Beat's first task is due at once here."""
    front, server = impostor(kind)
    place = deployment(provider).copy(tmp_path / "busy")
    change(
        place.project.path / "config" / "settings.py",
        {'"schedule": 120': '"schedule": 1'},
    )
    pin = impostors.settings(kind, place.row, "required", certificates.herokus, certificates)
    service = running(place.start(impostor_url(front), **pin))
    service.wait_for_status("/healthz", 200, START)
    why = f".*({KINDS[kind]})"
    for said in (f"consumer: Cannot connect{why}", f"beat: Connection error{why}"):
        wait_until(lambda said=said: re.search(said, service.output()), START, said)
    status, text, _ = service.status("/readyz")
    assert status == 503, text
    code, probes = place.project.doctor()
    assert code == 1
    assert probes["handshake"]["state"] == "fail"
    assert probes["handshake"]["fix"]
    assert probes["auth"]["state"] == "not reached"
    assert front.application_bytes == 0
    assert server.commands_seen() == {}
    assert SECRET not in service.output() + str(probes)
    service.stop(28)


# The bad servers themselves: only their flaw keeps a client away


def hello(front, context):
    """Speak TLS to it; return the version and the answer to a PING."""
    sock = socket.create_connection(("localhost", front.port), 10)
    with context.wrap_socket(sock, server_hostname="localhost") as tls:
        tls.sendall(b"PING\r\n")
        return tls.version(), tls.recv(100)


@pytest.fixture
def open_front(redis_server, certificates, tmp_path):
    """open_front(kind) -> the running front of a row whose CA is the owner's."""
    with ExitStack() as stack:

        def open_front(kind):
            row = ROWS["self_hosted"]
            shown = impostors.certificate(kind, row, certificates, tmp_path)
            server = redis_server(port=0, password=None)
            return stack.enter_context(impostors.front(kind, shown, server, certificates))

        yield open_front


def test_the_server_of_tls_1_1_serves_those_who_speak_it(open_front, certificates):
    context = ssl.create_default_context(cafile=certificates.own.pem)
    only_tls_1_1(context)
    front = open_front("TLS 1.1 only")
    assert hello(front, context) == ("TLSv1.1", b"+PONG\r\n")
    assert front.application_bytes == len(b"PING\r\n")


def test_the_server_of_client_certificates_serves_those_who_have_one(open_front, certificates):
    client = certificates.own.issue("client")
    context = ssl.create_default_context(cafile=certificates.own.pem)
    context.load_cert_chain(client.chain, client.key)
    assert hello(open_front("no client certificate"), context) == ("TLSv1.3", b"+PONG\r\n")


def test_the_doctor_asks_a_plain_port_for_no_more_than_a_pong(open_front, deployment):
    """It asks to tell a port without TLS from a server that ends connections."""
    front = open_front("plain port")
    place = deployment("upstash")
    place.configure(impostor_url(front))
    code, probes = place.project.doctor()
    assert code == 1
    assert probes["handshake"]["state"] == "fail"
    assert {seen.plain for seen in front.connections if seen.received} == {b"PING\r\n"}


def test_a_plain_port_counts_what_is_not_a_handshake(open_front):
    front = open_front("plain port")
    with socket.create_connection(("localhost", front.port), 10) as sock:
        sock.sendall(b"PING\r\n")
        assert sock.recv(100) == b"+PONG\r\n"
    assert front.application_bytes == len(b"PING\r\n")
    assert front.connections[0].first_byte == b"P"


@pytest.mark.parametrize("kind", WRONG_CERTIFICATE)
def test_a_bad_certificate_serves_those_who_do_not_look(kind, open_front):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    assert hello(open_front(kind), context) == ("TLSv1.3", b"+PONG\r\n")
