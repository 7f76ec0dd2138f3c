"""Refuse answers that cannot work, all problems at once, before a file is written.

Cookiecutter renders this file and runs the copy in the project's folder. Only RAW and GIVEN change:
the rest is plain Python, 3.10 or newer, which the tests import as it stands.
"""

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # the folder of the copy, $TMPDIR: a stray json.py there would be imported
    import _signal  # `signal` imports for 5 ms first, and Ctrl-C would show a traceback of that

    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import json
import os
import re
import textwrap
import unicodedata
import zlib

RAW = r'''{{ cookiecutter | tojson }}'''  # fmt: skip
GIVEN = r'''{{ _cookiecutter | default({}) | tojson }}'''  # fmt: skip  # before it was rendered

QUESTIONS = ("project_name", "project_slug", "redis_provider", "cert_strictness", "deploy_target")
STRICTNESS = ("recommended", "required", "optional", "none")
TARGETS = ("render", "render_services", "procfile", "server")
COOKIECUTTERS_OWN = ("_template", "_output_dir", "_repo_dir", "_checkout", "_commit")

# Of what nobody answers: a configuration file or the --replay of another release may change it.
# Written by script/providers_table.py.
DIGESTS = {
    "_copy_without_render": "63681fc7",
    "_jinja2_env_vars": "bb6e5eb6",
    "_redis_providers": "5c55a498",
    "project_slug": "19119904",
}

# What the service has at the top of its folder.
WRITTEN = (
    ".env.example .github .gitignore .python-version Procfile Procfile.dev README.md "
    "authentication config gunicorn.conf.py manage.py operations pyproject.toml redis_connection "
    "render.yaml "
    "requirements-dev.txt requirements.txt script supervisord.conf templates tests"
)
MARKER = "INCOMPLETE.txt"  # there from the first file until the last check
WRAPPED = {"width": 76, "break_long_words": False, "break_on_hyphens": False}
UNFINISHED = (
    "Cookiecutter has not finished this project: files may be missing, and nothing was checked.\n"
    "Delete this folder, or all in it that is not your own, and generate the project again.\n"
)

TAG = re.compile("{[{" + "%#]")  # joined here, or it would be a tag in this file
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 _.-]{0,58}[A-Za-z0-9_.-])?")
SLUG = re.compile(r"[a-z]([a-z0-9_]{0,38}[a-z0-9])?")

# Windows has devices of these names, so no folder can have one of them.
DEVICES = {"con", "prn", "aux", "nul"}
DEVICES |= {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}


def problems(answers, given=None, present=(), output=""):
    """Return one sentence for each reason why the resolved answers cannot work.

    `given` holds them as they were before cookiecutter rendered them, `present` the names that are
    already in the project's folder, `output` the path of the folder around it.
    """
    wrong = dict(text_problems(answers, given or {}))
    found = list(wrong.values())
    if "project_name" not in wrong:
        found += name_problems(answers)
    if "project_slug" not in wrong:
        found += slug_problems(answers)
    if wrong.keys().isdisjoint(QUESTIONS[2:]):
        found += private_problems(answers)
        if ours("_redis_providers", answers):  # or all would be judged by other facts
            found += choice_problems(answers)
    return [*found, *folder_problems(answers, present, output)]


def shown(value):
    """Return the value as Python writes it, cut to what a line can hold."""
    text = repr(value)
    return text if len(text) <= 70 else f"{text[:60]}...{text[-1]}"


def word(key):
    """Return the key, and as Python writes it where it is no word."""
    return key if key.isidentifier() else shown(key)


def digest(value):
    """Return eight hex digits that change with the value."""
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def text_problems(answers, given):
    """Yield (key, sentence) for each answer that is no text, or that cookiecutter has run."""
    for key in QUESTIONS:
        value = answers.get(key)
        before = given.get(key, value)
        if key in QUESTIONS[:2] and (isinstance(before, list) or str(before) == value):
            value = before  # cookiecutter has made a text of it, or run what a list holds
        if not isinstance(value, str):
            yield key, f"{key} is {shown(value)}, which is no text: answer with a string."
        elif before == value or digest(before) == DIGESTS.get(key):
            continue  # from a replay, or the default
        elif isinstance(before, str) and TAG.search(before):
            yield (
                key,
                f"{key} was given as {shown(before)}, which cookiecutter has run as a template "
                f"(result: {shown(value)}): answer with plain text.",
            )


