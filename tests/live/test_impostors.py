"""Impostors: no password reaches them, and every program says why.

Each kind of bad server meets one service of each class of TLS policies. The classes are in
harness/policy_classes.py, and tests/unit/test_policy_classes.py proves that every row is in one.
"""

import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from harness import impostors, refusals
from harness.answers import ROWS, varied
from harness.deployments import ONE_OF_EACH_TARGET
from harness.edits import change
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
from harness.policy_classes import CLASSES, rendered_strictness
from harness.processes import wait_until
from harness.refusals import KINDS, NO_SECURE_CONNECTION, WRONG_CERTIFICATE
from harness.tallies import proven, slowest, tally
from harness.tls_front import only_tls_1_1

RIGHT_SERVERS = "right servers by another name, pinned"


def those_who_meet(kinds):
    """Parameters for the services of harness/policy_classes.py, with each of these kinds.

    `optional` differs from `required` in nothing that a client does (D-13).
    """
    return [
        pytest.param(
            strictness,
            provider,
            kind,
            id=f"{name}-{strictness}-{kind}",
            marks=[pytest.mark.all] if strictness == "optional" else [],
        )
        for name, strictness, provider, kind in refusals.met(kinds)
    ]


def verifying(deployment, provider, strictness):
    return deployment(provider, rendered_strictness(ROWS[provider], strictness))


def count(what, meeting):
    """Add what the bad servers saw to what is printed at the end of the run."""
    fronts = meeting.fronts.values()
    connections = sum(len(front.connections) for front in fronts)
    tally(
        "refusal matrix",
        what,
        servers_tried=len(fronts),
        accepted=sum(bool(front.application_bytes) for front in fronts),
        connections_seen=connections,
        bytes_received_after_a_handshake=sum(front.application_bytes for front in fronts),
    )
    bad = what != RIGHT_SERVERS
    proven(bad_servers_met=len(fronts) if bad else 0)


@pytest.mark.parametrize(("strictness", "provider", "kind"), those_who_meet(refusals.refused))
def test_refuses(strictness, provider, kind, deployment, tables):
    place = verifying(deployment, provider, strictness)
    with Meeting(place, [kind], strictness, tables) as meeting:
        failed = meeting.problems(Encounter.refused)
        count("services that verify", meeting)
        slowest("refusal matrix", f"refusal, of {REFUSE} s at most", meeting.met[kind].slowest)
        assert not failed, listing(failed)
        assert meeting.server.commands_seen() == {}


@pytest.mark.parametrize(("strictness", "provider", "kind"), those_who_meet(refusals.accepted))
def test_the_pin_and_not_the_name_identifies_the_server(
    strictness, provider, kind, deployment, tables
):
    place = verifying(deployment, provider, strictness)
    with Meeting(place, [kind], strictness, tables) as meeting:
        assert meeting.problems(Encounter.accepted) == {}
        count(RIGHT_SERVERS, meeting)
        assert meeting.server.commands_seen()["hello"] > 0


@pytest.fixture
def believing(deployment):
    """The deployment that verifies nothing, for all that do not."""
    return deployment(CLASSES["not_verified"].met_by["none"], "recommended")


@pytest.mark.parametrize("kind", varied(WRONG_CERTIFICATE, 2))
def test_without_verification_every_certificate_is_believed_and_it_says_so(kind, believing, tables):
    """This also proves that the zeros above are counted."""
    with Meeting(believing, [kind], "none", tables, only=["worker"]) as meeting:
        failed = meeting.problems(Encounter.believed)
        count("not verified, bad certificates", meeting)
        assert not failed, listing(failed)
        assert meeting.server.commands_seen()["hello"] > 0
        _, probes = believing.project.doctor()
        assert probes["handshake"]["state"] == "warn"
        assert UNVERIFIED in probes["handshake"]["seen"]


@pytest.mark.parametrize("kind", varied(NO_SECURE_CONNECTION))
def test_without_verification_it_still_wants_tls(kind, believing, tables):
    with Meeting(believing, [kind], "none", tables, only=["worker"]) as meeting:
        failed = meeting.problems(Encounter.believed)
        count("not verified, the other kinds", meeting)
        assert not failed, listing(failed)
        assert meeting.server.commands_seen() == {}


def test_without_verification_the_deploy_check_warns(believing):
    believing.configure("rediss://localhost:6379/0")
    checked = believing.project.manage("check", "--deploy")
    assert "operations.W001" in checked.stderr


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


@pytest.mark.all
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


@pytest.mark.parametrize("kind", varied(["another CA", "public CA, another host"]))
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
    varied(
        [("self_hosted", "another CA")]
        + [(provider, "public CA, another host") for provider in ONE_OF_EACH_TARGET],
        2,
    ),
)
def test_nothing_of_a_whole_deployment_talks_to_it(
    provider, kind, deployment, impostor, certificates, running, tmp_path_factory
):
    """All programs run as the target starts them. Beat's first task is due at once here."""
    front, server = impostor(kind)
    place = deployment(provider).copy(tmp_path_factory.mktemp("busy"))
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
