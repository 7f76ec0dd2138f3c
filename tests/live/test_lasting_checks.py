"""What post_gen proves once, `check --deploy` proves after every edit, and remarks on no other."""

import json
import random
import re
import secrets
from base64 import b64encode
from functools import partial

import pytest
import yaml

from harness.deployments import ONE_OF_EACH_TARGET

pytestmark = pytest.mark.live
RENDER, SERVICES, SERVER, PROCFILE = ONE_OF_EACH_TARGET  # the providers that are baked for them
URLS = {RENDER: "redis://red-abc:6379"}
CLEAN = "tests.test_deployment.ProductionTests.test_check_deploy_is_clean"
WORKER = "celery -A config worker -Q mail"
ALONE = f"env REMAP_SIGTERM=SIGQUIT {WORKER}"


# Edits: each changes a Deployment that the test may spoil.


def put(name, old, new):
    """Replace some text in a file, which must be there."""

    def edit(place):
        file = place.project.path / name
        text = file.read_text("utf-8")
        assert old in text, f"{name} holds no {old!r}"
        file.write_text(text.replace(old, new), "utf-8")

    return edit


def add(name, *lines):
    """Write lines at the end of a file."""

    def edit(place):
        with (place.project.path / name).open("a", encoding="utf-8") as file:
            file.write("\n".join(["", *lines, ""]))

    return edit


def remove(name):
    return lambda place: (place.project.path / name).unlink()


def setting(name, value):
    """Give a setting of settings.py another value; without one its line goes."""

    def edit(place):
        file = place.project.path / "config" / "settings.py"
        line = f"{name} = {value}" if value else ""
        text, count = re.subn(rf"(?m)^{name} = .*", line, file.read_text("utf-8"))
        assert count == 1, f"settings.py has {count} lines for {name}"
        file.write_text(text, "utf-8")

    return edit


def variables(**values):
    return lambda place: place.project.settings.update(values)


def style(**options):
    """Write render.yaml anew, with the same content in another style."""

    def edit(place):
        file = place.project.path / "render.yaml"
        content = yaml.safe_load(file.read_text("utf-8"))
        file.write_text(yaml.safe_dump(content, **options), "utf-8")
        assert yaml.safe_load(file.read_text("utf-8")) == content

    return edit


conf, blueprint = partial(put, "supervisord.conf"), partial(put, "render.yaml")
threads = partial(setting, "WEB_THREADS")
soft_limit = partial(setting, "CELERY_TASK_SOFT_TIME_LIMIT")
time_limit = partial(setting, "CELERY_TASK_TIME_LIMIT")
soft_shutdown = partial(setting, "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT")
grace = partial(setting, "STOP_GRACE")
claim = partial(put, "config/settings.py", '"visibility_timeout": 3600')


def program(name, command, *options):
    return add("supervisord.conf", f"[program:{name}]", f"command={command}", *options)


def task(options, name="operations/tasks.py"):
    return add(name, "", f"@shared_task({options})", "def report():", "    pass")


def service(*lines):
    """Write an entry above all others of `services:`."""
    return blueprint("services:\n", "services:\n  - " + "\n    ".join(lines) + "\n")


def policy(text):
    return blueprint("maxmemoryPolicy: noeviction", text)


FLOWER = program("flower", "celery -A config flower", "stopwaitsecs=1")
CACHE = (
    "type: keyvalue",
    "name: my-service-redis-cache",
    "ipAllowList: []",
    "maxmemoryPolicy: allkeys-lru",
)
CRON = service("type: cron", "name: nightly", "schedule: '0 3 * * *'", "startCommand: python x.py")
QUEUE = "fromService: { type: keyvalue, name: my-service-redis, property: connectionString }"
LONGER = [
    blueprint("maxShutdownDelaySeconds: 60", "maxShutdownDelaySeconds: 120"),
    conf("stopwaitsecs=18", "stopwaitsecs=100"),
    soft_shutdown("95"),
]
STYLES = {
    "as its blocks": {"sort_keys": False},
    "quoted": {"sort_keys": False, "default_style": '"'},
    "indented by six": {"sort_keys": False, "indent": 6, "explicit_start": True},
}
UNREAD_STYLES = {"sorted": {}, "on few lines": {"default_flow_style": True}}

