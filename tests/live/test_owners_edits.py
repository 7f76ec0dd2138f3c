"""An owner edits settings and files. The service's own tests notice harm, and nothing else.

`check --deploy` judges variables and settings. What files must agree on is asserted in the
service's tests/test_deployment.py, with the parsers of those who read the files.
"""

import re
import secrets
from base64 import b64encode
from functools import partial

import pytest
import yaml

from harness.answers import varied
from harness.deployments import ONE_OF_EACH_TARGET

RENDER, SERVICES, SERVER, PROCFILE = (
    ONE_OF_EACH_TARGET  # The providers for which services are baked.
)
URLS = {RENDER: "redis://red-abc:6379"}

CLEAN = "ProductionTests.test_check_deploy_is_clean"
CONFIGURED = "WebTests.test_gunicorn_reads_gunicorn_conf_py"
THREADS = "WebTests.test_no_command_says_another_number_of_threads"
REQUESTS = "WebTests.test_open_requests_end_before_gunicorn_is_killed"
HANDED_BACK = "StopTests.test_a_worker_hands_back_its_tasks_before_it_is_killed"
IN_TIME = "StopTests.test_supervisord_stops_everything_before_the_platform_kills_it"
EVICTED = "QueueTests.test_the_redis_in_render_yaml_never_drops_a_queued_task"
OF_FILES = [CONFIGURED, THREADS, REQUESTS, HANDED_BACK, IN_TIME, EVICTED]

WORKER = "celery -A config worker -Q mail"
ALONE = f"env REMAP_SIGTERM=SIGQUIT {WORKER}"


# Edits: each changes a Deployment that the test may spoil.


def put(name, old, new):
    """Replace a text in a file, where it must stand."""

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
    """Give a setting of settings.py another value, or remove its line."""

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
gunicorn = partial(put, "gunicorn.conf.py")
soft_limit = partial(setting, "CELERY_TASK_SOFT_TIME_LIMIT")
time_limit = partial(setting, "CELERY_TASK_TIME_LIMIT")
soft_shutdown = partial(setting, "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT")
claim = partial(put, "config/settings.py", '"visibility_timeout": 3600')


def threads(count):
    return gunicorn("threads = 4", f"threads = {count}")


def grace(seconds):
    return put("tests/deployment_files.py", "STOP_GRACE = 30", f"STOP_GRACE = {seconds}")


def program(name, command, *options):
    return add("supervisord.conf", f"[program:{name}]", f"command={command}", *options)


def task(options, name="operations/tasks.py"):
    return add(name, "", f"@shared_task({options})", "def report():", "    pass")


def service(*lines):
    """Write an entry above all other entries of `services:`."""
    return blueprint("services:\n", "services:\n  - " + "\n    ".join(lines) + "\n")


def policy(text):
    return blueprint("maxmemoryPolicy: noeviction", text)


def by_reference(text):
    """Let the Redis take what a YAML anchor holds."""
    return [policy("<<: *queue"), blueprint("services:", f"x: &queue {text}\nservices:")]


