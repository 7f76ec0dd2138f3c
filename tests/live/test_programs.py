"""Whole programs of a service, and programs beside it, with a server that is not the one.

Each program talks to a front of its own, which counts. An impostor sees connections, but no byte
inside TLS. The same programs work with the right server. Weakened services prove that all of this
can go red.
"""

import functools
import json
import re
import shutil
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from harness.browser import Browser, Mailbox
from harness.deployments import PASSWORD, made_once
from harness.edits import change
from harness.impostors import SECRET, START, impostor_url, listing
from harness.processes import Failed, Program, free_port, wait_until
from harness.redis_server import RedisServer
from harness.service import OUTSIDE_NAME, Project, Service
from harness.tallies import proven, tally
from harness.tls_front import TLSFront

AT_ONCE = 9  # Most of the time is spent waiting.
DEADLINE = 60  # Seconds. A refused inspect tries for 6, and all scenes of this file run at once.

WRONG = "certificate verify failed"
# A Redis that does not know HELLO repeats what was sent. *** stands for the password.
REPEATED = r"unknown command 'HELLO', with args beginning with.*\*\*\*"
INSECURE = "insecure SSL behaviour"


# The programs


@dataclass(frozen=True)
class Kind:
    """A program: a command line, or the text of a Python script.

    `works` is what it says with the right server; `refused`, why it does not with another one,
    where that differs from what the scene expects. One that `serves` does not end by itself.
    `visit` gets it as a Visited while it runs. `beside` is one that needs more packages than the
    service has. One with `results` asks the result backend only.
    """

    command: str = ""
    script: str = ""
    works: str = ""
    refused: str = ""
    serves: bool = False
    visit: Callable | None = None
    beside: bool = False
    results: bool = False
    database: int = 0


@dataclass
class Visited:
    """A running web server, and the reason (`why`) that its visitor should see, if any."""

    scene: "Scene"
    service: Service
    program: Program
    why: str

    def get(self, path):
        return self.service.status(path, DEADLINE)

    def says(self, pattern):
        self.program.wait_for(pattern, DEADLINE)


def visit_web(visited):
    visited.service.wait_for_status("/healthz", 200, START)
    Browser(visited.service.port, OUTSIDE_NAME).register(
        "ada", "ada@example.com", "correct horse 7"
    )
    if visited.why:
        visited.says(f"verification e-mail of user .* not queued yet.*{visited.why}")
        assert visited.get("/readyz")[0] == 503
        visited.says(f"not ready: broker.*{visited.why}")
    else:
        visited.scene.mailbox.wait("ada@example.com", START)
        wait_until(lambda: '"broker": "ok"' in visited.get("/readyz")[1], START, "a ready broker")


def visit_flower(visited):
    """Visit the pages for which Flower asks Celery: all workers, and one of them."""
    visited.service.wait_for_status("/", 200, START)
    if visited.why:
        visited.says(f"Failed to capture events: .*{visited.why}")
        return
    for path in ("/workers", f"/worker/{name_of_a_worker(visited)}", "/tasks"):
        status, text, _ = visited.get(path)
        assert status == 200, f"{path}: {status}"
        assert SECRET not in text, path


def visit_flowers_queues(visited):
    """Visit the page for which Flower has a client of its own: the lengths of the queues.

    This client reads CELERY_BROKER_USE_SSL, which asks for the host name even where a pin replaces
    it. So Flower shows no queue of a server with a pinned certificate for another name.
    """
    visited.service.wait_for_status("/", 200, START)
    status, text, _ = visited.get("/broker")
    assert status == 200
    assert SECRET not in text
    if visited.scene.act.server == RIGHT_HOST:
        visited.says(f"Failed to capture events: .*{WRONG}")
        return
    if visited.scene.service == "pinned":
        visited.says(f"Unable to get queues: .*{WRONG}")
    elif visited.why:
        visited.says(f"Unable to get queues: .*({visited.why}|HELLO)")
    else:
        assert re.search(r"<td>\s*celery\s*</td>", text), text
        assert "Unable to get queues" not in visited.program.output()