# What an owner may do: {provider: {what: edits}}
LEGITIMATE = {
    SERVER: {
        "nothing": [],
        "a fourth program, others renamed": [
            FLOWER,
            conf("[program:django]", "[program:web]"),
            conf("[program:celery_worker]", "[program:queue]"),
        ],
        "other queues, a second worker, more time to stop": [
            conf("worker --", "worker -Q celery,reports --"),
            program("mail", WORKER, "stopsignal=QUIT", "stopwaitsecs=18"),
            grace("60"),
        ],
        "the worker's signal from its command": [
            conf("stopsignal=QUIT", ""),
            conf("command=celery -A config worker", f"command={ALONE}"),
        ],
        "a worker that ends its tasks": [
            conf("stopsignal=QUIT", "stopsignal=TERM"),
            conf("stopwaitsecs=18", "stopwaitsecs=95"),
            grace("120"),
        ],
        "seconds from the environment, a section in two parts": [
            conf("stopwaitsecs=18", "stopwaitsecs=%(ENV_SECONDS)s"),
            add("supervisord.conf", "[program:django]", "stopwaitsecs=8"),
        ],
        "old values in comments, another application": [
            conf("--threads 4 ", "--threads 9 --threads 4 ; not --threads 9 "),
            add("supervisord.conf", ";command=gunicorn config.wsgi --threads 9", "#x: [y"),
            program("blog", "gunicorn blog.wsgi --threads 9", "stopwaitsecs=1"),
        ],
        "longer tasks": [soft_limit("1700"), time_limit("1800"), task("time_limit=3000")],
        "even longer tasks, and a longer claim": [
            time_limit("7200"),
            claim('"visibility_timeout": 14400'),
        ],
        "no soft limits, no supervisord.conf": [
            soft_limit("None"),
            soft_shutdown(None),
            remove("supervisord.conf"),
        ],
    },
    RENDER: {
        "more processes and threads on a larger plan": [
            variables(WEB_CONCURRENCY="8", REDIS_MAX_CONNECTIONS="250"),
            conf("--threads 4", "--threads 8"),
            threads("8"),
        ],
        "more time to stop": LONGER,
        "no render.yaml": [remove("render.yaml")],
        "a cache that evicts, cron jobs, a static site": [
            service(*CACHE),
            CRON,
            service("type: web", "name: docs", "runtime: static", "staticPublishPath: ./docs"),
        ],
        "a queue apart from a cache under REDIS_URL": [
            service(*CACHE),
            blueprint(
                QUEUE,
                f"{QUEUE.replace('-redis', '-redis-cache')}\n"
                f"      - key: CELERY_BROKER_URL\n        {QUEUE}",
            ),
        ],
        "a paid Redis elsewhere, this one as a cache": [
            blueprint(QUEUE, "sync: false"),
            policy("maxmemoryPolicy: allkeys-lru"),
        ],
        "a queue that render.yaml does not name, this one as a cache": [
            blueprint("key: REDIS_URL", "key: CACHE_URL"),
            policy("maxmemoryPolicy: allkeys-lru"),
        ],
        "only keys that expire may go": [
            policy('"maxmemoryPolicy" : "volatile-lru" # for results')
        ],
        "an allow list above the policy, comments": [
            blueprint("ipAllowList: [] #", "ipAllowList:\n      - source: 192.0.2.7 #"),
            blueprint("services:\n", "services: # all\n# - type: keyvalue\n\n  # Web:\n"),
            policy("# maxmemoryPolicy: allkeys-lru\n\n    maxmemoryPolicy: noeviction"),
        ],
        "a policy by reference": [
            policy("<<: *queue"),
            blueprint("services:", "x: &queue {}\nservices:"),
        ],
        **{f"render.yaml {n}": [style(**o)] for n, o in {**STYLES, **UNREAD_STYLES}.items()},
    },
    SERVICES: {
        "more time to stop": LONGER,
        "a second worker": [service("type: worker", "name: mail", f"startCommand: {ALONE}")],
    },
    PROCFILE: {
        "no supervisord.conf, more processes": [
            remove("supervisord.conf"),
            add("Procfile", f"mail: {ALONE}", "clock: python clock.py"),
        ],
    },
}