GUNICORN, PLAIN_WORKER = "gunicorn config.wsgi", "env REMAP_SIGTERM=SIGQUIT celery"
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
SEPARATE_QUEUE = blueprint(
    QUEUE,
    f"{QUEUE.replace('-redis', '-redis-cache')}\n      - key: CELERY_BROKER_URL\n        {QUEUE}",
)
STYLES = {
    "as its blocks": {"sort_keys": False},
    "quoted": {"sort_keys": False, "default_style": '"'},
    "indented by six": {"sort_keys": False, "indent": 6, "explicit_start": True},
    "sorted": {},
    "on few lines": {"default_flow_style": True},
}

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
            conf("-A config worker", "-A config worker -Q celery,reports"),
            program("mail", WORKER, "stopsignal=QUIT", "stopwaitsecs=18"),
            grace(60),
        ],
        "the worker's signal from its command": [
            conf("stopsignal=QUIT", ""),
            conf("command=celery -A config worker", f"command={ALONE}"),
        ],
        "a worker that ends its tasks": [
            conf("stopsignal=QUIT", "stopsignal=TERM"),
            conf("stopwaitsecs=18", "stopwaitsecs=95"),
            grace(120),
        ],
        "seconds from the environment, a section in two parts": [
            conf("stopwaitsecs=18", "stopwaitsecs=%(ENV_SECONDS)s"),
            variables(SECONDS="17"),
            add("supervisord.conf", "[program:django]", "stopwaitsecs=8"),
        ],
        "a program that stops together with another": [
            program("flower", "celery -A config flower", "stopwaitsecs=2"),
            add("supervisord.conf", "[group:side]", "programs=flower,celery_beat"),
        ],
        "the same number of threads, old values in comments, another application": [
            conf(GUNICORN, f"{GUNICORN} --threads 9 --threads 4 ; not --threads 9 "),
            add("supervisord.conf", f";command={GUNICORN} --threads 9", "#x: [y"),
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
            threads(8),
        ],
        "more time to stop": LONGER,
        "no render.yaml": [remove("render.yaml")],
        "a cache that evicts, cron jobs, a static site": [
            service(*CACHE),
            CRON,
            service("type: web", "name: docs", "runtime: static", "staticPublishPath: ./docs"),
        ],
        "a queue apart from a cache under REDIS_URL": [service(*CACHE), SEPARATE_QUEUE],
        "a queue elsewhere for all services, and a cache under REDIS_URL": [
            blueprint(
                "    envVars:\n      # One",
                "    envVars:\n      - key: CELERY_BROKER_URL\n"
                "        value: rediss://example.com\n      # One",
            ),
            policy("maxmemoryPolicy: allkeys-lru"),
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
        "a policy by reference": by_reference("{maxmemoryPolicy: noeviction}"),
        **{f"render.yaml {name}": [style(**options)] for name, options in STYLES.items()},
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
        "more threads": [threads(8)],
    },
}

