"""Every cause that the doctor names, provoked on a real server."""

import contextlib
import itertools
import json
import os
import re
import runpy
import shutil
import signal
import socket
import sqlite3
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from harness.answers import SERVICE, each
from harness.certificates import Authority, self_signed
from harness.deployments import PASSWORD
from harness.edits import change
from harness.processes import Failed, Program, free_port, wait_until
from harness.redis_server import INSTALL, RedisServer, find_server
from harness.service import Service

KNOWN = runpy.run_path(str(SERVICE / "redis_connection" / "hints.py"))
# Each alternative of a pattern stands by itself.
CAUSES = {part: hint.text for hint in KNOWN["HINTS"] for part in hint.pattern.split("|")}
WAY = ["resolve", "connect", "handshake", "auth", "ping"]
SERVER = ["eviction", "memory", "connections", "redis db", "write", "results"]
TASKS = ["queues", "round trip", "consumers", "workers", "emails", "put aside", "beat"]
PROBES = [*WAY, *SERVER, *TASKS]


@dataclass
class Case:
    """How to provoke a cause, and what the doctor must say: which probe, its state and the fix.

    `cause` is the part of a pattern in CAUSES, if the fix comes from there.
    """

    provoke: object
    probe: str
    fix: str
    seen: str
    state: str
    cause: str | None


CASES = {}


def case(probe, fix, *, seen="", state="fail"):
    """Note a function that takes a World and returns the URL to give to the doctor."""

    def note(provoke):
        name = provoke.__name__.replace("_", " ")
        cause = fix if fix in CAUSES else None
        CASES[name] = Case(provoke, probe, CAUSES.get(fix, fix), seen, state, cause)
        return provoke

    return note


class World:
    """Servers for one case, and the variables to give to the doctor besides the URL."""

    def __init__(self, certificates, stack):
        self.certificates = certificates
        self.own = certificates.own
        self.stack = stack
        self.settings = {}

    def redis(self, certificate="good", **options):
        """A running server, with TLS unless `certificate` is None."""
        if certificate == "good":
            certificate = self.certificates.of_own
        options.setdefault("password", PASSWORD)
        return self.stack.enter_context(RedisServer(certificate, **options))

    def as_ada(self, rights):
        """Return the URL of a server for a user with these rights."""
        server = self.redis(password=None, extra=[f"user ada on >pw ~* &* {rights}"])
        return server.url().replace("://", "://ada:pw@")

    def present(self, certificate):
        """Let the doctor show this client certificate."""
        self.settings["REDIS_CLIENT_CERT"] = str(certificate.chain)
        self.settings["REDIS_CLIENT_KEY"] = str(certificate.key)

    def asking(self, *extra):
        """Return the URL of a server that asks for a client certificate."""
        ca = f"tls-ca-cert-file {self.own.pem}"
        return self.redis(extra=[ca, "tls-auth-clients yes", *extra]).url()

    def silent(self, backlog=None):
        """Return the address of a silent port. With `backlog` 0 it soon answers no SYN either."""
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=backlog))
        return listener.getsockname()

    def speaking(self, words, context=None):
        """Return the port of a server that reads once, says this and ends the connection."""
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    sock = listener.accept()[0]
                    with contextlib.suppress(OSError), sock:
                        if context:
                            sock = context.wrap_socket(sock, server_side=True)
                        else:
                            sock.recv(1000)
                        sock.sendall(words)
                        sock.close()

        threading.Thread(target=serve, daemon=True).start()
        # This wakes accept(), which closing the socket would not do.
        self.stack.callback(listener.shutdown, socket.SHUT_RDWR)
        return listener.getsockname()[1]


HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"


def secure(url):
    return url.replace("redis://", "rediss://")


def plain(url):
    return url.replace("rediss://", "redis://")


# The way to the server


@case("resolve", KNOWN["HOST"])
def unknown_host(world):
    return "rediss://:pw@no-such-host.invalid:6379/0"


@case("connect", "connection refused")
def nobody_listens(world):
    return f"rediss://:pw@localhost:{free_port()}/0"


@case("connect", "timed out")
def packets_are_dropped(world):
    address = world.silent(backlog=0)
    for _ in range(3):
        sock = world.stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.connect_ex(address)
    return f"rediss://:pw@127.0.0.1:{address[1]}/0"


@case("handshake", "timeout")
def port_says_nothing(world):
    return f"rediss://:pw@localhost:{world.silent()[1]}/0"


# TLS


@case("handshake", KNOWN["NOT_TLS"])
def tls_to_a_plain_port(world):
    return secure(world.redis(None).url())


@case("auth", KNOWN["TLS"])
def plain_to_a_tls_port(world):
    return plain(world.redis().url())


