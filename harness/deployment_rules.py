"""Rules of a service's files that hold for all answers: the locks, the time to stop, render.yaml.

The hooks do not know them, because nothing at a user's can break them. Each function yields a
sentence for each mistake.
"""

import configparser
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

# Seconds. supervisord stops one program after another, and hosts kill all of them after 30.
STOP_BUDGET = 28

PINNED = re.compile(r"[\w.-]+(\[[\w,.-]+\])?==[\w.!+]+( *;.*?)?( --hash=sha256:[0-9a-f]{64})+")
ELSEWHERE = re.compile(r"://|^\s*-(?!-hash=)|--\S*index|--find-links|--trusted-host", re.MULTILINE)

# The keys that render.yaml may have, and with `!` must have. Render's own schema is less strict.
BLUEPRINT = {
    "file": "services! databases envVarGroups",
    "web": "type! name! plan region runtime! buildCommand! preDeployCommand startCommand! "
    "healthCheckPath! maxShutdownDelaySeconds numInstances autoDeployTrigger envVars!",
    "worker": "type! name! plan region runtime! buildCommand! preDeployCommand startCommand! "
    "maxShutdownDelaySeconds numInstances autoDeployTrigger envVars!",
    "keyvalue": "type! name! plan region ipAllowList! maxmemoryPolicy!",
    "databases": "name! plan region databaseName user postgresMajorVersion diskSizeGB ipAllowList",
    "envVarGroups": "name! envVars!",
    "envVars": "key value sync generateValue fromService fromDatabase fromGroup",
    "fromService": "type! name! property!",
    "fromDatabase": "name! property!",
}
NOT_TEXT: dict[str, type] = {
    **dict.fromkeys(["services", "databases", "envVarGroups", "envVars", "ipAllowList"], list),
    **dict.fromkeys(["maxShutdownDelaySeconds", "numInstances", "diskSizeGB"], int),
    **dict.fromkeys(["sync", "generateValue"], bool),
    **dict.fromkeys(["fromService", "fromDatabase"], dict),
}

Files = dict[str, str]


def problems(files: Files) -> list[str]:
    """Return what is wrong with a service, of which `files` holds {path: text}."""
    return [*lock_problems(files), *stop_problems(files), *blueprint_problems(files)]


def lock_problems(files: Files) -> Iterator[str]:
    """Every package is pinned by version and hashes, and none comes from elsewhere than PyPI."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = files.get(name, "")
        if ELSEWHERE.search(text):
            yield f"{name} names an index or a host, or holds a pip option."
        text = re.sub(r"(^|\s)#.*", "", text).replace("\\\n", " ")
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        for line in lines or ["nothing"]:
            if not PINNED.fullmatch(line):
                yield f"{name}: {line[:40]!r} is not pinned by == and sha256 hashes."


def seconds_to_stop(files: Files) -> int:
    """Return how long supervisord waits for all programs. ValueError if that is not a number."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(files["supervisord.conf"])
    programs = [parser[name] for name in parser.sections() if name.startswith("program:")]
    return sum(int(program.get("stopwaitsecs", "10")) for program in programs)


def stop_problems(files: Files) -> Iterator[str]:
    """A host that gives a container 30 s does not kill what still stops."""
    seconds = seconds_to_stop(files)
    if seconds > STOP_BUDGET:
        yield f"supervisord.conf: its stopwaitsecs add up to {seconds} s, above {STOP_BUDGET} s."


# render.yaml


def blueprint_problems(files: Files) -> list[str]:
    """Return what is wrong with render.yaml, if there is one."""
    if "render.yaml" not in files:
        return []
    blueprint = yaml.safe_load(files["render.yaml"])
    found = list(shape("file", blueprint))
    if not found:  # The rules expect a file of the right shape.
        found = [text for rule in RULES for text in rule(blueprint)]
        found += delay_problems(blueprint, seconds_to_stop(files))
    return [f"render.yaml: {text}" for text in found]


def shape(kind: Any, thing: Any) -> Iterator[str]:
    """Yield which keys of a part of render.yaml are missing, unknown or of the wrong type."""
    if kind == "services":
        kind = thing.get("type") if isinstance(thing, dict) else None
        if kind not in ("web", "worker", "keyvalue"):
            yield f"a service of type {kind!r}: write web, worker or keyvalue."
            return
    if not isinstance(thing, dict):
        yield f"an entry of {kind} is not a mapping."
        return
    where = f"{kind} {thing.get('name') or thing.get('key') or ''}".strip()
    allowed = BLUEPRINT[kind].split()
    for key in (key[:-1] for key in allowed if key.endswith("!") and key[:-1] not in thing):
        yield f"{where} has no {key}."
    pair = len(thing) == 2 and "key" in thing and "fromGroup" not in thing
    if kind == "envVars" and not pair and set(thing) != {"fromGroup"}:
        yield f"{where} needs a key and one source, or fromGroup alone."
    for key, value in thing.items():
        wanted = NOT_TEXT.get(key, str)
        if key not in allowed and f"{key}!" not in allowed:
            yield f"{where} must not have {key}."
        elif type(value) is not wanted:
            hint = ": put it in quotes" if wanted is str else ""
            yield f"{where}: {key} is {value!r}, not {wanted.__name__}{hint}."
        elif key in BLUEPRINT or key == "services":
            for part in value if isinstance(value, list) else [value]:
                yield from shape(key, part)