def name_of_a_worker(visited):
    """Wait until Flower has heard of the worker."""
    return wait_until(
        lambda: re.search(r'first@[^"]+', visited.get("/workers?json=1")[1]), START, "a worker"
    )[0]


def celery(arguments, works, **more):
    return Kind(f"celery -A config {arguments}", works=works, **more)


def script(text, works="as it should", **more):
    return Kind(script=textwrap.dedent(text), works=works, **more)


FLOWER = "flower --address=127.0.0.1 --port=$PORT"
ONE_NODE = "[0-9]+ nodes? online"
CHANNELS = """
    import asyncio
    from channels.layers import get_channel_layer
    settings.CHANNEL_LAYERS = {{"default": {{
        "BACKEND": "channels_redis.{module}",
        "CONFIG": {{"hosts": [settings.REDIS.asyncio_client()]}},
    }}}}

    async def talk():
        layer = get_channel_layer()
        name = await layer.new_channel()
        await layer.send(name, {{"type": "as it should"}})
        print((await layer.receive(name))["type"])

    asyncio.run(talk())
"""

# These commands of Celery do not connect: report (see below), shell, logtool, upgrade, graph
# bootsteps. `multi` starts workers. All words of `amqp` use the same connection.
PROGRAMS = {
    "worker": celery(
        # It has a name of its own, and takes no task of the others.
        "worker --concurrency 1 --hostname second@%h --queues idle",
        r"second@\S+ ready",
        serves=True,
    ),
    "beat": celery("beat", "Scheduler: Sending due task housekeeping", serves=True),
    "inspect ping": celery("inspect ping", ONE_NODE),
    "inspect stats": celery("inspect stats", '"broker": {'),
    "inspect conf": celery("inspect conf", "CELERY_BROKER_USE_SSL|broker_use_ssl"),
    "inspect report": celery("inspect report", "software -> celery:"),
    "status": celery("status", ONE_NODE),
    "control": celery("control enable_events", "task events (already )?enabled"),
    "events --dump": celery("events --dump", "heartbeat: active=", serves=True),
    "events": Kind(
        # This command wants a terminal.
        "env TERM=xterm python -c \"import pty; pty.spawn(['celery', '-A', 'config', 'events'])\"",
        works=r"Workers online: .*first@",
        # This command gives no reason.
        refused="Connection Error: (network|server):",
        serves=True,
    ),
    "purge": celery("purge --force", "No messages purged", database=1),
    "call": celery("call operations.tasks.housekeeping", "^[0-9a-f-]{36}$"),
    "result": celery("result an-id", "^as it should$", results=True),
    "amqp": celery("amqp", "-> connected"),
    "list bindings": celery("list bindings", "celery +celery +celery"),
    "graph workers": celery("graph workers", "first@"),
    "migrate": celery("migrate --timeout 1 $REDIS_URL $REDIS_URL", "", database=1),
    "web": Kind("gunicorn config.wsgi --bind 127.0.0.1:$PORT", serves=True, visit=visit_web),
    "doctor": Kind("python manage.py doctor", works="round trip +ok"),
    "delay": script(
        """
        from operations.tasks import housekeeping
        housekeeping.delay()
        print("as it should")
        """
    ),
    "store a result": script(
        """
        from celery import current_app
        current_app.backend.store_result("another", "as it should", "SUCCESS")
        print(current_app.AsyncResult("another").get(timeout=5))
        """,
        results=True,
    ),
    "kombu": script(
        """
        import kombu
        with kombu.Connection(os.environ["REDIS_URL"]) as broker:
            queue = broker.SimpleQueue("bare")
            queue.put("as it should")
            print(queue.get(timeout=5).payload)
        """
    ),
    "cache": script(
        """
        from django.core.cache import cache
        settings.CACHES = {"default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": settings.REDIS.url,
            "OPTIONS": settings.REDIS.client(),
        }}
        cache.set("key", "as it should")
        print(cache.get("key"))
        """
    ),
    "redis-py": script(
        """
        import redis
        client = redis.Redis.from_url(settings.REDIS.url, **settings.REDIS.client())
        client.set("redis-py", "as it should")
        print(client.get("redis-py").decode())
        """
    ),
    "redis.asyncio": script(
        """
        import asyncio, redis.asyncio

        async def talk():
            pool = redis.asyncio.ConnectionPool(**settings.REDIS.asyncio_client())
            async with redis.asyncio.Redis.from_pool(pool) as client:
                await client.set("asyncio", "as it should")
                print((await client.get("asyncio")).decode())

        asyncio.run(talk())
        """
    ),
    "channels": script(CHANNELS.format(module="core.RedisChannelLayer"), beside=True),
    "channels, pubsub": script(
        CHANNELS.format(module="pubsub.RedisPubSubChannelLayer"), beside=True
    ),
    "flower": celery(FLOWER, "", serves=True, visit=visit_flower, beside=True),
    "flower, queues": celery(FLOWER, "", serves=True, visit=visit_flowers_queues, beside=True),
}
# This runs with the right server only, because it prints the settings and does not connect.
REPORT = {"report": celery("report", "software -> celery:")}
REPORTS = ("report", "inspect conf", "inspect report", "inspect stats")
# These open a connection by a URL alone, which kombu calls insecure.
BARE = ("kombu", "migrate")
SHOWING = ("graph workers",)  # See test_a_graph_of_workers_shows_no_password.
PRELUDE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import django
django.setup()
from django.conf import settings
"""


# The scenes: a service, and the server that it meets


@dataclass(frozen=True)
class Act:
    """What a scene is made of: `changes` are those of WEAKNESSES.

    `only` these programs run if there are any, and never those in `without`.
    """

    service: str
    server: str
    changes: str = ""
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


RIGHT, NO_HELLO = "the right server", "no HELLO"
ANOTHER_CA, ANOTHER_HOST = "another CA", "public CA, another host"
RIGHT_HOST = "public CA, the host of the URL"  # A pin protects from this.
LOST, LENIENT = "the override is lost", "the override is lost, and the setting is lenient and read"

# One service keeps results, the other does not, so Celery connects in two ways and in one.
PROVIDERS = {"host checked": "self_hosted", "pinned": "heroku"}
IMPOSTORS = {
    "host checked": (ANOTHER_CA, ANOTHER_HOST),
    "pinned": (ANOTHER_CA, RIGHT_HOST),
}
OVERRIDES = {
    "redis_connection/internals.py": {
        "def _wrap_socket_with_ssl(": "def _no_longer_called(",
        "def _connection_arguments(": "def _no_longer_called(",
    },
}
WEAKNESSES = {
    LOST: OVERRIDES,
    LENIENT: {
        **OVERRIDES,
        "redis_connection/connection.py": {
            "super().__init__(**without_tls(options))": "super().__init__(**options)",
        },
        "redis_connection/policy.py": {
            '"ssl_cert_reqs": "required" if self.verified else "none"': '"ssl_cert_reqs": "none"',
            '"ssl_check_hostname": self.verified': '"ssl_check_hostname": False',
        },
    },
}
# NOT_BY_KOMBU reads CELERY_BROKER_USE_SSL. BY_REDIS_PY has redis-py's defaults, which verify.
BY_KOMBU = ("worker", "inspect ping", "call")
NOT_BY_KOMBU = ("flower, queues",)
BY_REDIS_PY = ("redis-py", "redis.asyncio")

REFUSING = {
    f"{service}: {server}": Act(service, server, without=NOT_BY_KOMBU * (server == RIGHT_HOST))
    for service, servers in IMPOSTORS.items()
    for server in servers
}
WORKING = {f"{service}: {RIGHT}": Act(service, RIGHT) for service in PROVIDERS}
REPEATING = {
    f"pinned: {NO_HELLO}": Act("pinned", NO_HELLO, without=NOT_BY_KOMBU),
}
SHOWN = {f"host checked: {NO_HELLO}, Flower": Act("host checked", NO_HELLO, only=NOT_BY_KOMBU)}
NOT_PINNED = {f"pinned: {RIGHT_HOST}, Flower": Act("pinned", RIGHT_HOST, only=NOT_BY_KOMBU)}
LOSING = {
    f"{service}: {server}, {LOST}": Act(
        service, server, LOST, (*BY_KOMBU, *BARE, *BY_REDIS_PY, "result")
    )
    for service in PROVIDERS
    for server in (ANOTHER_CA, ANOTHER_HOST)
}
BELIEVING = {
    f"{service}: {ANOTHER_CA}, {LENIENT}": Act(service, ANOTHER_CA, LENIENT, BY_KOMBU)
    for service in PROVIDERS
}
# Without --all: a refusal that only the pin brings about.
SHOWN_ALWAYS = (f"pinned: {RIGHT_HOST}",)
ACTS = REFUSING | NOT_PINNED | SHOWN | WORKING | REPEATING | LOSING | BELIEVING


@dataclass
class Outcome:
    """What a program did: its exit code (None if it was ended), its output, what the front saw."""

    code: int | None
    output: str
    connections: int
    handshakes: int
    received: int
    problem: str = ""


class Scene:
    """A service with settings and sources of its own, and a server for it; a context manager."""

    def __init__(self, act, place, beside, tables, folder):
        self.act, self.service = act, act.service
        self.place = place.copy(folder)
        self.project = self.place.project
        self.beside = Project(self.project.path, venv=beside)
        self.folder = folder
        self.certificate = certificate_of(act, place.certificates)
        self.changes = WEAKNESSES.get(act.changes, {})
        for file, changes in self.changes.items():
            change(self.project.path / file, changes)
        database = shutil.copy(tables, folder / "db.sqlite3")
        self.settings = settings_of(act.service, place.certificates)
        self.place.configure("rediss://localhost", DATABASE_URL=f"sqlite:///{database}")
        self.project.settings |= self.settings
        self.beside.settings = self.project.settings
        self.mailbox = Mailbox(folder / "mail")
        self.project.settings["EMAIL_URL"] = self.mailbox.url

    def __enter__(self):
        with ExitStack() as stack:
            right = self.act.server in (RIGHT, NO_HELLO)
            extra = ['rename-command HELLO ""'] if self.act.server == NO_HELLO else []
            self.server = stack.enter_context(
                RedisServer(port=0, password=PASSWORD if right else None, extra=extra)
            )
            if self.act.server == RIGHT:
                self._start_service(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    @property
    def names(self):
        """The names of the programs that run in this scene."""
        known = PROGRAMS | (REPORT if self.act.server == RIGHT else {})
        results = "CELERY_RESULT_BACKEND" in self.environment("")
        return [
            name
            for name in self.act.only or known
            if (results or not known[name].results) and name not in self.act.without
        ]

    @property
    def why(self):
        """What programs say about this server; nothing if it is the right one."""
        return {RIGHT: "", NO_HELLO: REPEATED}.get(self.act.server, WRONG)

    def environment(self, url):
        backend = {"CELERY_RESULT_BACKEND": url} if self.service == "pinned" else {}
        return {"REDIS_URL": url, **backend}

    def front(self):
        return TLSFront(self.server.socket, self.certificate.chain, self.certificate.key)

    def run(self, name):
        """Run the program until it ends or has said what it should; return its Outcome."""
        kind = (PROGRAMS | REPORT)[name]
        project = self.beside if kind.beside else self.project
        command = kind.command
        arguments = ["bash", "-c", f"exec {command}"]
        if kind.script:
            prelude = PRELUDE
            arguments = [str(project.python), "-c", prelude + kind.script]
        with self.front() as front:
            url = impostor_url(front).removesuffix("/0") + f"/{kind.database}"
            port = free_port()
            program = Program(
                name,
                arguments,
                cwd=self.project.path,
                env=project.environment(self.environment(url), {"PORT": str(port)}),
                log=self.folder / "logs" / f"{name.replace(' ', '-')}.log",
            )
            problem = ""
            try:
                self._wait(kind, program, Service(project, port, {name: program}))
            except (Failed, AssertionError, OSError) as error:
                problem = str(error)
            finally:
                code = program.exit_code()
                program.terminate() if kind.serves else None
                program.kill()
            return Outcome(
                code,
                program.output(),
                len(front.connections),
                front.handshakes,
                front.application_bytes,
                problem,
            )

    def _wait(self, kind, program, service):
        if kind.visit:
            kind.visit(Visited(self, service, program, self.why))
        elif kind.serves:
            program.wait_for(kind.refused or self.why if self.why else kind.works, DEADLINE)
        else:
            program.wait(DEADLINE)

    def _start_service(self, stack):
        """Start a worker and beat for the programs that ask them, and store a result."""
        front = stack.enter_context(self.front())
        for name in ("worker --concurrency 1 --hostname first@%h --task-events", "beat"):
            word = name.partition(" ")[0]
            program = Program(
                word,
                ["bash", "-c", f"exec celery -A config {name}"],
                cwd=self.project.path,
                env=self.project.environment(self.environment(impostor_url(front))),
                log=self.folder / "service" / f"{word}.log",
            )
            stack.callback(program.kill)
            program.wait_for(r"first@\S+ ready|Sending due task", START)
        result = {"status": "SUCCESS", "result": "as it should", "traceback": None, "children": []}
        key = f"{{{self.project.slug}}}:celery-task-meta-an-id"
        self.server.command("SET", key, json.dumps(result | {"task_id": "an-id"}))


def certificate_of(act, certificates):
    """Return the certificate that the server of this scene shows."""
    if act.server in (RIGHT, NO_HELLO):
        return certificates.herokus if act.service == "pinned" else certificates.of_own
    if act.server == RIGHT_HOST:
        return certificates.of_public
    return certificates.impostor(act.server)


def settings_of(service, certificates):
    """Return the settings of the service in the scene of that name."""
    if service == "host checked":
        return {}
    settings = {"REDIS_CERT_REQS": "required", "REDIS_CHECK_HOSTNAME": "false"}
    return settings | {"REDIS_CA_CERTS": str(certificates.herokus.chain)}


# The judgements


def was_refused(name, outcome):
    """Assert that the program reached the server, told it nothing, and says why."""
    assert not outcome.problem, outcome.problem
    assert outcome.connections, "the impostor saw no connection"
    assert outcome.received == 0, f"the impostor got {outcome.received} bytes"
    says_why(name, WRONG, outcome)


def was_repeated(name, outcome):
    """Assert that the server repeated the password, and that the program did not."""
    assert not outcome.problem, outcome.problem
    assert outcome.received > 0
    says_why(name, REPEATED, outcome)


def says_why(name, why, outcome):
    kind = PROGRAMS[name]
    assert kind.serves or outcome.code, f"it ended with {outcome.code}"
    assert re.search(kind.refused or why, outcome.output), "it does not say why"
    assert SECRET not in outcome.output, "it shows the password"


def worked(name, outcome):
    """Assert that the program does its work with the right server."""
    kind = (PROGRAMS | REPORT)[name]
    assert not outcome.problem, outcome.problem
    assert outcome.code in ((None,) if kind.serves else (0,)), f"it ended with {outcome.code}"
    assert re.search(kind.works, outcome.output, re.MULTILINE), f"it does not say {kind.works!r}"
    assert (outcome.received > 0) == (name not in REPORT)
    assert name in SHOWING or SECRET not in outcome.output, "it shows the password"
    assert name in BARE or INSECURE not in outcome.output, "it says that it is insecure"


def problems(judge, outcomes):
    """Return {program: what is wrong with it}."""
    found = {}
    for name, outcome in outcomes.items():
        try:
            judge(name, outcome)
        except AssertionError as error:
            found[name] = f"{error}\n{outcome.output[-1500:]}"
    return found


# Running them


@pytest.fixture(scope="module")
def beside(deployment, shared_folder):
    """A virtual environment with the packages of the service and of the programs beside it."""
    venv, locked = shared_folder / "beside", shared_folder / "beside.txt"
    project = Project(deployment(PROVIDERS["host checked"]).project.path, venv=venv)

    def make():
        project.make_venv()
        # pip wants hashes for all packages or for none. The extra ones must not change the
        # service's.
        for command in (
            "pip install --quiet --require-hashes -r requirements.txt",
            f"pip freeze --quiet > {locked}",
            f"pip install --quiet -c {locked} flower channels channels_redis",
        ):
            project.must(command, project.machine(), seconds=900)

    made_once(venv, make)
    return venv


def count(name, outcomes):
    """Add what the fronts of a scene saw to what is printed at the end of the run."""
    seen = outcomes.values()
    tally(
        "programs",
        name,
        programs=len(outcomes),
        connections=sum(each.connections for each in seen),
        handshakes=sum(each.handshakes for each in seen),
        bytes_received_inside_TLS=sum(each.received for each in seen),
    )
    proven(bad_servers_met=len(outcomes) if name in REFUSING else 0)


@pytest.fixture(scope="module")
def outcomes_of(deployment, beside, tables, tmp_path_factory):
    """outcomes_of(scene) -> {program: Outcome}; each scene is played once."""

    @functools.cache
    def outcomes_of(name):
        act = ACTS[name]
        place = deployment(PROVIDERS[act.service])
        folder = tmp_path_factory.mktemp("scene")
        # The programs of a scene run side by side, as those of a service do.
        with (
            Scene(act, place, beside, tables, folder) as scene,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            found = dict(zip(scene.names, pool.map(scene.run, scene.names), strict=True))
        count(name, found)
        return found

    return outcomes_of


@pytest.fixture
def outcomes(scene, outcomes_of):
    """{program: Outcome} of the scene that the test is about."""
    return outcomes_of(scene)


def scenes(names):
    """Parameters for tests of these scenes. pytest-xdist plays each scene in one process."""
    return [
        pytest.param(
            name,
            marks=[
                pytest.mark.xdist_group(name),
                *([] if name in SHOWN_ALWAYS else [pytest.mark.all]),
            ],
            id=name,
        )
        for name in names
    ]


@pytest.mark.parametrize("scene", scenes(REFUSING))
def test_no_program_talks_to_an_impostor(scene, outcomes):
    failed = problems(was_refused, outcomes)
    assert not failed, listing(failed)


@pytest.mark.parametrize("scene", scenes(WORKING))
def test_each_of_them_works_with_the_right_server_and_shows_no_password(scene, outcomes):
    """This also proves, for each of them, that bytes inside TLS are counted."""
    failed = problems(worked, outcomes)
    assert not failed, listing(failed)
    # A dump that leaves out a setting could not show a password in it.
    for name in REPORTS:
        assert "BROKER_USE_SSL" in outcomes[name].output.upper() or name == "inspect stats"


@pytest.mark.xfail(reason="Celery prints the URL of the results as it is", strict=True)
@pytest.mark.parametrize("scene", scenes([f"pinned: {RIGHT}"]))
def test_a_graph_of_workers_shows_no_password(scene, outcomes):
    assert SECRET not in outcomes["graph workers"].output


@pytest.mark.xfail(reason="Flower's own client logs what the server repeats", strict=True)
@pytest.mark.parametrize("scene", scenes(SHOWN))
def test_flowers_own_client_shows_no_password(scene, outcomes):
    (outcome,) = outcomes.values()
    assert SECRET not in outcome.output


@pytest.mark.parametrize("scene", scenes(NOT_PINNED))
def test_flowers_own_client_believes_a_public_certificate_for_the_host(scene, outcomes):
    """The pin does not hold for this client (see docs/security.md). The rest of Flower refuses."""
    (outcome,) = outcomes.values()
    assert outcome.received > 0
    assert outcome.handshakes < outcome.connections
    assert WRONG in outcome.output


@pytest.mark.parametrize("scene", scenes(REPEATING))
def test_none_shows_the_password_that_a_server_repeats(scene, outcomes, redis_server):
    failed = problems(was_repeated, outcomes)
    assert not failed, listing(failed)
    # The server does repeat the password.
    server = redis_server(extra=['rename-command HELLO ""'])
    with pytest.raises(Failed, match=re.escape(PASSWORD)):
        server.command("HELLO", 3, "AUTH", "default", PASSWORD)


@pytest.mark.parametrize("scene", scenes(LOSING))
def test_with_the_override_lost_they_refuse_and_do_not_connect_unverified(scene, outcomes):
    """redis-py's defaults are strict, and TLSConnection hands nothing weaker on to it."""
    failed = problems(was_refused, outcomes)
    assert not failed, listing(failed)