@case("handshake", "local issuer")
def certificate_of_another_ca(world):
    return world.redis(world.certificates.stranger.issue()).url()


@case("handshake", "local issuer")
def the_ca_between_is_not_sent(world):
    leaf = Authority(world.own.pem.parent, "Middle CA", parent=world.own).issue()
    end = "-----END CERTIFICATE-----\n"
    first, _, rest = leaf.chain.read_text().partition(end)
    assert rest
    leaf.chain.write_text(first + end)
    return world.redis(leaf).url()


@case("handshake", "self-signed certificate in")
def no_ca_given(world):
    """A server's chain ends in its own CA, which the client does not know."""
    world.settings["REDIS_CA_CERTS"] = None
    leaf = world.certificates.of_own
    chain = leaf.chain.with_name("chain-with-root.pem")
    chain.write_text(leaf.chain.read_text() + world.own.pem.read_text())
    return world.redis(replace(leaf, chain=chain)).url()


@case("handshake", "self-signed certificate")
def its_own_ca(world):
    return world.redis(world.certificates.herokus).url()


@case("handshake", "not issued by REDIS_CA_CERTS")
def public_certificate_instead_of_the_pinned_one(world):
    world.settings["REDIS_CHECK_HOSTNAME"] = "false"
    return world.redis(world.certificates.of_public).url()


@case("handshake", "certificate is not valid for", seen="Hostname mismatch")
def certificate_for_another_host(world):
    return world.redis(world.own.issue("redis.example")).url()


@case("handshake", "certificate has expired")
def expired(world):
    return world.redis(world.own.issue(expired=True)).url()


@case("handshake", KNOWN["CA_EXPIRED"], seen="certificate has expired")
def expired_ca_of_a_valid_certificate(world):
    ca = Authority(world.own.pem.parent, "Expired CA", days=(-30, -1))
    world.settings["REDIS_CA_CERTS"] = str(ca.pem)
    return world.redis(ca.issue()).url()


@case("handshake", "certificate purpose")
def certificate_for_clients_only(world):
    leaf = world.own.issue_nameless("client only", ExtendedKeyUsageOID.CLIENT_AUTH)
    return world.redis(leaf).url()


@case("handshake", "not yet valid")
def not_yet_valid(world):
    return world.redis(world.own.issue(days=(1, 30))).url()


@case("handshake", "Renew the server's certificate:", seen="issuer Own test CA", state="warn")
def expires_soon(world):
    return world.redis(world.own.issue(days=(-80, 13.9))).url()


@case("handshake", "", seen="issuer Own test CA", state="ok")
def does_not_expire_soon(world):
    return world.redis(world.own.issue(days=(-80, 14.1))).url()


@case("handshake", "Set REDIS_CERT_REQS=required", seen="not verified", state="warn")
def not_verified(world):
    world.settings["REDIS_CERT_REQS"] = "none"
    return world.redis(world.certificates.herokus).url()


@case("handshake", "PROTOCOL_VERSION")
def only_tls_1_1(world):
    old = ['tls-protocols "TLSv1.1"', "tls-ciphers ALL:@SECLEVEL=0"]
    return world.redis(extra=old).url()


@case("auth", "CERTIFICATE_REQUIRED")
def no_client_certificate(world):
    return world.asking()


@case("handshake", "HANDSHAKE_FAILURE")
def no_client_certificate_in_tls_1_2(world):
    return world.asking('tls-protocols "TLSv1.2"')


@case("auth", "UNKNOWN_CA")
def client_certificate_of_another_ca(world):
    world.present(world.certificates.stranger.issue("client"))
    return world.asking()


@case("auth", "CERTIFICATE_EXPIRED")
def expired_client_certificate(world):
    world.present(world.own.issue("client", expired=True))
    return world.asking()


@case("auth", "_CERTIFICATE")
def client_certificate_for_servers_only(world):
    world.present(world.own.issue_nameless("server only", ExtendedKeyUsageOID.SERVER_AUTH))
    return world.asking()


@case("handshake", "_CERTIFICATE", seen="BAD_CERTIFICATE")
def client_certificate_that_is_revoked(world):
    """The server sends OpenSSL's fatal alert number 42."""
    return f"rediss://:pw@localhost:{world.speaking(bytes.fromhex('1503030002022a'))}/0"


@case("handshake", KNOWN["PLAINTEXT"], seen="plain text, not encrypted", state="warn")
def plain_text_to_a_public_host(world):
    """127.1 is not a private name, but it is an address of this machine."""
    world.settings["REDIS_ALLOW_PLAINTEXT"] = "127.1"
    return world.redis(None).url("127.1")