# What would be seen on a bad night only: {warning: {(provider, what): edits}}
HARMFUL = {
    "W006": {
        (SERVER, "tasks as long as their claim"): [time_limit("3600")],
        (SERVER, "tasks without an end"): [
            soft_limit("None"),
            time_limit(None),
            put(
                "authentication/claims.py",
                "seconds=settings.CELERY_TASK_TIME_LIMIT",
                "hours=1",
            ),
        ],
        (SERVER, "a soft limit that is never reached"): [soft_limit("90")],
        (SERVER, "a claim shorter than tasks"): [claim('"visibility_timeout": 60')],
        (SERVER, "one task longer than its claim, in a new file"): [
            add("authentication/tasks.py", "from celery import shared_task"),
            task("time_limit=7200", "authentication/tasks.py"),
        ],
        (SERVER, "one soft limit above the others' limit"): [task("soft_time_limit=100")],
        (SERVER, "a retry after the claim"): [task("default_retry_delay=7200")],
    },
    "W007": {
        (SERVER, "more threads in settings.py"): [threads("8")],
        (SERVER, "more threads in supervisord.conf"): [conf("--threads 4", "--threads 16")],
        (PROCFILE, "more threads in the Procfile"): [put("Procfile", "--threads 4", "--threads=5")],
        (SERVICES, "fewer threads in render.yaml"): [blueprint("--threads 4", "--threads 2")],
    },
    "W008": {
        (RENDER, "a queue that is evicted"): [policy("maxmemoryPolicy: allkeys-lfu")],
        (RENDER, "a policy that is deleted"): [policy("")],
        (RENDER, "a policy that is a comment, beside one that is not"): [
            policy("# maxmemoryPolicy: noeviction"),
            service(*CACHE[:1], "name: my-service-redis-2", "maxmemoryPolicy: noeviction"),
        ],
        **{
            (RENDER, f"a queue that is evicted, {name}"): [
                policy("maxmemoryPolicy: allkeys-lru"),
                style(**options),
            ]
            for name, options in STYLES.items()
        },
    },
    "W009": {
        (SERVER, "a program that stops slowly"): [conf("stopwaitsecs=7", "stopwaitsecs=60")],
        (SERVER, "a fourth program with supervisord's default"): [program("flower", "flower")],
        (RENDER, "more than render.yaml grants"): [conf("stopwaitsecs=18", "stopwaitsecs=50")],
        (RENDER, "less in render.yaml"): [blueprint("DelaySeconds: 60", "DelaySeconds: 20")],
        (RENDER, "the default of Render"): [
            blueprint("maxShutdownDelaySeconds: 60", ""),
            conf("stopwaitsecs=18", "stopwaitsecs=28"),
        ],
        (RENDER, "more than Render can grant"): [
            blueprint("DelaySeconds: 60", "DelaySeconds: 900"),
            conf("stopwaitsecs=18", "stopwaitsecs=400"),
        ],
        (PROCFILE, "a longer soft shutdown than the host's patience"): [
            remove("supervisord.conf"),
            soft_shutdown("40"),
        ],
        (SERVER, "a conflict in supervisord.conf"): [
            conf("priority=30", "<<<<<<< HEAD\npriority=30")
        ],
        (SERVER, "something else in supervisord.conf"): [
            remove("supervisord.conf"),
            add("supervisord.conf", "services:", "  web: {}"),
        ],
    },
    "W010": {
        (SERVER, "as long for the worker as for its tasks"): [soft_shutdown("18")],
        (SERVER, "a worker without its signal"): [conf("stopsignal=QUIT", "")],
        (SERVER, "a second worker without the signal"): [
            program("mail", WORKER, "stopwaitsecs=18"),
            grace("60"),
        ],
    },
}
EDITS = [(provider, what) for provider, edits in LEGITIMATE.items() for what in edits]
FAULTS = [(number, *fault) for number, faults in HARMFUL.items() for fault in faults]


@pytest.fixture
def edited(deployment, tmp_path):
    """edited(provider, edits) -> a copy of that service, configured as in production and edited."""

    def edited(provider, edits):
        place = deployment(provider).copy(tmp_path)
        place.configure(URLS.get(provider, "rediss://:pw@redis.example.com:6379"))
        # As Render makes it, the shortest that is good.
        place.project.settings["SECRET_KEY"] = b64encode(secrets.token_bytes(32)).decode()
        for edit in edits:
            edit(place)
        return place

    return edited


def check(place, *arguments):
    """(the ids of all warnings without "operations.", what the command printed)."""
    done = place.project.manage("check", *arguments)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    found = re.findall(r"^\S+ \((\w+\.\w+)\) ", printed, re.MULTILINE)
    return [number.removeprefix("operations.") for number in found], printed


def always(provider):
    """Heroku's certificate cannot be verified unless it is pinned."""
    return ["W001"] if provider == PROCFILE else []


def test_an_edit_that_would_change_nothing_is_an_error(edited):
    place = edited(SERVER, [])
    for edit in (conf("stopwaitsecs=19", "stopwaitsecs=60"), setting("CELERY_TASK_LIMIT", "7200")):
        with pytest.raises(AssertionError, match="holds no|has 0 lines"):
            edit(place)