# What would otherwise show on a bad night only: {the test that notices: {(provider, what): edits}}
HARMFUL = {
    CLEAN: {
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
    CONFIGURED: {
        (SERVER, "refused settings that are tried for ever"): [gunicorn("preload_app = True", "")],
        (SERVER, "a control socket"): [gunicorn("control_socket_disable = True", "")],
        (SERVER, "more threads in settings.py"): [
            setting("WEB_THREADS: int", "8"),
        ],
    },
    THREADS: {
        (SERVER, "more threads in supervisord.conf"): [conf(GUNICORN, f"{GUNICORN} --threads 16")],
        (PROCFILE, "more threads in the Procfile"): [
            put("Procfile", GUNICORN, f"{GUNICORN} --threads=5")
        ],
        (SERVICES, "fewer threads in render.yaml"): [
            blueprint(GUNICORN, f"{GUNICORN} --threads 2")
        ],
    },
    REQUESTS: {
        (SERVER, "requests that outlast gunicorn"): [
            gunicorn("graceful_timeout = 5", "graceful_timeout = 20")
        ],
        (PROCFILE, "requests that outlast the host's patience"): [
            put("Procfile", GUNICORN, f"{GUNICORN} --graceful-timeout 30")
        ],
    },
    EVICTED: {
        (RENDER, "a queue that is evicted"): [policy("maxmemoryPolicy: allkeys-lfu")],
        (RENDER, "a queue that is evicted, apart from a cache"): [
            policy("maxmemoryPolicy: allkeys-lru"),
            service(*CACHE),
            SEPARATE_QUEUE,
        ],
        (RENDER, "a policy that is deleted"): [policy("")],
        (RENDER, "a policy that is a comment, beside one that is not"): [
            policy("# maxmemoryPolicy: noeviction"),
            service(*CACHE[:1], "name: my-service-redis-2", "maxmemoryPolicy: noeviction"),
        ],
        (RENDER, "a policy by reference"): by_reference("{maxmemoryPolicy: allkeys-random}"),
        (RENDER, "a reference without a policy"): by_reference("{}"),
        **{
            (RENDER, f"a queue that is evicted, {name}"): [
                policy("maxmemoryPolicy: allkeys-lru"),
                style(**options),
            ]
            for name, options in STYLES.items()
        },
    },
    IN_TIME: {
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
        (RENDER, "more than render.yaml grants to this service"): [
            conf("stopwaitsecs=18", "stopwaitsecs=100"),
            service(
                "type: worker",
                "name: reports",
                "startCommand: python reports.py",
                "maxShutdownDelaySeconds: 300",
            ),
        ],
    },
    HANDED_BACK: {
        (SERVER, "as long for the worker as for its tasks"): [soft_shutdown("18")],
        (SERVER, "a worker without its signal"): [conf("stopsignal=QUIT", "")],
        (SERVER, "a second worker without the signal"): [
            program("mail", WORKER, "stopwaitsecs=18"),
            grace(60),
        ],
        (PROCFILE, "a longer soft shutdown than the host's patience"): [
            remove("supervisord.conf"),
            soft_shutdown("40"),
        ],
        (PROCFILE, "a worker of the Procfile without its signal"): [
            put("Procfile", PLAIN_WORKER, "celery")
        ],
        (SERVICES, "a worker of render.yaml without its signal"): [
            blueprint(PLAIN_WORKER, "celery")
        ],
        (SERVICES, "less in render.yaml than tasks get"): [
            blueprint("DelaySeconds: 60", "DelaySeconds: 10"),
            remove("supervisord.conf"),
        ],
    },
}

# Files that their reader refuses: {(provider, what): (edits, what the reader says)}
UNREADABLE = {
    (SERVER, "a conflict in supervisord.conf"): (
        [conf("priority=30", "<<<<<<< HEAD\npriority=30")],
        "supervisor cannot read supervisord.conf.",
    ),
    (SERVER, "something else in supervisord.conf"): (
        [remove("supervisord.conf"), add("supervisord.conf", "services:", "  web: {}")],
        "supervisor cannot read supervisord.conf.",
    ),
    (SERVER, "seconds from a variable that is not set"): (
        [conf("stopwaitsecs=18", "stopwaitsecs=%(ENV_SECONDS)s")],
        "ENV_SECONDS",
    ),
    (SERVER, "no number of threads"): (
        [conf(GUNICORN, f"{GUNICORN} --threads many")],
        "gunicorn cannot read the command of django in supervisord.conf.",
    ),
    (RENDER, "a conflict in render.yaml"): (
        [blueprint("services:\n", "<<<<<<< HEAD\nservices:\n")],
        "render.yaml cannot be read.",
    ),
    (RENDER, "something else in render.yaml"): (
        [remove("render.yaml"), add("render.yaml", "- a list")],
        "render.yaml holds no mapping",
    ),
}
EDITS = [(provider, what) for provider, edits in LEGITIMATE.items() for what in edits]
FAULTS = [(noticed, *fault) for noticed, faults in HARMFUL.items() for fault in faults]
# One of each kind comes first.
FAULTS.sort(key=lambda fault: fault[1:] != next(iter(HARMFUL[fault[0]])))


@pytest.fixture
def edited(deployment, developers, tmp_path):
    """edited(provider, edits) -> a copy of that service, configured as in production and edited."""

    def edited(provider, edits):
        place = deployment(provider).copy(tmp_path)
        place.configure(URLS.get(provider, "rediss://:pw@redis.example.com:6379"))
        # The shortest good key, as Render makes it.
        place.project.settings["SECRET_KEY"] = b64encode(secrets.token_bytes(32)).decode()
        place.project = developers(place.project)
        for edit in edits:
            edit(place)
        return place

    return edited


def check(place, *arguments):
    """Return (the ids of all warnings without "operations.", what the command printed)."""
    done = place.project.manage("check", *arguments)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    found = re.findall(r"^\S+ \((\w+\.\w+)\) ", printed, re.MULTILINE)
    return [number.removeprefix("operations.") for number in found], printed


def own_tests(place, *more):
    """Return (which tests of files and of `more` fail, what was printed). No test may error."""
    names = [f"tests.test_deployment.{name}" for name in (*OF_FILES, *more)]
    done = place.project.manage("test", *names)
    assert "Ran " in done.stderr, done.stderr
    assert not re.search(r"^ERROR: ", done.stderr, re.MULTILINE), done.stderr
    failed = re.findall(r"^FAIL: \w+ \(tests\.test_deployment\.(\w+\.\w+)\)", done.stderr, re.M)
    assert bool(failed) == bool(done.returncode), done.stderr
    return set(failed), done.stderr


def always(provider):
    """Heroku's certificate cannot be verified unless it is pinned."""
    return ["W001"] if provider == PROCFILE else []


def test_an_edit_that_would_change_nothing_is_an_error(edited):
    place = edited(SERVER, [])
    for edit in (conf("stopwaitsecs=19", "stopwaitsecs=60"), setting("CELERY_TASK_LIMIT", "7200")):
        with pytest.raises(AssertionError, match="holds no|has 0 lines"):
            edit(place)


@pytest.mark.parametrize(("provider", "what"), varied(EDITS))
def test_a_legitimate_edit_is_not_remarked_on(provider, what, edited):
    place = edited(provider, LEGITIMATE[provider][what])
    failed, printed = own_tests(place)
    assert failed == set(), printed
    found, printed = check(place, "--deploy")
    assert found == always(provider), printed


@pytest.mark.parametrize(("noticed", "provider", "what"), varied(FAULTS, len(HARMFUL)))
def test_a_harmful_edit_is_noticed_once(noticed, provider, what, edited):
    place = edited(provider, HARMFUL[noticed][provider, what])
    failed, printed = own_tests(place, *({noticed} - {*OF_FILES}))
    assert failed == {noticed}, printed
    # The message says what to do, and in which file.
    words = "operations.W006" if noticed == CLEAN else r"\.(conf|py|yaml)\b|Procfile"
    assert re.search(rf"AssertionError: .*({words})", printed, re.DOTALL), printed


@pytest.mark.parametrize(("provider", "what"), varied(UNREADABLE, 2))
def test_a_file_that_its_reader_refuses_is_named(provider, what, edited):
    edits, said = UNREADABLE[provider, what]
    failed, printed = own_tests(edited(provider, edits))
    assert failed
    assert failed <= {THREADS, REQUESTS, HANDED_BACK, IN_TIME, EVICTED}
    assert said in printed


@pytest.mark.parametrize("provider", varied(ONE_OF_EACH_TARGET))
def test_the_services_tests_of_its_files_pass_after_many_legitimate_edits(provider, edited):
    edits = {
        SERVER: [FLOWER, conf("[program:django]", "[program:web]"), grace(400)],
        RENDER: [*LONGER, service(*CACHE), CRON, style(sort_keys=False)],
        SERVICES: [*LONGER, remove("render.yaml"), grace(120)],
        PROCFILE: [remove("supervisord.conf"), add("Procfile", "clock: python clock.py")],
    }
    limits = [soft_limit("1700"), time_limit("1800"), task("time_limit=3000"), threads(8)]
    done = edited(provider, edits[provider] + limits).project.manage(
        "test", "tests.test_deployment"
    )
    assert done.returncode == 0, done.stderr


def test_without_deploy_nothing_is_said(edited):
    place = edited(RENDER, [time_limit("7200")])
    assert check(place) == ([], "System check identified no issues (0 silenced).\n")
    found, printed = check(place, "--deploy")
    assert found == ["W006"], printed
    (texts,) = re.findall(r"^\?: \(operations\.W006\) (.+)\n\tHINT: (.+)$", printed, re.MULTILINE)
    for text in texts:
        assert re.fullmatch(r".{20,200}\.", text)


def test_the_checks_read_no_file_of_a_platform_and_ask_no_network(edited):
    """Checks run in production at every start. Broken files are for the tests to find."""
    files = ("supervisord.conf", "Procfile", "render.yaml")
    place = edited(RENDER, [])
    for name in files:
        (place.project.path / name).write_bytes(b"\xff\xfe\0[")
    code = (
        "import socket; socket.getaddrinfo = socket.socket.connect = None; "
        "from operations import checks; print([w.id for w in checks.check_deployment(None)])"
    )
    done = place.project.manage("shell", "--no-imports", "--command", code)
    assert done.stdout == "[]\n", done.stderr