@case("handshake", "", seen="as DEBUG or settings.py allows", state="ok")
def plain_text_in_development(world):
    world.settings["DEBUG"] = "true"
    return world.redis(None).url("127.1")


@case("handshake", "", seen="plain text, not encrypted", state="ok")
def plain_text_in_a_private_network(world):
    return world.redis(None).url()


# Something else


@case("handshake", KNOWN["NOT_TLS"], seen="WRONG_VERSION_NUMBER")
def tls_to_a_web_server(world):
    return f"rediss://:pw@localhost:{world.speaking(HTTP)}/0"


@case("auth", "Protocol Error", seen="HTTP")
def a_web_server(world):
    return f"redis://:pw@localhost:{world.speaking(HTTP)}/0"


@case("auth", "closed by")
def nothing_behind_the_tls_of_a_load_balancer(world):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(world.certificates.of_own.chain, world.certificates.of_own.key)
    return f"rediss://:pw@localhost:{world.speaking(b'', context)}/0"


# Answers of servers that are not here: Redis before 6 and 7, Render's, Upstash's and others
SAYINGS = {
    "not in the list": ("allowlist", "ERR AUTH failed: Client IP address is not in the allowlist."),
    "missing token": ("AuthenticationError", "WRONGPASS invalid or missing auth token"),
    "too many clients": ("exceeded", "ERR max concurrent connections exceeded"),
    "too many requests": ("exceeded", "ERR max requests limit exceeded. Limit: 500000"),
    "refused command": ("is not available", "ERR Command is not available: 'HELLO'."),
    "quoted by Redis 6": ("command .SELECT", "ERR unknown command `SELECT`, with args: `3`"),
    "loading": ("loading the dataset", "LOADING Redis is loading the dataset in memory"),
    "cannot save": ("MISCONF", "MISCONF Redis is configured to save RDB snapshots"),
    "cluster down": ("ClusterDown", "CLUSTERDOWN The cluster is down"),
    "password for Redis 5": ("no password is set", "ERR Client sent AUTH, but no password is set"),
    "password for none": (
        "any password",
        "ERR AUTH <password> called without any password configured for the default user.",
    ),
    "protected mode": (
        "protected mode",
        "DENIED Redis is running in protected mode because protected mode is enabled and no"
        " password is set for the default user.",
    ),
    "nobody knows": (KNOWN["UNKNOWN"], "TEAPOT short and stout"),
}

for name, (fix, words) in SAYINGS.items():

    def says(world, words=words):
        port = world.speaking(f"-{words}\r\n".encode())
        return f"redis://:pw@localhost:{port}/0"

    says.__name__ = f"says {name}"
    case("auth", fix)(says)


# What the server allows


@case("auth", "AuthenticationError", seen="username-password")
def wrong_password(world):
    return re.sub(":[^:@]+@", ":wrong@", world.redis().url())


@case("auth", "AuthenticationError", seen="Authentication required")
def no_password(world):
    return re.sub(":[^:@]+@", "", world.redis().url())


def with_no_connection_left(world, certificate):
    server = world.redis(certificate, maxclients=1)
    held = world.stack.enter_context(socket.socket(socket.AF_UNIX))
    held.connect(str(server.socket))
    held.sendall(b"PING\r\n")
    held.recv(1)
    return server.url()


@case("handshake", KNOWN["FULL"])
def no_connection_left(world):
    return with_no_connection_left(world, "good")


@case("auth", "max number of clients")
def no_connection_left_without_tls(world):
    return with_no_connection_left(world, None)


@case("auth", "unknown command", seen="'HELLO'")
def a_server_that_repeats_the_password(world):
    return world.redis(extra=['rename-command HELLO ""']).url()


@case("connections", "max number of clients", seen="37 of 40 used", state="warn")
def hardly_a_connection_left(world):
    server = world.redis(maxclients=40)
    for _ in range(36):
        world.stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(server.socket))
    return server.url()


@case("ping", "no permissions")
def a_right_is_missing(world):
    return world.as_ada("+@all -ping")


@case("eviction", "Look in your provider's console", seen="unknown", state="warn")
def config_and_info_are_denied(world):
    return world.as_ada("+@all -config -info")


@case("eviction", "Set maxmemory-policy to noeviction", seen="allkeys-lru", state="warn")
def evicting_policy(world):
    return world.redis(policy="allkeys-lru").url()


@case("eviction", "", seen="volatile-lru: queues never expire", state="ok")
def policy_that_spares_queues(world):
    return world.redis(policy="volatile-lru").url()


@case("memory", "No task is taken once the memory is full", seen="MiB used, of 4.0", state="warn")
def hardly_memory_left(world):
    return filled(world, 0.93)