def name_problems(answers):
    name = answers["project_name"]
    if not NAME.fullmatch(name):
        plain = " ".join(re.findall(r"[\w.-]+", unaccented(name), re.ASCII))
        plain = plain.lstrip(" _.-")[:60].rstrip() or "My Service"
        plain += " Service" if slugified(plain) in DEVICES else ""  # the folder that follows
        yield (
            f"project_name {shown(name)} is not 1 to 60 of a-z, A-Z, 0-9, space, '_', '.' and '-', "
            "first a letter or digit and last no space, which need no escaping in any file: answer "
            f"for example {plain!r}."
        )


def slug_problems(answers):
    slug = answers["project_slug"]
    if not SLUG.fullmatch(slug):
        reason = "is not a plain name (1 to 40 of a-z, 0-9, '_'; first a-z, last no '_')"
    elif slug in DEVICES:
        reason = "is a device on Windows, where no folder can have that name"
    else:
        return
    yield f"project_slug {shown(slug)} {reason}: answer for example {suggestion(slug)!r}."


def unaccented(text):
    """Return the text with plain letters instead of accented, wide and joined ones."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def slugified(text):
    """Return the text as cookiecutter.json makes a slug of a plain name."""
    plain = re.sub(r"[^a-z0-9]+", "_", unaccented(text.lower()))
    return plain.lstrip("0123456789_")[:40].rstrip("_")


def suggestion(slug):
    """Return a slug near the given one that is accepted."""
    plain = slugified(slug)
    if not plain:
        return "my_service"
    return f"{plain}_service" if plain in DEVICES else plain


def ours(key, answers):
    return digest(answers.get(key)) == DIGESTS[key]


def private_problems(answers):
    """Return one sentence for each value that is no answer and not this template's."""
    known = {*QUESTIONS, *DIGESTS, *COOKIECUTTERS_OWN}
    strange = [key for key in answers if key not in known and not key.startswith("__")]
    strange += [key for key in DIGESTS if key not in QUESTIONS and not ours(key, answers)]
    return [
        f"{key} is not as in this template: leave it out of the command line and of your "
        "configuration file, and do not --replay the answers to another release. If you have "
        "changed the template, run python3 -m script.providers_table."
        for key in map(word, strange)
    ]


def choice_problems(answers):
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
        "__folder": [str(answers["project_slug"])],  # a list: no command line can replace it
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
    right = derived(answers, row)
    for key in sorted({*right, *(key for key in answers if key.startswith("__"))}):
        if answers.get(key) != right.get(key):
            yield (
                f"{word(key)} is {shown(answers.get(key))}, but it follows from the other answers "
                f"and is {shown(right.get(key))}: leave it out."
            )


def folder_problems(answers, present, output):
    if TAG.search(output):
        yield (
            f"the path {shown(output)} holds template tags, which cookiecutter would run: choose "
            "another output folder."
        )
    where = f"the folder {shown(answers.get('project_slug'))} already holds"
    if MARKER in present:
        yield (
            f"{where} {MARKER}, since an earlier run did not finish there: delete the folder, or "
            "all in it that is not your own, then run again."
        )
    elif present:
        more = f" and {len(present) - 3} more" if len(present) > 3 else ""
        yield (
            f"{where} {', '.join(present[:3])}{more}, which would be overwritten or deleted: move "
            "away what is yours or choose another folder; `cruft update` renews a project of this "
            "template."
        )


def present():
    """Return the names in this folder that the project would write."""
    ours = [*WRITTEN.split(), MARKER]
    return [name for name in ours if os.path.lexists(name)]


def mark():
    """Write the marker that post_gen removes; return the exit status."""
    try:
        with open(MARKER, "x", encoding="ascii") as file:
            file.write(UNFINISHED)
    except OSError as error:
        if not isinstance(error, FileExistsError) and os.path.lexists(MARKER):
            os.remove(MARKER)  # it is empty: the disk is full
        return report([f"no file can be written into {os.getcwd()!r}: {error.strerror}."])
    return 0


def report(found):
    """Print the problems on stderr and return the exit status."""
    if found:
        print("Nothing was generated, because:", file=sys.stderr)
        for text in found:
            lines = textwrap.wrap(f"  - {text}", subsequent_indent="    ", **WRAPPED)
            print(*lines, sep="\n", file=sys.stderr)
        print(
            "(What follows is cookiecutter's own traceback; the reasons are above.)",
            file=sys.stderr,
        )
    return 1 if found else 0


if __name__ == "__main__":
    ANSWERS = json.loads(RAW)
    OUTPUT, HERE = os.path.dirname(os.getcwd()), present()
    sys.exit(report(problems(ANSWERS, json.loads(GIVEN), HERE, OUTPUT)) or mark())
