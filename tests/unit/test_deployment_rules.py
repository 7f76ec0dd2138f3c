"""harness/deployment_rules.py: each rule on a small service, of which one line is wrong."""

import pytest

from harness import deployment_rules

HASH = "0123456789abcdef" * 4
FILES = {
    "requirements.txt": f"# made by uv\ncelery==5.7.0 \\\n    --hash=sha256:{HASH}\n",
    "requirements-dev.txt": (
        f"redis[x]==8.1.0 ; python_version < '3.12' \\\n    --hash=sha256:{HASH} \\\n"
        f"    --hash=sha256:{HASH}\n    # via celery\n"
    ),
    "supervisord.conf": """\
[program:celery_worker]
stopwaitsecs=18 ; soft 12
[program:django]
stopwaitsecs=7
[program:celery_beat]
stopwaitsecs=2
""",
}
BLUEPRINT = """\
services:
  - type: web
    name: web
    runtime: python
    plan: starter
    buildCommand: build
    preDeployCommand: migrate
    startCommand: python -m operations.supervise -c supervisord.conf
    healthCheckPath: /healthz
    maxShutdownDelaySeconds: 60
    envVars:
      - fromGroup: shared
      - key: DATABASE_URL
        fromDatabase:
          name: db
          property: connectionString
      - key: REDIS_URL
        fromService:
          type: keyvalue
          name: redis
          property: connectionString
      - key: EMAIL_URL
        sync: false
      - key: PYTHON_VERSION
        value: "3.13.5"
  - type: worker
    name: worker
    runtime: python
    plan: standard
    buildCommand: build
    startCommand: celery worker
    envVars:
      - fromGroup: shared
  - type: keyvalue
    name: redis
    plan: starter # not free
    ipAllowList: []
    maxmemoryPolicy: noeviction
databases:
  - name: db
    plan: basic-256mb
envVarGroups:
  - name: shared
    envVars:
      - key: SECRET_KEY
        generateValue: true
      - key: WEB_CONCURRENCY
        value: "1"
"""


def found(name, old, new):
    """Return the problems of the service with a text in one of its files replaced once.

    `old` None stands for the whole file, `new` None removes the file.
    """
    files = FILES | {"render.yaml": BLUEPRINT}
    text = files.pop(name)
    assert old is None or old in text
    if new is not None:
        files[name] = new if old is None else text.replace(old, new, 1)
    return deployment_rules.problems(files)


def test_a_whole_service_has_no_problems():
    assert deployment_rules.problems(FILES) == []
    assert deployment_rules.problems(FILES | {"render.yaml": BLUEPRINT}) == []


CONF = "supervisord.conf"
LOCK = "requirements.txt"
RED = {
    "no lock": (LOCK, "", None, "requirements.txt: 'nothing' is not pinned"),
    "an empty lock": (LOCK, f"celery==5.7.0 \\\n    --hash=sha256:{HASH}", "", "'nothing' is not"),
    "a range": (LOCK, "celery==5.7.0", "celery>=5.7", "'celery>=5.7 --hash=sha256:"),
    "no hash": (LOCK, f" \\\n    --hash=sha256:{HASH}", "", "'celery==5.7.0' is not pinned"),
    "a short hash": (LOCK, HASH, HASH[1:], "is not pinned by == and sha256 hashes."),
    "another kind of hash": (LOCK, "sha256", "md5", "is not pinned by == and sha256 hashes."),
    "a loose one among the dev tools": (
        "requirements-dev.txt",
        "redis[x]==8.1.0 ;",
        "redis[x]~=8.1.0 ;",
        "requirements-dev.txt: \"redis[x]~=8.1.0 ; python_version < '3.12",
    ),
    "an index named in a comment": (
        LOCK,
        "made by uv",
        "uv --index-url https://example.com",
        "requirements.txt names an index or a host, or holds a pip option.",
    ),
    "stopping takes too long": (
        CONF,
        "stopwaitsecs=7",
        "stopwaitsecs=9",
        "supervisord.conf: its stopwaitsecs add up to 29 s, above 28 s.",
    ),
    "a program stops in supervisor's 10 s": (
        CONF,
        "stopwaitsecs=7",
        "autostart=true",
        "supervisord.conf: its stopwaitsecs add up to 30 s, above 28 s.",
    ),
}