@case("write", "used memory >")
def no_memory_left(world):
    return filled(world, 1)


def filled(world, part):
    """Return the URL of a server that uses this part of its 4 MB of memory."""
    server = world.redis(extra=["maxmemory 4mb"])
    numbers = itertools.count()

    def is_filled():
        server.command("SET", f"fill-{next(numbers)}", "x" * 20_000)
        used = re.search(r"used_memory:(\d+)", server.command("INFO", "memory"))[1]
        return int(used) > part * 4 * 2**20

    with contextlib.suppress(Failed):  # The server takes no more.
        wait_until(is_filled, 20, "memory is filled", every=0)
    return server.url()


@case("redis db", "DB index")
def database_that_is_not_there(world):
    return world.redis(databases=2).url(database=5)


def cluster(world, first=0, last=16383):
    """A server in cluster mode that serves these slots, of 0 to 16383."""
    part = ["cluster-enabled yes", "cluster-require-full-coverage no"]
    server = world.redis(extra=[*part, f"cluster-port {free_port()}"])
    server.command("CLUSTER", "ADDSLOTSRANGE", first, last)
    wait_until(lambda: "state:ok" in server.command("CLUSTER", "INFO"), 20, "the cluster is up")
    return server


@case("redis db", "command .SELECT")
def no_database_can_be_selected(world):
    return world.redis(extra=['rename-command SELECT ""']).url(database=3)


@case("redis db", "SELECT is not")
def database_in_cluster_mode(world):
    return cluster(world).url(database=1)


@case("write", "ClusterDown", seen="slot not served")
def cluster_that_is_not_whole(world):
    return cluster(world, last=0).url()


@case("write", "MovedError")
def cluster_of_several_shards(world):
    first, second = cluster(world, last=0), cluster(world, first=1)
    bus = re.search(r"@(\d+)", second.command("CLUSTER", "NODES"))[1]
    first.command("CLUSTER", "MEET", "127.0.0.1", second.port, bus)
    whole = "cluster_slots_ok:16384"
    wait_until(lambda: whole in first.command("CLUSTER", "INFO"), 20, "one cluster of both")
    return first.url()


@case("write", "read only replica")
def replica(world):
    return world.redis(extra=[f"replicaof 127.0.0.1 {free_port()}"]).url()


@case("ping", "MasterDownError")
def replica_without_its_primary(world):
    server = world.redis(extra=[f"replicaof 127.0.0.1 {free_port()}"])
    server.command("CONFIG", "SET", "replica-serve-stale-data", "no")
    return server.url()


@case("write", "not enough good replicas")
def primary_without_its_replicas(world):
    return world.redis(extra=["min-replicas-to-write 1"]).url()


@case("results", f"CELERY_RESULT_BACKEND: {CAUSES['connection refused']}")
def results_elsewhere(world):
    world.settings["CELERY_RESULT_BACKEND"] = f"rediss://:pw@localhost:{free_port()}/0"
    return world.redis().url()


@case("results", f"CELERY_RESULT_BACKEND: {CAUSES['AuthenticationError']}")
def wrong_password_of_the_results(world):
    url = world.redis().url()
    world.settings["CELERY_RESULT_BACKEND"] = re.sub(":[^:@]+@", ":wrong@", url)
    return url


@case("round trip", "Tasks run in the process that sends them")
def no_worker_is_asked(world):
    world.settings["DJANGO_SETTINGS_MODULE"] = "eager"
    return world.redis().url()


@case("round trip", "No worker is there", seen="no answer from celery")
def no_worker(world):
    return world.redis().url()


@case("round trip", "Read the worker's log")
def no_worker_and_no_remote_control(world):
    world.settings["CELERY_REMOTE_CONTROL"] = "false"
    return world.redis().url()


@pytest.fixture(scope="module")
def place(deployment, tmp_path_factory):
    """A project of its own, because other tests change the settings of the shared one."""
    if find_server() is None:
        pytest.skip(f"NOT TESTED: {INSTALL}")
    place = deployment("self_hosted").copy(tmp_path_factory.mktemp("doctor"))
    place.project.predeploy(place.configure("redis://localhost"))
    settings = "from config.settings import *\nCELERY_TASK_ALWAYS_EAGER = True\n"
    (place.project.path / "eager.py").write_text(settings)
    return place


