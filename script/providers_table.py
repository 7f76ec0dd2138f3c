#!/usr/bin/env python3
"""Write what follows from cookiecutter.json.

That is the generated parts of docs/providers.md and docs/security.md, the number of choices in
README.md and docs/decisions.md, and what the issue form offers. Run it after every change;
`--check` writes nothing and exits 1 when a file is stale.
"""

import argparse
import itertools
import json
import re
import sys
from pathlib import Path

from harness import stand_ins
from script import security_tables
from script.generated import replaced, table

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "providers.md"
SECURITY = ROOT / "docs" / "security.md"
SAY_HOW_MANY = (ROOT / "README.md", ROOT / "docs" / "decisions.md")
FORM = ROOT / ".github" / "ISSUE_TEMPLATE" / "provider-fact.yml"
CHECK_KEYS = ("ca", "cert_reqs", "check_hostname")


def read_context() -> dict:
    """Return what cookiecutter.json holds."""
    return json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))


def live_test(key: str, rows: dict[str, dict], left_out=stand_ins.NOT_LIVE_TESTED) -> str:
    """Return how tests/live tests this row, or why it does not."""
    if key in left_out:
        return f"no: {left_out[key]}"
    pinned = (key, True) in stand_ins.journeys(rows, left_out).values()
    return "yes, as rendered and pinned" if pinned else "yes"


def verification(row: dict) -> str:
    """Return what the rendered defaults verify with `cert_strictness` recommended."""
    words = stand_ins.effective_verification(row)
    if row["tls"] == "none":
        return f"{words}; verified once the URL is rediss://"
    if row["cert_reqs"] == "none":
        return f"{words} until pinned by REDIS_CA_CERTS"
    if row["ca"] != "system" and row["check_hostname"]:
        return f"{words}, with the CA in REDIS_CA_CERTS"
    return words


def idle_timeout(row: dict) -> str:
    seconds = row["idle_timeout_s"]
    return "unknown" if seconds is None else f"{seconds} s" if seconds else "none"


def generated(rows: dict[str, dict]) -> str:
    """Return the tables and the notes as Markdown."""
    connection, limits, evidence, notes = [], [], [], []
    for key, row in rows.items():

        def cell(text, *keys, believed=row["believed"]):
            return f"{text}*" if any(name in believed for name in keys) else str(text)

        connections = "unknown" if row["max_connections"] is None else row["max_connections"]
        databases = f"{row['databases']}, cluster mode" if row["cluster_mode"] else row["databases"]
        refused = " ".join(row["refused_commands"]) or "none known"
        connection.append(
            [
                f"`{key}`",
                cell(f"`{row['url_form']}`", "url_form", "port"),
                cell(row["tls"], "tls"),
                cell(verification(row), *CHECK_KEYS),
            ]
        )
        limits.append(
            [
                f"`{key}`",
                cell(databases, "databases", "cluster_mode"),
                cell(idle_timeout(row), "idle_timeout_s"),
                cell(connections, "max_connections"),
                cell(row["eviction"], "eviction"),
                cell(refused, "refused_commands"),
                cell("yes" if row["billed_per_command"] else "no", "billed_per_command"),
            ]
        )
        evidence.append([f"`{key}`", live_test(key, rows), row["source"], row["read_on"]])
        where = f"Reached from {row['network']}." if row["network"] else "Reached from anywhere."
        notes.append(
            f"### {row['label']}\n\n`{key}`, URL in `{row['url_env']}`. {where}\n\n{row['notes']}\n"
        )
    return "\n".join(
        [
            "## Connection\n",
            table(["Provider", "URL", "TLS", "Effective verification"], connection),
            "## Limits\n",
            table(
                [
                    "Provider",
                    "Databases",
                    "Idle timeout",
                    "Connections, smallest plan",
                    "Eviction by default",
                    "Refused commands",
                    "Billed per command",
                ],
                limits,
            ),
            "## Evidence\n",
            table(["Provider", "Live-tested, or why not", "Source", "Read on"], evidence),
            "## Notes\n",
            *notes,
        ]
    )


def refreshed(page: str, rows: dict[str, dict]) -> str:
    """Return the page with its generated part renewed. Raises ValueError if a marker is missing."""
    return replaced(page, generated(rows), "docs/providers.md")


def numbered(page: str, rows: dict[str, dict]) -> str:
    """Return the page with the number of choices of Redis."""
    return re.sub(r"\b\d+(?=\s+choices\b)", str(len(rows)), page)


def offered(form: str, rows: dict[str, dict]) -> str:
    """Return the issue form with the rows and their keys. Raises ValueError without such a list."""
    keys = list(dict.fromkeys(itertools.chain.from_iterable(rows.values())))
    for field, options in (("row", list(rows)), ("key", keys)):
        listed = re.search(rf"^    id: {field}\n(?:.*\n)*?      options:\n", form, re.MULTILINE)
        if listed is None:
            raise ValueError(f"{FORM.name} must have a field {field} with options")
        head, rest = form[: listed.end()], form[listed.end() :]
        lines = "".join(f"        - {option}\n" for option in options)
        form = head + lines + re.sub(r"\A(?:        - .*\n)+", "", rest)
    return form


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    options = parser.parse_args(arguments)
    rows, status = read_context()["_redis_providers"], 0
    for path, renew in (
        (PAGE, refreshed),
        (SECURITY, security_tables.refreshed),
        *((page, numbered) for page in SAY_HOW_MANY),
        (FORM, offered),
    ):
        text = path.read_text("utf-8")
        fresh = renew(text, rows)
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        if text == fresh:
            print(f"{name} is current")
        elif options.check:
            status = 1
            print(f"{name} is stale: run python3 -m script.providers_table", file=sys.stderr)
        else:
            path.write_text(fresh, "utf-8")
            print(f"{name} written")
    return status


if __name__ == "__main__":
    sys.exit(main())
