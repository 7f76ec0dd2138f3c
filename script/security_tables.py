"""The tables of docs/security.md: which row has which TLS policy, and who met which bad server.

script/providers_table.py writes them.
"""

from harness.policy_classes import CLASSES, STRICT, class_of, schemes
from harness.refusals import (
    KINDS,
    NO_SECURE_CONNECTION,
    TRIES,
    WRONG_CERTIFICATE,
    accepted,
    met,
    refused,
)
from script.generated import replaced, table

COMMAND = "`./script/test tests/live/test_impostors.py`"
MEETING = [name for name, each in CLASSES.items() if each.met_by]
# What a cell of the second table says, with the number of its note on the page.
BY_THE_SERVER = "refused by the server (3)"
BY_DESIGN = "believed, by design (1)"
THE_SAME = "the same as the next (2)"


def refreshed(page: str, rows: dict[str, dict]) -> str:
    """Return docs/security.md with its tables renewed."""
    parts = [classes(rows), results(rows), counts()]
    return replaced(page, "\n".join(parts), "docs/security.md")


def classes(rows: dict[str, dict]) -> str:
    """What each class trusts, which rows are in it, and which of them meet the bad servers."""
    lines = []
    for name, each in CLASSES.items():
        rendered = [key for key, row in rows.items() if name == as_rendered(row)]
        others = [key for key, row in rows.items() if key not in rendered and can_be(name, row)]
        meetings = [f"`{row}` with `{strictness}`" for strictness, row in each.met_by.items()]
        every = len(rendered) + len(others) == len(rows)
        lines.append(
            [
                f"`{name}`",
                each.words,
                keys(rendered),
                "every other row" if every else keys(others),
                ", ".join(meetings) or "none",
            ]
        )
    heads = [
        "TLS policy",
        "What is trusted",
        "Rows that are rendered so",
        "Rows that come to it by other answers, variables or URLs",
        "Who meets the bad servers",
    ]
    return table(heads, lines)


def as_rendered(row: dict) -> str:
    """The class of a row with `cert_strictness` recommended and a URL as the provider gives it."""
    return class_of(row, "recommended", "redis" if row["tls"] == "none" else "rediss")


def can_be(name: str, row: dict) -> bool:
    """Whether any answers and any URL bring the row into this class."""
    return any(
        class_of(row, strictness, scheme) == name
        for strictness in (*STRICT, "none")
        for scheme in schemes(row)
    )


def keys(rows: list[str]) -> str:
    return ", ".join(f"`{key}`" for key in rows) or "none"


def results(rows: dict[str, dict]) -> str:
    """What each kind of bad server gets from each class."""
    met_by = {name: next(iter(CLASSES[name].met_by.values())) for name in MEETING}
    return table(
        ["Bad server", *(f"`{name}`" for name in met_by)],
        [
            [kind, *(result(kind, name, rows[key]) for name, key in met_by.items())]
            for kind in KINDS
        ],
    )


def result(kind: str, name: str, row: dict) -> str:
    """What a service of this class does with such a server; `row` is one of the class."""
    if kind == "no client certificate":
        return BY_THE_SERVER
    if name == "not_verified":
        return "believed" if kind in WRONG_CERTIFICATE else "refused"
    if kind in accepted(row):
        return BY_DESIGN
    return "refused" if kind in refused(row) else THE_SAME


def counts() -> str:
    """How many servers were met, by the tables that the tests take them from."""
    bad, right = len(met(refused)), len(met(accepted))
    believed, others = len(WRONG_CERTIFICATE), len(NO_SECURE_CONNECTION)
    return table(
        ["What", "Tried", "Result", "Command"],
        [
            [
                "bad servers, services that verify",
                str(bad),
                f"0 accepted; at least {TRIES * bad} connections, each begun with a TLS handshake"
                " (first byte 0x16); 0 bytes after a handshake, so 0 of AUTH or HELLO (3);"
                " 0 passwords in logs",
                COMMAND,
            ],
            [
                "right servers by another name, pinned",
                str(right),
                f"{right} accepted, as documented (1)",
                COMMAND,
            ],
            [
                "bad certificates, `cert_strictness=none`",
                str(believed),
                f"{believed} accepted, with a warning in the log and of the doctor",
                COMMAND,
            ],
            ["the other kinds, `cert_strictness=none`", str(others), "0 accepted", COMMAND],
        ],
    )