def processes(blueprint: dict) -> list[dict]:
    """Return the services that run a command."""
    return [service for service in blueprint["services"] if service["type"] != "keyvalue"]


def place_problems(blueprint: dict) -> Iterator[str]:
    """Each has a name of its own, and all are in one region."""
    things = [*blueprint["services"], *blueprint.get("databases", [])]
    if len({thing["name"] for thing in things}) < len(things):
        yield "two services or databases have the same name."
    if len({thing.get("region") for thing in things}) > 1:
        yield "regions differ, and private addresses do not cross regions."


def redis_problems(blueprint: dict) -> Iterator[str]:
    """A Redis is closed to the internet and drops no task."""
    for service in blueprint["services"]:
        name = service["name"]
        if service.get("ipAllowList"):
            yield f"{name}: ipAllowList must be [], or it is open to the internet."
        if service.get("maxmemoryPolicy", "noeviction") != "noeviction":
            yield f"{name}: maxmemoryPolicy must be noeviction, or tasks are dropped."


def process_problems(blueprint: dict) -> Iterator[str]:
    """Plans, health checks and delays are what Render takes."""
    for service in processes(blueprint):
        name = service["name"]
        if service["type"] == "worker" and service.get("plan") == "free":
            yield f"{name}: a worker cannot have plan free."
        if service.get("healthCheckPath", "/healthz") != "/healthz":
            yield f"{name}: healthCheckPath must be /healthz."
        if not 1 <= service.get("maxShutdownDelaySeconds", 30) <= 300:
            yield f"{name}: maxShutdownDelaySeconds must be from 1 to 300."


def delay_problems(blueprint: dict, seconds: int) -> Iterator[str]:
    """Render waits until supervisord has stopped all programs."""
    for service in processes(blueprint):
        delay = service.get("maxShutdownDelaySeconds", 30)
        if ".supervise" in service["startCommand"] and delay < seconds:
            yield f"{service['name']}: maxShutdownDelaySeconds {delay} is below {seconds} s."


def secret_problems(blueprint: dict) -> Iterator[str]:
    """All processes share one SECRET_KEY, which Render makes; web has WEB_CONCURRENCY."""
    groups = {group["name"]: group["envVars"] for group in blueprint.get("envVarGroups", [])}
    made = {"key": "SECRET_KEY", "generateValue": True}
    makers = {name for name, variables in groups.items() if made in variables}
    used = set()
    for service in processes(blueprint):
        name, variables = service["name"], service["envVars"]
        mine = {variable.get("fromGroup") for variable in variables}
        shared = [entry for group in mine & groups.keys() for entry in groups[group]]
        keys = [variable.get("key") for variable in (*variables, *shared)]
        if service["type"] == "web" and "WEB_CONCURRENCY" not in keys:
            yield f"{name}: WEB_CONCURRENCY must be written out, its default differs."
        used |= mine & makers
        if not mine & makers or keys.count("SECRET_KEY") > 1:
            yield f"{name}: SECRET_KEY must come from a group with generateValue, only."
    if len(used) > 1:
        yield "SECRET_KEY comes from several groups, so the services would not agree on it."


def source_problems(blueprint: dict) -> Iterator[str]:
    """What a variable is taken from exists, and Render takes it from there."""
    databases = [database["name"] for database in blueprint.get("databases", [])]
    services = [f"{service['type']} {service['name']}" for service in blueprint["services"]]
    groups = blueprint.get("envVarGroups", [])
    for holder in (*processes(blueprint), *groups):
        for variable in holder["envVars"]:
            where = f"{holder['name']}: {variable.get('key') or 'fromGroup'}"
            source, database = variable.get("fromService"), variable.get("fromDatabase")
            if holder in groups and {"fromService", "fromDatabase", "sync"} & set(variable):
                yield f"{where} is in a group, where Render ignores it."
            if source and source["property"] != "connectionString":
                yield f"{where} must take the property connectionString."
            if source and f"{source['type']} {source['name']}" not in services:
                yield f"{where} refers to a service that does not exist."
            if database and database["name"] not in databases:
                yield f"{where} refers to a database that does not exist."
            if variable.get("fromGroup") not in [None, *(group["name"] for group in groups)]:
                yield f"{where} refers to a group that does not exist."


def version_problems(blueprint: dict) -> Iterator[str]:
    """A PYTHON_VERSION is whole, as Render wants it."""
    for holder in (*processes(blueprint), *blueprint.get("envVarGroups", [])):
        for variable in holder["envVars"]:
            version = variable.get("value") if variable.get("key") == "PYTHON_VERSION" else None
            if version and not re.fullmatch(r"\d+\.\d+\.\d+", version):
                yield f"{holder['name']}: PYTHON_VERSION must be whole, as in '3.13.5'."


RULES: tuple[Callable[[dict], Iterator[str]], ...] = (
    place_problems,
    redis_problems,
    process_problems,
    secret_problems,
    source_problems,
    version_problems,
)