@pytest.mark.parametrize("scene", scenes(BELIEVING))
def test_a_weaker_service_would_be_caught(scene, outcomes):
    assert set(problems(was_refused, outcomes)) == set(BY_KOMBU)
    for name, outcome in outcomes.items():
        assert outcome.received > 0, name


# Two servers: a policy holds for its own server only


ANOTHER = {ANOTHER_CA: False, ANOTHER_HOST: False, RIGHT_HOST: True}  # {server: is it believed?}
TALK = """
import kombu
for name in ("REDIS_URL", "OTHER_URL"):
    with kombu.Connection(os.environ[name]) as broker:
        queue = broker.SimpleQueue("bare")
        queue.put("hello")
        print(name, "says", queue.get(timeout=5).payload, flush=True)
"""
SEND = """
import kombu
from celery import current_app
with kombu.Connection(os.environ["REDIS_URL"]) as broker:
    current_app.send_task("a.task", connection=broker)
"""


def certificate_of_another(server, certificates):
    if server == RIGHT_HOST:
        return certificates.of_public
    return certificates.impostor(server)


@pytest.mark.all
@pytest.mark.parametrize("policy", ["not verified", "pinned"])
def test_another_server_is_verified_by_the_systems_store_and_its_name(
    policy, deployment, redis_server, certificates, tmp_path
):
    """That holds for kombu.Connection(URL) and `celery migrate`, whatever the service's policy."""
    place = deployment(PROVIDERS["pinned"]).copy(tmp_path / "service")
    if policy == "pinned":
        place.configure("rediss://localhost", **settings_of("pinned", certificates))
        shown = certificates.herokus
    else:
        place.configure("rediss://localhost", REDIS_CERT_REQS="none")
        shown = certificates.stranger.issue("elsewhere.example")
    project = place.project
    script = [str(project.python), "-c", PRELUDE + TALK]
    migrate = "celery -A config migrate --timeout 1 $REDIS_URL $OTHER_URL"

    def talk(pair):
        """Return (the ended program, its server's front, the other server's front, its Redis)."""
        server, command = pair
        right, wrong = (redis_server(port=0, password=None) for _ in range(2))
        other = certificate_of_another(server, certificates)
        with (
            TLSFront(right.socket, shown.chain, shown.key) as own_front,
            TLSFront(wrong.socket, other.chain, other.key) as other_front,
        ):
            urls = {"REDIS_URL": impostor_url(own_front), "OTHER_URL": impostor_url(other_front)}
            project.must([str(project.python), "-c", PRELUDE + SEND], urls)
            done = project.run(command, urls)
            return done, own_front, other_front, wrong

    asked = [(server, command) for server in ANOTHER for command in (script, migrate)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(talk, asked))
    for (server, command), (done, own, other, redis) in zip(asked, found, strict=True):
        output = done.stdout + done.stderr
        assert own.application_bytes > 0, output
        assert other.connections, output
        assert SECRET not in output
        if ANOTHER[server]:
            assert done.returncode == 0, output
            assert redis.commands_seen()["lpush"] == 1, output
        else:
            assert done.returncode != 0, output
            assert WRONG in output
            assert other.application_bytes == 0
            assert redis.commands_seen() == {}
        if command == script:
            assert "REDIS_URL says hello" in output
            assert ("OTHER_URL says hello" in output) == ANOTHER[server]
