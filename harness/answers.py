"""The questions' axes, read from cookiecutter.json, and the combinations that tests bake."""

import itertools
import json
from pathlib import Path

from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config

ROOT = Path(__file__).resolve().parent.parent
SERVICE = ROOT / "{{cookiecutter.project_slug}}"
CONTEXT = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
ROWS = CONTEXT["_redis_providers"]
QUESTIONS = [key for key in CONTEXT if not key.startswith("_")]
PROVIDERS, STRICTNESS, TARGETS = (
    CONTEXT[key] for key in ("redis_provider", "cert_strictness", "deploy_target")
)

# Every provider x strictness x target, as answers.
PRODUCT = [
    {"redis_provider": provider, "cert_strictness": strictness, "deploy_target": target}
    for provider, strictness, target in itertools.product(PROVIDERS, STRICTNESS, TARGETS)
]
# The defaults, and every other choice once.
ONE_AT_A_TIME = [
    {},
    *(
        {key: value}
        for key in ("redis_provider", "cert_strictness", "deploy_target")
        for value in CONTEXT[key][1:]
    ),
]


def row_id(answers):
    """Return the name of a combination in pytest's output."""
    return "-".join(answers.values()) or "defaults"


def check_keys(answers, known=tuple(QUESTIONS)):
    """Raise ValueError for a key that cookiecutter would silently ignore."""
    unknown = sorted(set(answers) - set(known))
    if unknown:
        raise ValueError(f"not in cookiecutter.json: {', '.join(unknown)}")


def refused(answers):
    """Return whether the facts rule out these answers: no CA signs what is to be verified."""
    provider = answers.get("redis_provider", PROVIDERS[0])
    strictness = answers.get("cert_strictness", STRICTNESS[0])
    return ROWS[provider]["cert_reqs"] == "none" and strictness in ("required", "optional")


def effective(answers):
    """Return the mode that the answers mean: "recommended" renders the same bytes as another."""
    row, strictness = ROWS[answers["redis_provider"]], answers["cert_strictness"]
    return row["cert_reqs"] if strictness == "recommended" else strictness


def varied(values, shown=1):
    """Parameters for a test: the first `shown` of the values, and with --all the others.

    A tuple holds one value for each of several parameters.
    """
    import pytest  # which the demo, whose bakes begin here, has not installed

    tuples = [value if isinstance(value, tuple) else (value,) for value in values]
    more = [pytest.param(*each, marks=pytest.mark.all) for each in tuples[shown:]]
    return [pytest.param(*each) for each in tuples[:shown]] + more


def each(step, values):
    """Parameters for a test: every so many of the values, and with --all the others."""
    values = list(values)
    shown = values[::step]
    return varied([*shown, *(value for value in values if value not in shown)], len(shown))


def resolved(**answers):
    """Return the whole context that cookiecutter makes of the answers, derived values included."""
    check_keys(answers, CONTEXT)
    context = generate_context(str(ROOT / "cookiecutter.json"), extra_context=answers)
    return dict(prompt_for_config(context, no_input=True))
