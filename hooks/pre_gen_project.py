"""Refuse answers that cannot work, all problems at once, before a file is written.

Cookiecutter renders this file and runs the copy in the project's folder. Jinja takes the file as it
is down to its last lines, where the answers are. It is plain Python, 3.10 or newer, so the tests
can import it unrendered. {% raw %}
"""

import sys

if __name__ == "__main__":
    # The copy lies in $TMPDIR. With that folder on the path, a json.py there would be imported.
    sys.path.pop(0)
    # `import signal` takes 5 ms, in which Ctrl-C would show a traceback; `_signal` takes none.
    import _signal

    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import json
import os
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

QUESTIONS = ("project_name", "project_slug", "redis_provider", "cert_strictness", "deploy_target")
STRICTNESS = ("recommended", "required", "optional", "none")
TARGETS = ("render", "render_services", "procfile", "server")
COOKIECUTTERS_OWN = ("_template", "_output_dir", "_repo_dir", "_checkout", "_commit")

# The names at the top of a generated project.
WRITTEN = (
    ".env.example .github .gitignore .python-version Procfile Procfile.dev README.md "
    "authentication config docs gunicorn.conf.py manage.py operations pyproject.toml "
    "redis_connection render.yaml requirements-dev.txt requirements.txt script supervisord.conf "
    "templates tests"
)
# This file is in the project from before the first file is written until the last check has passed.
MARKER = "INCOMPLETE.txt"
UNFINISHED = (
    "Cookiecutter has not finished this project: files may be missing, and nothing was checked.\n"
    "Delete this folder, or everything in it that is not your own, and generate the "
    "project again.\n"
)

TAG = re.compile("{[{%#]")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 _.-]{0,58}[A-Za-z0-9_.-])?")
SLUG = re.compile(r"[a-z]([a-z0-9_]{0,38}[a-z0-9])?")

# Windows has devices of these names, so it cannot have a folder of such a name.
DEVICES = {"con", "prn", "aux", "nul"}
DEVICES |= {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}


def problems(
    answers: dict,
    given: dict | None = None,
    present: Sequence[str] = (),
    output: str = "",
    own: dict | None = None,
) -> list[str]:
    """Return the reasons why the rendered answers cannot work, each as one text.

    `given` holds the answers as they were before cookiecutter rendered them. `present` names what
    is already in the project's folder. `output` is the path of the folder around that folder.
    `own` is what cookiecutter.json holds; without it, values are not compared with it.
    """
    own = own or {}
    not_plain = dict(text_problems(answers, given or {}, own))
    found = list(not_plain.values())
    if "project_name" not in not_plain:
        found += name_problems(answers)
    if "project_slug" not in not_plain:
        found += slug_problems(answers)
    if not_plain.keys().isdisjoint(QUESTIONS[2:]):
        found += private_problems(answers, own)
        # Facts that are not this template's would judge the choices wrongly.
        if not own or answers.get("_redis_providers") == own.get("_redis_providers"):
            found += choice_problems(answers)
    return [*found, *folder_problems(answers, present, output)]


def own_values(answers: dict) -> dict:
    """Return what the template's cookiecutter.json holds, or nothing where it is not found.

    cruft does not say where the template is. cookiecutter says it as the user has typed it. That
    may be relative to the folder that the user was in, which a shell names in PWD.
    """
    if "_repo_dir" not in answers:
        return {}
    for folder in (os.environ.get("PWD", ""), answers["_output_dir"]):
        path = os.path.join(folder, answers["_repo_dir"], "cookiecutter.json")
        try:
            with open(path, encoding="utf-8") as file:
                own = json.load(file)
        except (OSError, ValueError):
            continue
        if "_redis_providers" in own:
            return own
    print(f"Not compared with cookiecutter.json: it is not at {path!r}.", file=sys.stderr)
    return {}


def shown(value: object) -> str:
    """Return the value as Python writes it; over 70 characters are cut to 64."""
    text = repr(value)
    return text if len(text) <= 70 else f"{text[:60]}...{text[-1]}"


def shown_key(key: str) -> str:
    """Return the key; as Python writes it where it is not a word, and could garble a terminal."""
    return key if key.isidentifier() else shown(key)