@pytest.mark.parametrize(("name", "old", "new", "text"), RED.values(), ids=RED)
def test_a_lock_or_a_time_to_stop_turns_red_when(name, old, new, text):
    assert any(text in one for one in found(name, old, new))


def test_a_time_to_stop_that_is_not_a_number_is_an_error():
    with pytest.raises(ValueError, match="soon"):
        found(CONF, "=18", "=soon")


KEY = "key: SECRET_KEY\n        generateValue: true"
RENDER_RED = {
    "it is empty": (None, "", "an entry of file is not a mapping."),
    "services are not a list": (None, "services: {}\n", "file: services is {}, not list."),
    "services are missing": ("services:", "x:", "file has no services."),
    "the file has another key": (
        "databases:",
        "previews: {}\ndatabases:",
        "file must not have pre",
    ),
    "a service is not a mapping": (
        "services:",
        "services:\n  - web",
        "a service of type None: write",
    ),
    "a service has no type": ("- type: worker", "- plan: x", "a service of type None: write web"),
    "Redis has its old type": (
        "- type: keyvalue",
        "- type: redis",
        "a service of type 'redis': wr",
    ),
    "a service has no name": ("    name: worker\n", "", "worker has no name."),
    "a web service has no runtime": ("    runtime: python\n", "", "web web has no runtime."),
    "a service has env for runtime": ("    runtime:", "    env:", "web web must not have env."),
    "a service has no build command": ("    buildCommand: build\n", "", "has no buildCommand."),
    "a service has no start command": (
        "    startCommand: celery worker\n",
        "",
        "worker worker has no startCommand.",
    ),
    "the old release command": (
        "preDeployCommand",
        "releaseCommand",
        "must not have releaseCommand",
    ),
    "web has no health check": ("    healthCheckPath: /healthz\n", "", "has no healthCheckPath."),
    "web has another health check": (
        "/healthz",
        "/readyz",
        "web: healthCheckPath must be /healthz.",
    ),
    "a worker has a health check": (
        "startCommand: celery worker",
        "startCommand: celery worker\n    healthCheckPath: /healthz",
        "worker worker must not have healthCheckPath.",
    ),
    "a worker is free": ("plan: standard", "plan: free", "worker: a worker cannot have plan free."),
    "Redis has no allow list": ("    ipAllowList: []\n", "", "keyvalue redis has no ipAllowList."),
    "Redis is open": (
        "ipAllowList: []",
        "ipAllowList: [{source: 0.0.0.0/0}]",
        "redis: ipAllowList must be []",
    ),
    "Redis evicts": ("noeviction", "allkeys-lru", "redis: maxmemoryPolicy must be noeviction"),
    "Redis has no policy": ("    maxmemoryPolicy: noeviction\n", "", "has no maxmemoryPolicy."),
    "the delay is text": (
        "Seconds: 60",
        'Seconds: "60"',
        "maxShutdownDelaySeconds is '60', not int",
    ),
    "the delay is yes": ("Seconds: 60", "Seconds: yes", "maxShutdownDelaySeconds is True, not int"),
    "the delay is 0": (
        "Seconds: 60",
        "Seconds: 0",
        "maxShutdownDelaySeconds must be from 1 to 300",
    ),
    "the delay is 301": ("Seconds: 60", "Seconds: 301", "Seconds must be from 1 to 300"),
    "the delay is shorter than the stop": (
        "Seconds: 60",
        "Seconds: 26",
        "web: maxShutdownDelaySeconds 26 is below 27 s.",
    ),
    "two services share a name": (
        "name: worker",
        "name: web",
        "two services or databases have the",
    ),
    "regions differ": (
        "    plan: basic-256mb",
        "    plan: basic-256mb\n    region: frankfurt",
        "regions differ, and private addresses do not cross regions.",
    ),
    "another property": (
        "name: redis\n          property: conn",
        "name: redis\n          property: x",
        "web: REDIS_URL must take the property connectionString.",
    ),
    "no type in fromService": ("          type: keyvalue\n", "", "fromService redis has no type."),
    "no property in fromService": (
        "name: redis\n          property: connectionString",
        "name: redis",
        "fromService redis has no property.",
    ),
    "a service that does not exist": (
        "          name: redis",
        "          name: rediss",
        "web: REDIS_URL refers to a service that does not exist.",
    ),
    "a service of another type": (
        "          type: keyvalue",
        "          type: web",
        "web: REDIS_URL refers to a service that does not exist.",
    ),
    "a database that does not exist": (
        "          name: db",
        "          name: postgres",
        "web: DATABASE_URL refers to a database that does not exist.",
    ),
    "a group that does not exist": (
        "- fromGroup: shared\n      - key",
        "- fromGroup: shared\n      - fromGroup: x\n      - key",
        "web: fromGroup refers to a group that does not exist.",
    ),
    "a variable without a source": (
        "        sync: false\n",
        "",
        "envVars EMAIL_URL needs a key and",
    ),
    "a variable without a key": (
        "key: EMAIL_URL\n        sync: false",
        "value: x\n        sync: false",
        "envVars needs a key and one source, or fromGroup alone.",
    ),
    "a group with a key": (
        "- fromGroup: shared\n      - key",
        "- fromGroup: shared\n        key: X\n      - key",
        "envVars X needs a key and one source, or fromGroup alone.",
    ),
    "a variable with two sources": (
        "sync: false",
        "sync: false\n        value: x",
        "envVars EMAIL_URL needs a key and one source",
    ),
    "a Python version as a number": (
        '"3.13.5"',
        "3.10",
        "envVars PYTHON_VERSION: value is 3.1, not str: put it in quotes.",
    ),
    "half a Python version": ('"3.13.5"', '"3.13"', "web: PYTHON_VERSION must be whole"),
    "WEB_CONCURRENCY as a number": (
        'value: "1"',
        "value: 1",
        "envVars WEB_CONCURRENCY: value is 1, not str: put it in quotes.",
    ),
    "no WEB_CONCURRENCY": ("WEB_CONCURRENCY", "OTHER", "web: WEB_CONCURRENCY must be written out"),
    "a group takes from a service": (
        "    envVars:\n      - key: SECRET_KEY",
        "    envVars:\n      - key: EMAIL_URL\n        sync: false\n      - key: SECRET_KEY",
        "shared: EMAIL_URL is in a group, where Render ignores it.",
    ),
    "SECRET_KEY is written down": (
        KEY,
        "key: SECRET_KEY\n        value: x",
        "web: SECRET_KEY must come from a group with generateValue, only.",
    ),
    "each service makes its own SECRET_KEY": (
        "      - fromGroup: shared\n      - key: DATABASE_URL",
        f"      - {KEY}\n      - key: DATABASE_URL",
        "web: SECRET_KEY must come from a group with generateValue, only.",
    ),
    "a service overrides SECRET_KEY": (
        "- fromGroup: shared\n      - key",
        "- fromGroup: shared\n      - key: SECRET_KEY\n        sync: false\n      - key",
        "web: SECRET_KEY must come from a group with generateValue, only.",
    ),
}


@pytest.mark.parametrize(("old", "new", "text"), RENDER_RED.values(), ids=RENDER_RED)
def test_render_yaml_turns_red_when(old, new, text):
    problems = found("render.yaml", old, new)
    assert any(one.startswith("render.yaml: ") and text in one for one in problems), problems


def test_two_groups_that_make_a_secret_key_are_seen():
    more = BLUEPRINT.replace(
        "envVarGroups:", f"envVarGroups:\n  - name: more\n    envVars:\n      - {KEY}"
    )
    worker, mine = "celery worker\n    envVars:\n      - fromGroup: ", ("shared", "more")
    assert worker + mine[0] in more
    files = FILES | {"render.yaml": more.replace(worker + mine[0], worker + mine[1])}
    [text] = deployment_rules.problems(files)
    assert text == (
        "render.yaml: SECRET_KEY comes from several groups, so the services would not agree on it."
    )
