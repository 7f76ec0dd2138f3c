"""The TLS policy of every combination of answers, as the service reads it: computed, not claimed.

The defaults are rendered from cookiecutter.json, as they will stand in config/settings.py. The
environment is what the target's own files give each process, and what whoever deploys adds. Then
the service's code reads both. Nothing is baked, and no server is started.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cookiecutter.environment import StrictEnvironment
from jinja2 import Template

from harness import in_place, policy_classes
from harness.answers import CONTEXT, PRODUCT, SERVICE
from harness.certificates import Authority, self_signed
from harness.policy_classes import CLASSES, STRICT
from harness.processes import Failed
from harness.service import of_blueprint

SCRIPT = Path(__file__).parent / "inside" / "policies.py"
BLUEPRINT = next(SERVICE.glob("*render.yaml*")).read_text("utf-8")


class Stores:
    """The files that a deployment is given: of the system's store, of a CA, of a server itself."""

    def __init__(self, folder: Path) -> None:
        self.system = str(Authority(folder, "The system").pem)
        self.ca = str(Authority(folder, "The given CA").pem)
        self.own = str(self_signed(folder, "server.example").chain)

    def names(self) -> dict[str, list[str]]:
        return {"system": [self.system], "given": [self.ca, self.own]}


@dataclass(frozen=True)
class Deployed:
    """One process of a deployment, and the scheme of its URL."""

    provider: str
    strictness: str
    target: str
    scheme: str
    process: str


def policies(rows: dict[str, dict], stores: Stores, service: Path = SERVICE) -> dict:
    """{Deployed: what its handshakes depend on} of every combination of answers.

    That is {"refused": sentences} where the service does not start. `service` is the folder of the
    service's code.
    """
    wanted = dict(deployments(rows, stores))
    # Most of them read the same, and need not be read again.
    distinct = {json.dumps(each, sort_keys=True): each for each in wanted.values()}
    given = {
        "service": str(service),
        "stores": stores.names(),
        "environments": list(distinct.values()),
    }
    done = subprocess.run(
        [str(in_place.PYTHON), str(SCRIPT)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failed(f"{SCRIPT.name} ended with {done.returncode}:\n{done.stderr}")
    found = dict(zip(distinct, json.loads(done.stdout), strict=True))
    return {each: found[json.dumps(read, sort_keys=True)] for each, read in wanted.items()}


def deployments(rows: dict[str, dict], stores: Stores) -> Iterator[tuple[Deployed, dict]]:
    """Every process of every combination of answers, and what the script is told of it."""
    context = CONTEXT | {"_redis_providers": rows}
    for answers in PRODUCT:
        provider, strictness, target = answers.values()
        row = rows[provider]
        if target not in row["reachable_from"]:
            continue
        rendered = context | answers
        if row["cert_reqs"] == "none" and strictness in STRICT:
            # The hook refuses these answers. Such a service is pinned by its environment.
            rendered["cert_strictness"] = "recommended"
        for scheme in policy_classes.schemes(row):
            for process, environment in environments(rendered, strictness, scheme, stores).items():
                yield (
                    Deployed(provider, strictness, target, scheme, process),
                    {
                        "defaults": rendered_defaults(rendered),
                        "environment": environment,
                        "variable": row["url_env"],
                    },
                )


def environments(context: dict, strictness: str, scheme: str, stores: Stores) -> dict[str, dict]:
    """{process: its environment} as the target's files and whoever deploys give it."""
    row = context["_redis_providers"][context["redis_provider"]]
    asked = policy_classes.given(row, stores.ca) | {row["url_env"]: f"{scheme}://localhost:6379/0"}
    added = policy_classes.pin(row, strictness, stores.own) | {"SSL_CERT_FILE": stores.system}
    if context["deploy_target"] not in ("render", "render_services"):
        return {"all": asked | added}
    text = template(BLUEPRINT).render(cookiecutter=context | {"project_slug": "my_service"})
    commands = of_blueprint(parsed(text), asked | {"DATABASE_URL": ""})
    # A new SECRET_KEY is made for each deploy.
    return {
        process: {name: value for name, value in found.items() if name != "SECRET_KEY"} | added
        for process, found in commands.environment.items()
    }


def rendered_defaults(context: dict[str, Any]) -> dict[str, str]:
    """The defaults that config/settings.py will have with these answers."""
    return {
        variable: template(CONTEXT[name]).render(cookiecutter=context)
        for variable, name in derived().items()
    }


@cache
def derived() -> dict[str, str]:
    return in_place.rendered_defaults()


@cache
def template(text: str) -> Template:
    return StrictEnvironment(**CONTEXT["_jinja2_env_vars"]).from_string(text)


@cache
def parsed(text: str) -> Any:
    return yaml.safe_load(text)


def name_of(found: dict[str, Any]) -> str:
    """The name of the class that this policy is in. Raises ValueError if it is in none."""
    if "refused" in found:
        raise ValueError(f"refused: {' '.join(found['refused'])}")
    context = found["context"]
    for name, each in CLASSES.items():
        if context is None:
            fits = not each.met_by
        else:
            fits = (
                context["verify_mode"] in [f"CERT_{word.upper()}" for word in each.met_by]
                and context["minimum_version"] == "TLSv1_2"
                and context["check_hostname"] == each.check_hostname
                and context["trusts"] == list(each.trusts)
            )
        if fits:
            return name
    context = {name: value for name, value in context.items() if name != "ciphers"}
    raise ValueError(f"none of harness/policy_classes.py: {context}")
