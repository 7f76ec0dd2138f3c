"""A server that is not the one: no password reaches it, and everybody says why."""

import pytest

from tests.live.deployments import PASSWORD
from tests.support.processes import wait_until

pytestmark = pytest.mark.live
REASON = r"certificate verify failed|not issued by REDIS_CA_CERTS"
PINNED = {"REDIS_CERT_REQS": "required", "REDIS_CA_CERTS": "herokus"}
VERIFYING = {
    # Plain redis:// as rendered; a rediss:// URL, when it comes, is verified without a change.
    "render": ("render", {}),
    "upstash": ("upstash", {}),
    "self_hosted": ("self_hosted", {}),
    "heroku_pinned": ("heroku", PINNED),
}


def impostor_url(front):
    return f"rediss://:{PASSWORD.replace('/', '%2F').replace('$', '%24')}@localhost:{front.port}/0"


@pytest.mark.parametrize("kind", ["another CA", "public CA, another host"])
@pytest.mark.parametrize("name", VERIFYING)
def test_refuses(name, kind, deployment, impostor, certificates, running):
    front, server = impostor(kind)
    who, settings = VERIFYING[name]
    place = deployment(who)
    service = running(place.start(impostor_url(front), **certificates.paths(settings)))
    service.wait_for_status("/healthz", 200, 60)
    for program in service.programs.values():
        if any(" worker " in command for command in program.family().values()):
            assert PASSWORD not in program.wait_for(f"consumer: Cannot connect.*({REASON})", 60)[0]
    wait_until(lambda: front.connections, 5, "a connection to the impostor")

    status, text, seconds = service.status("/readyz")
    assert status == 503, text
    assert seconds < 5
    code, probes = place.project.doctor()
    assert code == 1
    assert probes["handshake"]["state"] == "fail"
    assert probes["handshake"]["fix"]
    assert probes["auth"]["state"] == "not reached"
    assert PASSWORD not in str(probes)

    assert front.application_bytes == 0
    assert server.commands_seen() == {}
    assert PASSWORD not in service.output()
    service.stop(28)


def test_unverified_it_would_have_been_told_the_password(deployment, impostor, running):
    """Heroku's documented exception, and the proof that the zeros above are counted."""
    front, server = impostor("another CA")
    place = deployment("heroku")
    service = running(place.start(impostor_url(front)))
    wait_until(lambda: front.application_bytes, 60, "a byte after the handshake")
    code, probes = place.project.doctor()
    assert "not verified" in probes["handshake"]["seen"]
    seen = server.commands_seen()
    assert seen.get("auth", 0) + seen.get("hello", 0) > 0
    service.stop(28)
