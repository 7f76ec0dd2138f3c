"""Pinning: with REDIS_CA_CERTS and no check of the host name, that certificate alone will do."""

import hashlib
import json
import re
import ssl

import pytest

from harness.asking import ANSWERED, EVERY_PYTHON, ask, python_of, report_of
from harness.certificates import Authority, self_signed

PINNED = {"REDIS_CERT_REQS": "required"}
HEROKUS_NAME = "ec2-1-2-3-4.compute-1.amazonaws.com"


def leaf_of(certificate):
    """Return the PEM text of the first certificate in the file."""
    return certificate.chain.read_text().partition("-----END CERTIFICATE-----\n")[0] + (
        "-----END CERTIFICATE-----\n"
    )


@pytest.fixture
def renewed(tmp_path):
    """The next certificate of the same server."""
    return self_signed(tmp_path, HEROKUS_NAME)


# {pin: the servers that it accepts}
ACCEPTED = {
    "self-signed": {"self-signed"},
    "no extensions": {"no extensions"},
    "one leaf of a CA": {"leaf"},
    "own CA": {"own CA", "own CA, other host"},
    "old and new": {"self-signed", "renewed"},
    "a stranger's CA": {"leaf", "leaf's sister"},
}


def test_a_whole_chain_pins_its_leaf_and_not_whom_else_its_ca_signed_for(
    deployment, redis_server, certificates, tmp_path
):
    """`openssl s_client -showcerts` prints such a chain, with a public CA in it."""
    between = Authority(tmp_path, "Public CA in between", parent=certificates.public)
    mine, others = between.issue("mine.example"), between.issue("attacker.example")
    assert mine.chain.read_text().count("BEGIN CERTIFICATE") == 2
    place = deployment("heroku")
    place.configure(redis_server(mine).url(), **PINNED, REDIS_CA_CERTS=str(mine.chain))
    assert ask(place) == ANSWERED
    impostor = redis_server(others)
    place.configure(impostor.url(), **PINNED, REDIS_CA_CERTS=str(mine.chain))
    code, text = ask(place)
    assert code != 0
    assert "not issued by REDIS_CA_CERTS" in text
    assert impostor.commands_seen() == {}


@EVERY_PYTHON
def test_each_pin_accepts_its_own_servers_and_no_other(
    version, deployment, redis_server, certificates, renewed, tmp_path
):
    place = deployment("heroku", python=python_of(version))
    bare = self_signed(tmp_path, "bare", extensions=False)
    leaf = certificates.stranger.issue("leaf.example")
    servers = {
        "self-signed": certificates.herokus,
        "renewed": renewed,
        "no extensions": bare,
        "leaf": leaf,
        "leaf's sister": certificates.stranger.issue("leaf.example"),
        "own CA": certificates.of_own,
        "own CA, other host": certificates.own.issue("other.example"),
        # The CA is in the system's store and the host is right, so redis-py alone would believe it.
        "public CA": certificates.of_public,
    }
    texts = {
        "self-signed": certificates.herokus.chain.read_text(),
        "no extensions": bare.chain.read_text(),
        "one leaf of a CA": leaf_of(leaf),
        "own CA": certificates.own.pem.read_text(),
        "old and new": certificates.herokus.chain.read_text() + renewed.chain.read_text(),
        "a stranger's CA": certificates.stranger.pem.read_text(),
    }
    pins = {name: tmp_path / f"pin-{number}.pem" for number, name in enumerate(texts)}
    for name, path in pins.items():
        path.write_text(texts[name])
    started = {name: redis_server(certificate) for name, certificate in servers.items()}
    place.configure("redis://localhost")
    given = {
        "urls": {name: server.url() for name, server in started.items()},
        "pins": {name: str(path) for name, path in pins.items()},
    }
    found = report_of(place, "pins.py", json.dumps(given))
    for client in ("celery", "redis-py"):
        accepted = {
            pin: {server for server, why in by_server.items() if not why[client]}
            for pin, by_server in found.items()
        }
        assert accepted == ACCEPTED, client
    refused = [
        why for by_server in found.values() for whys in by_server.values() for why in whys.values()
    ]
    refused = [why for why in refused if why]
    assert len(refused) == 2 * (len(pins) * len(servers) - sum(map(len, ACCEPTED.values())))
    for why in refused:
        assert "certificate verify failed" in why or "not issued by REDIS_CA_CERTS" in why
    # The server that only the pin refuses was told nothing.
    assert started["public CA"].commands_seen() == {}


def test_without_the_pin_the_public_certificate_would_do(
    deployment, redis_server, certificates, tmp_path
):
    """This proves that the matrix above can go red: redis-py alone takes REDIS_CA_CERTS as a CA."""
    place = deployment("heroku").copy(tmp_path)
    path = place.project.path / "redis_connection" / "context.py"
    text = path.read_text()
    line = "trusting_the_pins(trust) if trust.pinned else trusting_the_system(trust)"
    assert text.count(line) == 1
    beside = "trusting_the_system(trust)\n    context.check_hostname = trust.check_hostname"
    path.write_text(text.replace(line, beside))
    server = redis_server(certificates.of_public)
    place.configure("redis://localhost")
    given = {"urls": {"public CA": server.url()}, "pins": {"own CA": str(certificates.own.pem)}}
    found = report_of(place, "pins.py", json.dumps(given))
    assert found == {"own CA": {"public CA": {"celery": "", "redis-py": ""}}}
    assert server.commands_seen()["ping"] > 0


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
    assert "new certificate or another server" in probes["handshake"]["fix"]
    assert server.commands_seen() == {}


def test_the_old_and_the_new_certificate_in_one_text_accept_both(
    deployment, redis_server, certificates, renewed
):
    place = deployment("heroku")
    both = certificates.herokus.chain.read_text() + renewed.chain.read_text()
    for certificate in (certificates.herokus, renewed):
        server = redis_server(certificate)
        # The text is in one line, as most dashboards store it.
        place.configure(server.url(), **PINNED, REDIS_CA_CERTS=both.replace("\n", "\\n"))
        assert ask(place) == ANSWERED


@EVERY_PYTHON
def test_what_the_doctor_prints_can_be_pinned(
    version, deployment, redis_server, certificates, renewed, tmp_path
):
    place = deployment("heroku", python=python_of(version))
    for certificate in (certificates.herokus, self_signed(tmp_path, "bare", extensions=False)):
        server = redis_server(certificate)
        place.configure(server.url())
        printed = place.project.manage("doctor", "--certificate")
        assert printed.returncode == 0, printed.stderr
        assert server.commands_seen() == {}
        der = ssl.PEM_cert_to_DER_cert(certificate.chain.read_text())
        (fingerprint,) = re.findall(r"SHA-256 (\S+)", printed.stdout)
        assert bytes.fromhex(fingerprint.replace(":", "")) == hashlib.sha256(der).digest()

        place.configure(server.url(), **PINNED, REDIS_CA_CERTS=printed.stdout)
        assert ask(place) == ANSWERED
    # No other server is accepted with it.
    place.configure(redis_server(renewed).url(), **PINNED, REDIS_CA_CERTS=printed.stdout)
    assert ask(place)[0] != 0
