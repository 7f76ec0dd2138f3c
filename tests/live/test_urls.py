"""URLs: refused in one line without a secret, or read alike by every client, and connecting."""

import socket
import urllib.parse

import pytest

from harness.answers import varied
from harness.asking import ANSWERED, ask, report_of
from harness.deployments import PASSWORD
from harness.tallies import tally

SEED = "1"
ODD = "p/w#?@:%+;$,[ü]&=!"


def quoted(text):
    return urllib.parse.quote(text, safe="")


def test_every_url_is_refused_in_one_line_or_read_alike(deployment):
    report = report_of(deployment("self_hosted"), "urls.py", SEED)
    assert report["wrong"] == 0, report["examples"]
    counts = report["counts"]
    assert counts["tried"] == counts["refused"] + counts["accepted"]
    # Both must happen often, or this would show little.
    assert counts["refused"] > counts["tried"] / 3
    assert counts["accepted"] > counts["tried"] / 3
    assert counts["plain"] > counts["accepted"] / 5
    assert counts["fragments"] == 0
    tally(
        "URLs and variables, made up by chance",
        tried=counts["tried"],
        refused=counts["refused"],
        accepted=counts["accepted"],
        fragments_of_the_password_in_a_message=counts["fragments"],
        read_differently_by_two_clients=report["wrong"],
    )


FAULTS = {
    "leaky": "a fragment of the secret",
    "careless": "plain text to 8.8.8.8",
    "literal": "another password than was meant",
    "lenient": "not verified, and nobody asked",
}


@pytest.mark.parametrize("fault", varied(FAULTS))
def test_a_worse_service_would_be_found(fault, deployment):
    report = report_of(deployment("self_hosted"), "urls.py", SEED, fault)
    assert report["wrong"] > 100
    assert FAULTS[fault] in str(report["examples"])


# {what is right: (user name, its password or None, what the URL says before the host)}
ACCOUNTS = {
    "percent-encoded": (f"user-{ODD}", ODD, f"{quoted(f'user-{ODD}')}:{quoted(ODD)}"),
    "raw where that is possible": ("u+$@x", "$a@b+c!;,", "u+$@x:$a@b+c!;,"),
    "starts with a dollar": ("default", "$SECRET", ":$SECRET"),
    "user without password": ("guest", None, "guest"),
}


@pytest.mark.parametrize("account", ACCOUNTS)
def test_connects_with_the_account(account, deployment, redis_server, certificates):
    user, password, typed = ACCOUNTS[account]
    server = redis_server(certificates.of_own)
    rule = "nopass" if password is None else f">{password}"
    server.command("ACL", "SETUSER", user, "reset", "on", rule, "~*", "&*", "+@all")
    place = deployment("self_hosted")
    place.configure(f"rediss://{typed}@localhost:{server.port}/0")
    assert ask(place) == ANSWERED
    place.configure(f"rediss://{typed}x@localhost:{server.port}/0")
    code, text = ask(place)
    assert code != 0
    assert "invalid username-password" in text or "Authentication required" in text
    assert password is None or password not in text


# {what is right: (the URL's beginning, the URL as it is stored)}
SPELLINGS = {
    "valkeys": ("valkeys://", "{}"),
    "capitals": ("REDISS://", "{}"),
    "line end": ("rediss://", "{}\n"),
    "spaces": ("rediss://", "  {} \r\n"),
    "agreeing query": ("rediss://", "{}?ssl_cert_reqs=CERT_REQUIRED"),
    "no database": ("rediss://", "{}/"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_connects_however_it_is_spelt(spelling, deployment, redis_server, certificates):
    scheme, stored = SPELLINGS[spelling]
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted")
    url = f"{scheme}:{quoted(PASSWORD)}@localhost:{server.port}"
    place.configure(stored.format(url))
    assert ask(place) == ANSWERED


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_connects_without_tls(scheme, deployment, redis_server):
    server = redis_server()
    place = deployment("self_hosted")
    place.configure(server.url().replace("redis://", f"{scheme}://"))
    assert ask(place) == ANSWERED


def test_connects_by_ipv6(deployment, redis_server, certificates):
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"NOT TESTED: this machine has no IPv6 ({error})")
    server = redis_server(certificates.own.issue("::1"), extra=["bind ::1"])
    place = deployment("self_hosted")
    place.configure(server.url("[::1]"))
    assert ask(place) == ANSWERED


# {how a PEM text is stored: (its line ends, what stands around it)}
TEXTS = {
    "lines": ("\n", ""),
    "one line": ("\\n", ""),
    "one line of Windows": ("\\r\\n", ""),
    "in quotes": ("\n", '"'),
    "one line in quotes": ("\\n", "'"),
}


@pytest.mark.parametrize("form", TEXTS)
def test_the_text_of_a_ca_does_as_its_path(form, deployment, redis_server, certificates):
    end, quote = TEXTS[form]
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted")
    text = quote + certificates.own.pem.read_text().replace("\n", end) + quote
    place.configure(server.url(), REDIS_CA_CERTS=text)
    assert ask(place) == ANSWERED


def test_the_old_and_the_new_ca_accept_both_servers(deployment, redis_server, certificates):
    """That is needed for a change of CA, here with the host name checked."""
    old, new = redis_server(certificates.of_own), redis_server(certificates.stranger.issue())
    place = deployment("self_hosted")
    both = certificates.own.pem.read_text() + certificates.stranger.pem.read_text()
    for server in (old, new):
        place.configure(server.url(), REDIS_CA_CERTS=both)
        assert ask(place) == ANSWERED
    # With the old CA alone the new server would have been refused.
    place.configure(new.url())
    code, text = ask(place)
    assert code != 0
    assert "CERTIFICATE_VERIFY_FAILED" in text


@pytest.mark.parametrize("form", ["paths", "texts", "texts of one line"])
def test_connects_with_a_client_certificate(form, deployment, redis_server, certificates):
    extra = ["tls-auth-clients yes", f"tls-ca-cert-file {certificates.own.pem}"]
    server = redis_server(certificates.of_own, extra=extra)
    client = certificates.own.issue("client")
    files = {"REDIS_CLIENT_CERT": client.chain, "REDIS_CLIENT_KEY": client.key}
    if form == "paths":
        settings = {name: str(path) for name, path in files.items()}
    else:
        end = "\n" if form == "texts" else "\\n"
        settings = {name: path.read_text().replace("\n", end) for name, path in files.items()}
    place = deployment("self_hosted")
    place.configure(server.url(), **settings)
    assert ask(place) == ANSWERED
    place.configure(server.url())
    assert ask(place)[0] != 0