@pytest.mark.parametrize(("provider", "what"), EDITS)
def test_a_legitimate_edit_is_not_remarked_on(provider, what, edited):
    found, printed = check(edited(provider, LEGITIMATE[provider][what]), "--deploy")
    assert found == always(provider), printed


@pytest.mark.parametrize(("number", "provider", "what"), FAULTS)
def test_a_harmful_edit_is_noticed_once(number, provider, what, edited):
    found, printed = check(edited(provider, HARMFUL[number][provider, what]), "--deploy")
    assert found == [*always(provider), number], printed
    (texts,) = re.findall(rf"^\?: \(operations\.{number}\) (.+)\n\tHINT: (.+)$", printed, re.M)
    for text in texts:
        assert re.fullmatch(r".{20,160}\.", text)


@pytest.mark.parametrize("number", HARMFUL)
def test_the_services_own_tests_notice_it_too(number, edited):
    (provider, what), *_ = HARMFUL[number]
    done = edited(provider, HARMFUL[number][provider, what]).project.manage("test", CLEAN)
    assert (done.returncode, "FAILED (failures=1)" in done.stderr) == (1, True), done.stderr
    assert f"(operations.{number})" in done.stderr


@pytest.mark.parametrize("provider", ONE_OF_EACH_TARGET)
def test_the_services_own_tests_pass_after_legitimate_edits(provider, edited):
    edits = {
        SERVER: [FLOWER, conf("[program:django]", "[program:web]"), grace("400")],
        RENDER: [*LONGER, service(*CACHE), CRON, style(sort_keys=False)],
        SERVICES: [*LONGER, remove("render.yaml"), grace("120")],
        PROCFILE: [remove("supervisord.conf"), add("Procfile", "clock: python clock.py")],
    }
    limits = [soft_limit("1700"), time_limit("1800"), task("time_limit=3000")]
    done = edited(provider, edits[provider] + limits).project.manage(
        "test", CLEAN.split(".Prod")[0]
    )
    assert done.returncode == 0, done.stderr


def test_without_deploy_nothing_is_said(edited):
    edits = [
        time_limit("7200"),
        threads("8"),
        policy(""),
        conf("stopwaitsecs=18", "stopwaitsecs=9"),
    ]
    place = edited(RENDER, [*edits, conf("stopwaitsecs=7", "stopwaitsecs=99")])
    assert check(place) == ([], "System check identified no issues (0 silenced).\n")
    found, printed = check(place, "--deploy")
    assert sorted(found) == list(HARMFUL), printed


# Run by the service's own Python: each text as each of the files, and no way to a network.
READ = """
import json, pathlib, socket, tempfile
from importlib import import_module
from django.test import override_settings

def refuse(*arguments, **options):
    raise AssertionError("the network was asked")

socket.getaddrinfo = socket.socket.connect = refuse
check = import_module("operations.checks").deployment
FILES = ("supervisord.conf", "Procfile", "render.yaml")
found = set()
with tempfile.TemporaryDirectory() as name, override_settings(BASE_DIR=pathlib.Path(name)):
    for text in json.loads(pathlib.Path("texts.json").read_text()):
        for file in FILES:
            (pathlib.Path(name) / file).write_bytes(text.encode("latin-1"))
        found |= {warning.id for warning in check(None)}
    for file in FILES:
        (pathlib.Path(name) / file).unlink()
        (pathlib.Path(name) / file).mkdir()
    assert not [warning.id for warning in check(None)]
print(*sorted(found))
"""


def garbled(text, dice):
    """The text with a part of it lost, doubled or replaced."""
    start, end = sorted(dice.randrange(len(text) + 1) for _ in range(2))
    parts = ["", text[start:end] * 2, "\0", "\xff\xfe", "[", "- ", "\t", "%(x)s", "\n\n", "=\n"]
    return text[:start] + dice.choice(parts) + text[end:]


def test_no_file_ends_the_check_and_no_network_is_asked(edited):
    place = edited(RENDER, [])
    path, dice = place.project.path, random.Random(1)
    texts = ["", "\0", "-", "- ", "[", "\xef\xbb\xbf[program:a]\n", " " * 3000, "- " * 3000]
    for name in ("supervisord.conf", "render.yaml"):
        whole = (path / name).read_text("utf-8")
        texts += [garbled(whole, dice) for _ in range(100)]
    (path / "texts.json").write_text(json.dumps(texts))
    done = place.project.manage("shell", "--no-imports", "--command", READ)
    assert done.returncode == 0, done.stderr
    # What was left of the texts was read.
    assert {f"operations.W{number}" for number in ("008", "009", "010")} <= {*done.stdout.split()}
