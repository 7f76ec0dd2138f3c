"""The few TLS policies that all rows render to, and which row meets the bad servers for each.

Here the facts of a row say which policy it should have. harness/rendered_policies.py computes the
one that the service really has, and tests/unit/test_policy_classes.py holds them together. Two
deployments of one policy are alike in everything that a handshake depends on. So a bad server that
one of them refuses is refused by all.
"""

from dataclasses import dataclass
from typing import Any

STRICT = ("required", "optional")


@dataclass(frozen=True)
class PolicyClass:
    """One TLS policy, with the context that it needs.

    `trusts` names the CAs: those of the system, or those given by REDIS_CA_CERTS. `met_by` has the
    row that meets the bad servers, {strictness: row}, for all rows of the class.
    """

    words: str
    trusts: tuple[str, ...]
    check_hostname: bool
    met_by: dict[str, str]


# The rows that meet bad servers have different targets, as harness/deployments.py bakes them.
CLASSES = {
    "system_ca": PolicyClass(
        "the system's CAs and the host name",
        ("system",),
        True,
        {"required": "upstash", "optional": "render_public"},
    ),
    "given_ca": PolicyClass(
        "REDIS_CA_CERTS beside the system's CAs, and the host name",
        ("given", "system"),
        True,
        {"required": "self_hosted", "optional": "scalingo"},
    ),
    # One is pinned to a CA, and the other to the server's own certificate.
    "pinned": PolicyClass(
        "REDIS_CA_CERTS and nothing else",
        ("given",),
        False,
        {"required": "memorystore_redis", "optional": "heroku"},
    ),
    "not_verified": PolicyClass(
        "nothing: every certificate is believed", ("system",), False, {"none": "heroku"}
    ),
    "plain": PolicyClass("nothing: `redis://` has no certificate", (), False, {}),
}


def class_of(row: dict[str, Any], strictness: str, scheme: str) -> str:
    """The class that a deployment of this row should be in, by the row's facts."""
    if scheme == "redis":
        return "plain"
    if strictness == "recommended":
        strictness = row["cert_reqs"]
    if strictness == "none":
        return "not_verified"
    if not row["check_hostname"]:
        return "pinned"
    return "given_ca" if has_ca_file(row) else "system_ca"


def schemes(row: dict[str, Any]) -> tuple[str, ...]:
    """The schemes that a URL of this row can have. A plain one may get TLS, and the reverse."""
    return ("redis", "rediss") if row["tls"] != "mandatory" else ("rediss",)


def has_ca_file(row: dict[str, Any]) -> bool:
    """Whether the provider or the owner has a CA whose file is given in REDIS_CA_CERTS."""
    return row["ca"] in ("own", "provider_file")


def pinned_itself(row: dict[str, Any]) -> bool:
    """Whether REDIS_CA_CERTS holds the server's own certificate, because there is no CA.

    Such a row is rendered without verification, and is pinned by environment variables later.
    """
    return row["ca"] == "self_signed"


def rendered_strictness(row: dict[str, Any], strictness: str) -> str:
    """The answer with which a deployment of this row gets this strictness.

    `recommended` stands for `required`; where a pin is needed, it stands for both.
    """
    return "recommended" if strictness == "required" or pinned_itself(row) else strictness


def given(row: dict[str, Any], ca: str) -> dict[str, str]:
    """What the target's files ask for beside the URL. `ca` is the file of a CA."""
    return {"REDIS_CA_CERTS": ca} if has_ca_file(row) else {}


def pin(row: dict[str, Any], strictness: str, own: str) -> dict[str, str]:
    """What makes a service verify that is not rendered to. `own` is the server's certificate."""
    if pinned_itself(row) and strictness in STRICT:
        return {"REDIS_CERT_REQS": strictness, "REDIS_CA_CERTS": own}
    return {}
