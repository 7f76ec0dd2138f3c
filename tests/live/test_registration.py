"""The whole way on each stand-in: register, the worker mails, follow the link, log in."""

import json
import re
from dataclasses import dataclass, field

import pytest

from tests.live.deployments import ONE_OF_EACH_TARGET
from tests.live_tested import LIVE_TESTED
from tests.support.browser import verification_link

pytestmark = pytest.mark.live
PROBES = ["resolve", "connect", "handshake", "auth", "ping", "round trip"]
TASK = "authentication.email_utils.send_verification_email"


@dataclass
class Way:
    """How a stand-in is reached: its certificate, and what the operator sets beyond the default."""

    deployment: str
    certificate: str | None
    policy: str
    state: str = "ok"
    databases: int = 16
    settings: dict = field(default_factory=dict)


VERIFIED = "certificate and host name verified"
WAYS = {
    "render": Way("render", None, "plain text, not encrypted"),
    "upstash": Way("upstash", "of_public", VERIFIED, databases=1),
    "self_hosted": Way("self_hosted", "of_own", VERIFIED),
    "heroku": Way("heroku", "herokus", "encrypted, certificate not verified", state="warn"),
    "heroku_pinned": Way(
        "heroku",
        "herokus",
        "certificate verified, pinned by REDIS_CA_CERTS",
        settings={"REDIS_CERT_REQS": "required", "REDIS_CA_CERTS": "herokus"},
    ),
}


def test_every_stand_in_is_run_and_said_to_be():
    assert {way.deployment for way in WAYS.values()} == set(ONE_OF_EACH_TARGET) == set(LIVE_TESTED)


@pytest.mark.parametrize("name", WAYS)
def test_registers_mails_verifies_and_logs_in(
    name, deployment, redis_server, certificates, running
):
    way = WAYS[name]
    certificate = way.certificate and getattr(certificates, way.certificate)
    server = redis_server(certificate, databases=way.databases)
    place = deployment(way.deployment)
    service = running(place.start(server.url(), **certificates.paths(way.settings)))
    service.wait_for_status("/healthz", 200, 60)
    service.wait_for_status("/readyz", 200, 60)

    browser = service.browser()
    assert browser.register("ada", "ada@example.com", "correct horse 7").url == "/accounts/login/"
    message = service.mailbox.wait("ada@example.com", 30)
    link = verification_link(message)
    assert link.startswith(browser.origin)
    assert not browser.log_in("ada", "correct horse 7"), "logged in before the address is verified"
    assert browser.get(link).status == 200
    assert not browser.log_in("ada", "correct horse 7"), "a mail scanner's GET verified the address"
    assert browser.post(link).url == "/accounts/login/"
    assert browser.log_in("ada", "correct horse 7")
    assert len(service.mailbox.messages("ada@example.com")) == 1

    # In a worker's process, which belongs to the service and is not a web server.
    family = service.family()
    assert "gunicorn" not in family[service.task_pid(TASK)]
    assert any("gunicorn" in command for command in family.values())
    if place.remote_control:
        asked = place.project.run(
            ["celery", "-A", place.project.slug, "inspect", "registered", "--json"], seconds=30
        )
        assert asked.returncode == 0, asked.stderr
        (tasks,) = json.loads(asked.stdout).values()
        assert TASK in tasks

    code, probes = place.project.doctor()
    states = {name: probe["state"] for name, probe in probes.items()}
    assert states == dict.fromkeys(PROBES, "ok") | {"handshake": way.state}, probes
    assert code == 0
    assert way.policy in probes["handshake"]["seen"]
    # Web, worker and beat say it once each when they start, and loudly if it is weak.
    said = re.findall(r"^.* [a-z_]+\.redis_tls: .*$", service.output(), re.MULTILINE)
    level = "INFO" if way.state == "ok" else "WARNING"
    line = rf"\S+ \S+ {level} MainProcess\[(\d+)\] .*: {way.policy}"
    assert len({re.fullmatch(line, text)[1] for text in said}) == len(said) == 3

    seen = server.commands_seen()
    assert seen.get("auth", 0) + seen.get("hello", 0) > 0

    # Within the 28 s of supervisord.conf, with nothing left over.
    assert set(service.stop(28).values()) == {0}
