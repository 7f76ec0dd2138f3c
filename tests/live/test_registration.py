"""The whole way on each stand-in: register, the worker mails, follow the link, log in."""

import json
import secrets
from dataclasses import dataclass, field

import pytest

from tests.support.browser import verification_link

from .conftest import PASSWORD

pytestmark = pytest.mark.live
TASK = "authentication.email_utils.send_verification_email"


@dataclass
class Way:
    """How one stand-in is reached: the server's certificate, and what the operator sets."""

    deployment: str
    certificate: str | None = None
    handshake: str = "ok"
    seen: str = ""
    databases: int = 16
    settings: dict = field(default_factory=dict)
    pinned: bool = False


WAYS = {
    "render": Way("render", seen="plain"),
    "upstash": Way("upstash", "of_public", seen="host name verified", databases=1),
    "self_hosted": Way("self_hosted", "of_own", seen="host name verified"),
    "heroku": Way("heroku", "herokus", handshake="warn", seen="NOT VERIFIED"),
    "heroku pinned": Way(
        "heroku", "herokus", pinned=True, settings={"REDIS_CERT_REQS": "required"}
    ),
}