def text_problems(answers: dict, given: dict, own: dict) -> Iterator[tuple[str, str]]:
    """Yield (key, reason) for each answer that is not text, or that was run as a template."""
    for key in QUESTIONS:
        value = answers.get(key)
        before = given.get(key, value)
        # The default of project_slug is a template.
        is_default = before == own.get(key) if own else key == "project_slug"
        if key in QUESTIONS[:2] and (isinstance(before, list) or str(before) == value):
            # Cookiecutter turned a number into text, or ran the template in a list.
            value = before
        if not isinstance(value, str):
            yield key, f"{key} is {shown(value)}, which is not text: answer with a string."
        elif before == value or is_default:
            continue  # The answer comes from a replay, or is the default.
        elif isinstance(before, str) and TAG.search(before):
            yield (
                key,
                f"{key} was given as {shown(before)}, which cookiecutter has run as a template. "
                f"The result was {shown(value)}. Answer with plain text.",
            )


def name_problems(answers: dict) -> Iterator[str]:
    name = answers["project_name"]
    if not NAME.fullmatch(name):
        yield (
            f"project_name {shown(name)} is not a name that every file can hold without escaping. "
            "Possible are 1 to 60 of a-z, A-Z, 0-9, space, '_', '.' and '-', beginning with a "
            "letter or digit and not ending with a space. "
            f"Answer for example {suggested_name(name)!r}."
        )


def suggested_name(name: str) -> str:
    """Return a name near the given one that is accepted, and so is the folder that follows."""
    without_apostrophes = re.sub("['\u2019]", "", unaccented(name))
    words = re.findall(r"[\w.-]+", without_apostrophes, re.ASCII)
    plain = " ".join(words).lstrip(" _.-")[:60].rstrip()
    if not plain:
        return "My Service"
    return f"{plain} Service" if slugified(plain) in DEVICES else plain


def slug_problems(answers: dict) -> Iterator[str]:
    slug = answers["project_slug"]
    if not SLUG.fullmatch(slug):
        reason = (
            "is not a plain name. Possible are 1 to 40 of a-z, 0-9 and '_', beginning with a "
            "letter and not ending with '_'"
        )
    elif slug in DEVICES:
        reason = "is a device on Windows, where no folder can have that name"
    else:
        return
    yield f"project_slug {shown(slug)} {reason}. Answer for example {suggested_slug(slug)!r}."


def unaccented(text: str) -> str:
    """Return the text with plain letters instead of accented, wide and joined ones."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def slugified(text: str) -> str:
    """Return the slug that cookiecutter.json makes of a plain name."""
    plain = re.sub(r"[^a-z0-9]+", "_", unaccented(text.lower()))
    return plain.lstrip("0123456789_")[:40].rstrip("_")


def suggested_slug(slug: str) -> str:
    """Return a slug near the given one that is accepted."""
    plain = slugified(slug)
    if not plain:
        return "my_service"
    return f"{plain}_service" if plain in DEVICES else plain


def private_problems(answers: dict, own: dict) -> list[str]:
    """Return one text for each value that is not an answer and not this template's own.

    A configuration file can change such a value, and so can the --replay of another release.
    """
    keys = {*own, *answers} - {*QUESTIONS, *COOKIECUTTERS_OWN}
    private = sorted(key for key in keys if not key.startswith("__"))
    strange = [key for key in private if own and answers.get(key) != own.get(key)]
    return [
        f"{shown_key(key)} is not as in this template: leave it out of the command line and of "
        "your configuration file, and do not --replay the answers to another release."
        for key in strange
    ]


def choice_problems(answers: dict) -> Iterator[str]:
    providers = answers["_redis_providers"]
    known = True
    for key, values in (
        ("redis_provider", tuple(providers)),
        ("cert_strictness", STRICTNESS),
        ("deploy_target", TARGETS),
    ):
        if answers[key] not in values:
            known = False
            yield f"{key} {shown(answers[key])} is not known: answer one of {', '.join(values)}."
    if known:
        yield from pair_problems(answers, providers[answers["redis_provider"]])
        yield from derived_problems(answers, providers[answers["redis_provider"]])


def pair_problems(answers: dict, row: dict) -> Iterator[str]:
    strictness = answers["cert_strictness"]
    if row["cert_reqs"] == "none" and strictness in ("required", "optional"):
        yield (
            f"cert_strictness {strictness!r} cannot work out of the box with redis_provider "
            f"{answers['redis_provider']!r} ({row['label']}), because no known authority signs its "
            "certificate. Answer recommended. Then set REDIS_CERT_REQS=required in the environment "
            "of the service, and REDIS_CA_CERTS to what `manage.py doctor --certificate` prints."
        )


def derived(answers: dict, row: dict) -> dict:
    """Return what cookiecutter.json derives from the answers and the provider's row of facts."""
    strictness = answers["cert_strictness"]
    return {
        # A command line can replace a text, but not a list.
        "__folder": [str(answers["project_slug"])],
        "__cert_reqs": row["cert_reqs"] if strictness == "recommended" else strictness,
        "__url_env": row["url_env"],
        "__check_hostname": str(row["check_hostname"]).lower(),
        "__databases": str(row["databases"]),
        "__max_connections": str(row["max_connections"] or 0),
        "__plaintext_hosts": row["plaintext_hosts"],
        "__polling_interval": "10" if row["billed_per_command"] else "1",
        "__remote_control": "false" if row["billed_per_command"] else "true",
    }