@pytest.mark.parametrize("name", each(2, CASES))
def test_names_the_cause(name, place, certificates):
    case = CASES[name]
    with contextlib.ExitStack() as stack:
        world = World(certificates, stack)
        url = case.provoke(world)
        code, probes = place.project.doctor(env=world.settings | {"REDIS_URL": url})
    assert list(probes) == PROBES
    probe = probes[case.probe]
    assert probe["state"] == case.state, probes
    assert case.seen in probe["seen"]
    assert probe["fix"].startswith(case.fix)
    assert bool(probe["fix"]) == (case.state != "ok")
    assert PASSWORD not in str(probes)
    # The doctor stops at the first failure: at this probe, or at the round trip without a worker.
    end = case.probe if case.state == "fail" else "round trip"
    assert code == 1
    index = PROBES.index(end)
    assert probes[end]["state"] == "fail"
    assert {probes[name]["state"] for name in PROBES[:index]} <= {"ok", "warn"}
    assert {probes[name]["state"] for name in PROBES[index + 1 :]} <= {"not reached"}


def test_every_known_cause_is_provoked():
    """The causes of the next three tests are included."""
    by_themselves = {"same slot", "No such file", "No route", "unreachable"}
    assert {case.cause for case in CASES.values()} - {None} == set(CAUSES) - by_themselves
    others = {"TLS", "NOT_TLS", "FULL", "CA_EXPIRED", "PLAINTEXT", "UNKNOWN"}
    assert {KNOWN[name] for name in others} <= {case.fix for case in CASES.values()}


def test_keys_in_several_slots_of_a_cluster(place, certificates, tmp_path):
    """The owner has changed the prefix, so that a worker would start and die."""
    project = place.copy(tmp_path).project
    project.settings = place.project.settings
    change_settings(project, '"{" + SERVICE_NAME + "}:"', 'SERVICE_NAME + ":"')
    with contextlib.ExitStack() as stack:
        server = cluster(World(certificates, stack))
        code, probes = project.doctor(env={"REDIS_URL": server.url()})
    assert code == 1
    assert probes["queues"]["state"] == "fail"
    assert probes["queues"]["fix"] == CAUSES["same slot"]


def test_a_file_that_goes_while_the_service_runs(place, redis_server, certificates, tmp_path):
    """/readyz would log this. At the start such a file is refused."""
    ca = shutil.copy(certificates.own.pem, tmp_path)
    url = redis_server(certificates.of_own).url()
    code = (
        "import os; from django.conf import settings; from operations.probes import Probe;"
        "from redis_connection.diagnosis import RedisDiagnosis;"
        "redis = RedisDiagnosis(settings.REDIS); os.unlink(redis.policy.ca_certs);"
        "print(Probe('', redis.handshake).run().hint)"
    )
    env = {"REDIS_URL": url, "REDIS_CA_CERTS": ca}
    done = place.project.manage("shell", "-v", "0", "-c", code, env=env)
    assert done.stdout == f"{CAUSES['No such file']}\n", done.stderr


NETWORK = {
    "resolve": ("getaddrinfo", "socket.gaierror(socket.EAI_AGAIN, 'Try again')", "NAME_SERVER"),
    "connect": ("create_connection", "OSError(errno.{0}, os.strerror(errno.{0}))", "unreachable"),
}


@pytest.mark.parametrize(
    "step, code", [("resolve", ""), ("connect", "EHOSTUNREACH"), ("connect", "ENETUNREACH")]
)
def test_a_network_that_leads_nowhere(step, code, place):
    """The error is raised by hand, because not every machine can be made to raise it."""
    function, error, fix = NETWORK[step]
    code = (
        "import errno, os, socket; from unittest import mock; from django.conf import settings;"
        "from operations.probes import Probe;"
        "from redis_connection.diagnosis import RedisDiagnosis;"
        f"error = {error.format(code)};"
        f"mock.patch.object(socket, '{function}', side_effect=error).start();"
        f"print(Probe('', RedisDiagnosis(settings.REDIS).{step}).run().hint)"
    )
    done = place.project.manage("shell", "-v", "0", "-c", code, env={"REDIS_URL": "redis://h"})
    assert done.stdout == f"{(KNOWN | CAUSES)[fix]}\n", done.stderr


def change_settings(project, old, new):
    change(project.path / "config" / "settings.py", {old: new})


# Behind the server: workers, queues and beat


@pytest.fixture
def server(redis_server, certificates):
    return redis_server(certificates.of_own)


@pytest.fixture
def worker(place, server, running, tmp_path):
    """worker(project, url, ready) -> a worker alone, as a Program that has said it is `ready`."""
    # A worker sweeps once when it starts.
    swept = r"Task operations.tasks.sweep\[\S+\] succeeded"

    def start(project=place.project, url=None, ready=swept):
        program = Program(
            "worker",
            [str(project.python), "-m", "celery", "-A", "config", "worker", "-c", "1"],
            cwd=project.path,
            env=project.environment({"REDIS_URL": url or server.url()}),
            log=tmp_path / "worker.log",
        )
        running(Service(project, None, {"worker": program}))
        program.wait_for(ready, 60)
        return program

    return start


