"""A self-signed certificate: printed by the doctor, pinned, renewed."""

import hashlib
import re
import ssl

import pytest

from tests.support.certificates import self_signed

pytestmark = pytest.mark.live
PINNED = {"REDIS_CERT_REQS": "required"}
# The broker as Celery connects to it, and another client with the same policy.
ASK = """
from django.conf import settings
from redis import Redis
from {slug}.celery import app
with app.connection_for_write() as connection:
    connection.connect()
    print("celery", connection.default_channel.client.ping())
print("redis-py", Redis.from_url(settings.REDIS.url, **settings.REDIS.client()).ping())
"""


def ask(place):
    """(exit code, everything printed) of a process with the service's settings."""
    done = place.project.manage("shell", "-v", "0", "-c", ASK.format(slug=place.project.slug))
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def renewed(tmp_path, certificates):
    """The next certificate of the same server."""
    return self_signed(tmp_path, "ec2-1-2-3-4.compute-1.amazonaws.com")


def test_a_renewed_certificate_is_refused_and_the_doctor_says_why(
    deployment, redis_server, certificates, renewed
):
    place = deployment("heroku")
    server = redis_server(renewed)
    place.configure(server.url(), **PINNED, REDIS_CA_CERTS=str(certificates.herokus.chain))
    code, text = ask(place)
    assert code != 0
    assert "CERTIFICATE_VERIFY_FAILED" in text
    code, probes = place.project.doctor()
    assert code == 1
    assert probes["handshake"]["state"] == "fail"
    assert "renewed or another server" in probes["handshake"]["fix"]
    assert server.commands_seen() == {}


def test_the_old_and_the_new_certificate_in_one_text_accept_both(
    deployment, redis_server, certificates, renewed
):
    place = deployment("heroku")
    both = certificates.herokus.chain.read_text() + renewed.chain.read_text()
    for certificate in (certificates.herokus, renewed):
        server = redis_server(certificate)
        # In one line, as most dashboards store it.
        place.configure(server.url(), **PINNED, REDIS_CA_CERTS=both.replace("\n", "\\n"))
        assert ask(place) == (0, "celery True\nredis-py True\n")


def test_what_the_doctor_prints_can_be_pinned(deployment, redis_server, certificates, renewed):
    place = deployment("heroku")
    server = redis_server(certificates.herokus)
    place.configure(server.url())
    printed = place.project.manage("doctor", "--certificate")
    assert printed.returncode == 0, printed.stderr
    assert server.commands_seen() == {}
    der = ssl.PEM_cert_to_DER_cert(certificates.herokus.chain.read_text())
    (fingerprint,) = re.findall(r"SHA-256 (\S+)", printed.stdout)
    assert bytes.fromhex(fingerprint.replace(":", "")) == hashlib.sha256(der).digest()

    place.configure(server.url(), **PINNED, REDIS_CA_CERTS=printed.stdout)
    assert ask(place) == (0, "celery True\nredis-py True\n")
    # And nobody else is accepted with it.
    place.configure(redis_server(renewed).url(), **PINNED, REDIS_CA_CERTS=printed.stdout)
    assert ask(place)[0] != 0