def derived_problems(answers: dict, row: dict) -> Iterator[str]:
    right = derived(answers, row)
    for key in sorted({*right, *(key for key in answers if key.startswith("__"))}):
        if answers.get(key) != right.get(key):
            yield (
                f"{shown_key(key)} is {shown(answers.get(key))}, but it follows from the other "
                f"answers and must be {shown(right.get(key))}: leave it out."
            )


def folder_problems(answers: dict, present: Sequence[str], output: str) -> Iterator[str]:
    if TAG.search(output):
        yield (
            f"The path {shown(output)} holds template tags, which cookiecutter would run. Choose "
            "another output folder."
        )
    where = f"The folder {shown(answers.get('project_slug'))} already holds"
    if MARKER in present:
        yield (
            f"{where} {MARKER}, because an earlier run did not finish there. Delete the folder, or "
            "everything in it that is not your own, and run again."
        )
    elif present:
        more = f" and {len(present) - 3} more" if len(present) > 3 else ""
        yield (
            f"{where} {', '.join(present[:3])}{more}, which would be overwritten or deleted. Move "
            "away what is yours, or choose another folder. To renew a project of this template, "
            "run `cruft update`."
        )


def present() -> list[str]:
    """Return the names in this folder that the project would write."""
    written = [*WRITTEN.split(), MARKER]
    return [name for name in written if os.path.lexists(name)]


def write_marker() -> int:
    """Write the marker, which post_gen removes, and return the exit status."""
    try:
        with open(MARKER, "x", encoding="ascii") as file:
            file.write(UNFINISHED)
    except OSError as error:
        if not isinstance(error, FileExistsError) and os.path.lexists(MARKER):
            os.remove(MARKER)  # The disk is full, so the marker is empty.
        return report([f"No file can be written into {os.getcwd()!r}: {error.strerror}."])
    return 0


def wrapped(text: str) -> str:
    lines = textwrap.wrap(
        f"  - {text}",
        76,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def report(found: list[str]) -> int:
    """Print the problems to stderr and return the exit status."""
    if found:
        print("Nothing was generated, because:", file=sys.stderr)
        for text in found:
            print(wrapped(text), file=sys.stderr)
        print(
            "(What follows is cookiecutter's own traceback; the reasons are above.)",
            file=sys.stderr,
        )
    return 1 if found else 0


"""{% endraw %}What follows is rendered: the answers of cookiecutter, and as they were given."""

RAW = r'''{{ cookiecutter | tojson }}'''  # fmt: skip
GIVEN = r'''{{ _cookiecutter | default({}) | tojson }}'''  # fmt: skip

if __name__ == "__main__":
    ANSWERS = json.loads(RAW)
    HERE, OUTPUT = present(), os.path.dirname(os.getcwd())
    FOUND = problems(ANSWERS, json.loads(GIVEN), HERE, OUTPUT, own_values(ANSWERS))
    sys.exit(report(FOUND) or write_marker())