def beat_once(place, server, program):
    """Do what beat does: send housekeeping, which leaves the heartbeat."""
    code = "from operations.tasks import housekeeping; housekeeping.delay()"
    done = place.project.manage("shell", "-c", code, env={"REDIS_URL": server.url()})
    assert done.returncode == 0, done.stderr
    program.wait_for(r"Task operations.tasks.housekeeping\[\S+\] succeeded", 30)


def heartbeats(place, statement):
    """Change the table of heartbeats."""
    path = place.project.settings["DATABASE_URL"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        assert database.execute(statement).rowcount == 1


def test_beat_is_silent(place, server, worker):
    beat_once(place, server, worker())
    env = {"REDIS_URL": server.url()}
    assert place.project.doctor(env=env)[0] == 0
    old = "UPDATE operations_heartbeat SET at = datetime(at, '-6 minutes')"
    for statement in (old, "DELETE FROM operations_heartbeat"):
        heartbeats(place, statement)
        code, probes = place.project.doctor(env=env)
        assert code == 1
        assert {name for name in PROBES if probes[name]["state"] != "ok"} == {"beat"}
        assert probes["beat"]["state"] == "fail"
        assert "see that beat runs" in probes["beat"]["fix"]
    assert probes["beat"]["seen"] == "last housekeeping: never"


def test_a_queue_without_a_consumer(place, server, worker, tmp_path):
    project = place.copy(tmp_path).project
    project.settings = place.project.settings
    routes = (
        'CELERY_TASK_ROUTES = {"authentication.*": {"queue": "mail"}}\n\nCELERY_BROKER_USE_SSL ='
    )
    change_settings(project, "CELERY_BROKER_USE_SSL =", routes)
    worker(project)
    code, probes = project.doctor(env={"REDIS_URL": server.url()})
    assert code == 1
    assert probes["queues"]["seen"] == "0 waiting in celery, 0 waiting in mail"
    assert probes["round trip"]["state"] == "ok"
    assert probes["consumers"]["state"] == "fail"
    assert probes["consumers"]["seen"].startswith("no answer from mail ")
    assert "consumes other queues" in probes["consumers"]["fix"]
    assert probes["beat"]["state"] == "not reached"


def test_a_busy_worker_is_not_an_absent_one(place, server, worker):
    program = worker()
    children = set(program.family()) - {program.pid}
    assert children
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    code, probes = place.project.doctor(env={"REDIS_URL": server.url()})
    for pid in children:
        os.kill(pid, signal.SIGCONT)
    assert code == 1
    assert probes["round trip"]["state"] == "fail"
    assert re.match(r"celery@\S+ is there: it is busy", probes["round trip"]["fix"])


def test_the_acl_of_the_page_on_redis_suffices(
    place, redis_server, certificates, running, tmp_path
):
    """It is enough for web, worker, beat, doctor and the README's `celery` commands."""
    project = place.project
    readme = (project.path / "README.md").read_text()
    page = (project.path / "docs/redis.md").read_text()
    name, rights = re.search(r"^ +ACL SETUSER (\S+) (.*)$", page, re.MULTILINE).groups()
    rights = rights.replace("PASSWORD", "pw")

    def url(rights):
        server = redis_server(certificates.of_own, extra=[f"user {name} {rights}"])
        return server, re.sub("//.*@", f"//{name}:pw@", server.url())

    server, allowed = url(rights)
    env = project.environment({"REDIS_URL": allowed})

    def start(command, ready):
        log = tmp_path / command.split()[3]
        program = Program(command, command.split(), cwd=project.path, env=env, log=log)
        running(Service(project, None, {command: program}))
        program.wait_for(ready, 60)
        return program

    conf = (project.path / "supervisord.conf").read_text()
    (command,) = re.findall(r"^command=(celery .* worker)$", conf, re.MULTILINE)
    assert "add `-E` to the worker's command" in readme
    started = start(f"{command} -E", r"Task operations.tasks.sweep\[\S+\] succeeded")
    start("celery -A config beat", "Sending due task housekeeping")
    started.wait_for(r"Task operations.tasks.housekeeping\[\S+\] succeeded", 20)
    ping, active, dump = (
        f"celery -A config {words}" for words in ("inspect ping", "inspect active", "events --dump")
    )
    assert {ping, active, dump} <= set(re.findall(r"`(celery .*?)`", readme))
    assert "pong" in project.run(ping, {"REDIS_URL": allowed}).stdout
    assert "- empty -" in project.run(active, {"REDIS_URL": allowed}).stdout
    before = server.commands_seen()["psubscribe"]
    shown = start(dump, "starting capture")
    wait_until(lambda: server.commands_seen()["psubscribe"] > before, 20, "it listens")
    code, probes = project.doctor(env={"REDIS_URL": allowed})
    assert code == 0
    assert {probe["state"] for probe in probes.values()} == {"ok"}, probes
    shown.wait_for(r"task succeeded: operations\.tasks\.", 20)
    assert "Connection lost" not in started.output() + shown.output()
    assert server.command("ACL", "LOG") == "0"

    probes = place.project.doctor(env={"REDIS_URL": url(rights.replace("+info", ""))[1]})[1]
    assert probes["eviction"]["seen"] == "unknown"


def test_no_log_has_the_password_that_a_server_repeats(redis_server, certificates, worker):
    """Celery's log has the formatter of all logs of the service."""
    old = redis_server(certificates.of_own, extra=['rename-command HELLO ""'])
    program = worker(url=old.url(), ready="unknown command 'HELLO'")
    assert PASSWORD.partition("$")[0] not in program.output()


def test_waits_for_what_is_still_starting(place, server, worker):
    with ThreadPoolExecutor(1) as pool:
        env = {"REDIS_URL": server.url()}
        report = pool.submit(place.project.doctor, "--wait", "90", env=env)
        wait_until(lambda: "llen" in server.commands_seen(), 30, "the doctor looks at the queue")
        beat_once(place, server, worker())
        code, probes = report.result()
    assert code == 0
    assert {probe["state"] for probe in probes.values()} == {"ok"}


@pytest.mark.parametrize("days, state", [(31, "fail"), (29, "ok")])
def test_fails_on_a_certificate_that_expires_within(days, state, place, server):
    """The stand-in's certificate has 30 days left. The second case ends at the missing worker."""
    report = place.project.doctor("--fail-within", str(days), env={"REDIS_URL": server.url()})[1]
    assert report["handshake"]["state"] == state
    assert ("days are left" in report["handshake"]["fix"]) == (state == "fail")
    assert report["auth"]["state"] == ("not reached" if state == "fail" else "ok")


@pytest.mark.parametrize("kind", ["self-signed", "for clients only", "asks for a certificate"])
def test_fails_on_a_certificate_that_is_not_verified_and_expires(
    kind, place, redis_server, certificates
):
    """So does one that could not be verified, or only with a client certificate."""
    options = {"extra": ["tls-auth-clients yes", "tls-protocols TLSv1.2"]}
    server = {
        "self-signed": lambda: redis_server(certificates.herokus),
        "for clients only": lambda: redis_server(
            certificates.own.issue_nameless("redis", ExtendedKeyUsageOID.CLIENT_AUTH)
        ),
        "asks for a certificate": lambda: redis_server(certificates.herokus, **options),
    }[kind]()
    client = certificates.herokus
    env = {"REDIS_CERT_REQS": "none", "REDIS_URL": server.url()}
    env |= {"REDIS_CLIENT_CERT": str(client.chain), "REDIS_CLIENT_KEY": str(client.key)}
    assert place.project.doctor("--fail-within", "31", env=env)[1]["handshake"]["state"] == "fail"
    assert place.project.doctor("--fail-within", "29", env=env)[1]["handshake"]["state"] == "warn"


@pytest.mark.parametrize(
    "arguments, url",
    [
        ([], "https://example.com"),
        (["--unknown"], "redis://localhost"),
        (["--wait", "long"], "redis://localhost"),
        (["--wait", "nan"], "redis://localhost"),
        (["--fail-within", "inf"], "redis://localhost"),
        (["--certificate"], "redis://localhost"),
        (["--certificate"], "rediss://localhost:1"),
    ],
)
def test_could_not_run(arguments, url, place):
    done = place.project.manage("doctor", *arguments, env={"REDIS_URL": url})
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["https://example.com", "redis://localhost"])
@pytest.mark.parametrize(
    "option", [["--settings=config.settings"], ["--settings", "config.settings"]]
)
def test_options_before_its_name_are_bad_usage(option, url, place):
    """Django refuses them before it looks for a command. Behind the name they work."""
    done = place.project.manage(*option, "doctor", env={"REDIS_URL": url})
    assert done.returncode
    assert done.stdout == ""
    assert done.stderr
    assert "Traceback" not in done.stderr
    if url.startswith("redis"):
        done = place.project.manage("doctor", *option, env={"REDIS_URL": url})
        assert done.returncode == 1


def test_no_log_line_gets_between_the_report(place, server):
    """Celery configures logging a second time, at its first task."""
    env = {"REDIS_URL": server.url(), "LOG_LEVEL": "DEBUG"}
    done = place.project.manage("doctor", "--json", env=env)
    assert {"healthy", "probes"} == json.loads(done.stdout).keys()
    assert " DEBUG " in done.stderr
    done = place.project.manage("doctor", env=env)
    assert " DEBUG " not in done.stdout
    done = place.project.manage("doctor", "--certificate", env=env)
    assert re.fullmatch(r"(# .*\n)+-----BEGIN [^#]+-----END CERTIFICATE-----\n", done.stdout)


@pytest.mark.parametrize("hosts, warns", [("127.1", True), (None, False)])
def test_doctor_and_check_agree_on_plain_text(hosts, warns, place):
    env = {"REDIS_URL": "redis://localhost", "REDIS_ALLOW_PLAINTEXT": hosts}
    done = place.project.manage("check", "--deploy", env=env)
    assert (KNOWN["PLAINTEXT"] in done.stderr) == warns
    code = (
        "import math; from operations.management.commands import doctor;"
        "steps = {step.name: step for step in doctor.steps(fail_within=-math.inf)};"
        "print(steps['handshake'].run().hint)"
    )
    done = place.project.manage("shell", "-v", "0", "-c", code, env=env)
    assert done.stdout == (KNOWN["PLAINTEXT"] if warns else "") + "\n", done.stderr


def test_a_certificate_cannot_write_over_the_terminal(place, redis_server, tmp_path):
    shown = self_signed(tmp_path, "a\x1b[2J\n# SHA-256 FA:KE")
    env = {"REDIS_URL": redis_server(shown).url()}
    done = place.project.manage("doctor", "--certificate", env=env)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert len(re.findall("^# SHA-256", done.stdout, re.MULTILINE)) == 1


def test_people_read_one_line_for_each_probe_and_what_to_do(place, server):
    done = place.project.manage("doctor", env={"REDIS_URL": server.url()})
    assert done.returncode == 1
    names = [line.split("  ")[0] for line in done.stdout.splitlines() if line[0] != " "]
    assert names == PROBES
    assert re.search(r"^handshake    ok  +TLSv1\.3, .* verified, subject ", done.stdout, re.M)
    assert re.search(r"^round trip   FAIL  +no answer .*\n  +to do:  +No worker", done.stdout, re.M)
    assert re.search(r"^beat         not reached$", done.stdout, re.MULTILINE)


def test_nothing_is_asked_of_the_network_by_an_import_or_a_check(place):
    imports = (
        "import operations.health, operations.management.commands.doctor, operations.tasks,"
        " authentication.email_utils"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        env = {"REDIS_URL": f"rediss://localhost:{listener.getsockname()[1]}"}
        for command in (["check", "--deploy"], ["shell", "-c", imports]):
            done = place.project.manage(*command, env=env)
            assert done.returncode == 0, done.stderr
        with pytest.raises(BlockingIOError):
            listener.accept()
        place.project.doctor(env=env)
        listener.accept()[0].close()


def test_ctrl_c_ends_it_without_a_traceback(place, tmp_path):
    project = place.project
    program = Program(
        "doctor",
        [str(project.python), "manage.py", "doctor", "--wait", "60"],
        cwd=project.path,
        env=project.environment({"REDIS_URL": "redis://localhost:1/0"}),
        log=tmp_path / "log",
    )
    wait_until(lambda: "Once more:" in program.output(), 60, "it tries again")
    os.kill(program.pid, signal.SIGINT)
    assert program.wait(20) == 130
    assert "Traceback" not in program.output()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("option", ["", "--json"])
def test_a_reader_that_has_ended_gets_no_traceback(place, option, unbuffered):
    """The reader, `true`, ends long before the first line is written."""
    done = place.project.run(
        f"python manage.py doctor {option} | true; exit ${{PIPESTATUS[0]}}",
        {"REDIS_URL": "redis://localhost:1/0", "PYTHONUNBUFFERED": unbuffered},
    )
    assert (done.returncode, done.stderr) == (2, "")


def test_a_pipe_shows_each_line_as_it_comes(place, tmp_path):
    project = place.project
    program = Program(
        "doctor",
        ["sh", "-c", f"{project.python} manage.py doctor --wait 60 | cat"],
        cwd=project.path,
        env=project.environment({"REDIS_URL": "redis://localhost:1/0", "PYTHONUNBUFFERED": ""}),
        log=tmp_path / "log",
    )
    try:
        wait_until(lambda: "Once more:" in program.output(), 30, "the pipe shows the second try")
    finally:
        program.kill()
