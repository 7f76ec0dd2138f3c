"""One policy: broker, results, probes and other clients connect with the same options."""

import re
import textwrap

import pytest

from harness.asking import report_of
from harness.deployments import PASSWORD
from harness.edits import change
from harness.processes import Failed

CLIENTS = {"broker, written", "broker, read", "broker, awaited"}
CLIENTS |= {"results", "doctor", "/readyz", "redis-py"}

# {policy: (kind of server, settings)}
POLICIES = {
    "CA of the system": ("public", {"REDIS_CA_CERTS": None}),
    "own CA": ("own", {}),
    "pinned": ("herokus", {"REDIS_CHECK_HOSTNAME": "false", "REDIS_CA_CERTS": "herokus"}),
    "client certificate": ("asks", {"REDIS_CLIENT_CERT": "cert", "REDIS_CLIENT_KEY": "key"}),
    "not verified": ("stranger", {"REDIS_CERT_REQS": "none"}),
    "plain": ("plain", {}),
}


@pytest.fixture
def server(redis_server, certificates):
    """server(kind) -> a running RedisServer; the kind "asks" wants certificates of clients."""

    def server(kind):
        if kind == "plain":
            return redis_server()
        if kind == "asks":
            extra = ["tls-auth-clients yes", f"tls-ca-cert-file {certificates.own.pem}"]
            return redis_server(certificates.of_own, extra=extra)
        shown = {
            "public": certificates.of_public,
            "own": certificates.of_own,
            "herokus": certificates.herokus,
            "stranger": certificates.stranger.issue(),
        }
        return redis_server(shown[kind])

    return server


@pytest.fixture
def settings_of(certificates):
    """settings_of(policy) -> its settings, with paths in place of file names."""
    client = certificates.own.issue("client")

    def settings_of(policy):
        files = {"cert": str(client.chain), "key": str(client.key)}
        settings = certificates.paths(POLICIES[policy][1])
        return {name: files.get(value, value) for name, value in settings.items()}

    return settings_of


def options_of(place, *only):
    """Return {client: {option: value}} of a configured deployment."""
    return report_of(place, "options.py", *only)


def differences(options):
    """Return the options in which any client differs from redis-py with the policy's own."""
    right = options["redis-py"]
    return {
        (client, name)
        for client, found in options.items()
        for name in found.keys() | right.keys()
        if found.get(name) != right.get(name)
    }


@pytest.mark.parametrize("policy", POLICIES)
def test_every_client_connects_with_the_same_options(
    policy, deployment, server, settings_of, certificates
):
    kind, _ = POLICIES[policy]
    right = server(kind)
    place = deployment("self_hosted")
    results = {"CELERY_RESULT_BACKEND": right.url(database=1)}
    place.configure(right.url(), **settings_of(policy), **results)
    options = options_of(place)
    assert options.keys() == CLIENTS
    assert differences(options) == set()
    assert {found["encrypted"] for found in options.values()} == {kind != "plain"}
    assert {found["class"] for found in options.values()} == {"redis_connection.connection"}
    # Each client got in, with the password.
    assert right.commands_seen()["ping"] >= len(CLIENTS)
    if kind != "plain":
        wanted = "NONE" if policy == "not verified" else "REQUIRED"
        assert f"CERT_{wanted}" in options["results"]["verify_mode"]
        assert "TLSv1_2" in options["results"]["minimum_version"]
        names = policy in ("CA of the system", "own CA", "client certificate")
        assert options["results"]["check_hostname"] == str(names)
        # What it trusts besides the system's CAs, or in their place.
        trusts_the_system = certificates.public.name in options["results"]["get_ca_certs"]
        assert trusts_the_system == (policy != "pinned")


# {the client that gets another option: (file, a line of it, the line with one thing changed)}
BROKEN = {
    "results": (
        "celery.py",
        "BACKEND_ALIASES[scheme] = ",
        "unused = ",
    ),
    "broker, read": (
        "celery.py",
        "TRANSPORT_ALIASES[scheme] = ",
        "unused = ",
    ),
    "broker, awaited": (
        "settings.py",
        "**timeouts.OPTIONS,",
        "**timeouts.OPTIONS, 'socket_keepalive_options': {},",
    ),
}


@pytest.mark.parametrize("client", BROKEN)
def test_a_client_with_other_options_would_be_seen(client, deployment, server, tmp_path):
    broken = changed(deployment("self_hosted").copy(tmp_path), *BROKEN[client])
    right = server("own")
    broken.configure(right.url(), CELERY_RESULT_BACKEND=right.url(database=1))
    assert client in {client for client, _ in differences(options_of(broken))}


def changed(place, file, old, new):
    """Return a copy of the deployment with one line of that file changed."""
    change(place.project.path / "config" / file, {old: new})
    return place


def urls_of_impostor(front):
    """Return the variables that Celery reads in spite of the settings, with the impostor's URL."""
    url = f"rediss://:{PASSWORD.replace('/', '%2F')}@localhost:{front.port}/0?ssl_cert_reqs=none"
    return {"CELERY_BROKER_READ_URL": url, "CELERY_BROKER_WRITE_URL": url}


def test_celery_variables_cannot_lead_to_another_server(deployment, server, impostor):
    front, _ = impostor("another CA")
    right = server("own")
    place = deployment("self_hosted")
    place.configure(right.url(), **urls_of_impostor(front))
    found = options_of(place, "write")
    assert {options["host"] for options in found.values()} == {f"localhost {right.port}"}
    assert front.connections == []


def test_without_the_settings_they_would_lead_there(deployment, server, impostor, tmp_path):
    """This proves that whoever believes these variables reaches the impostor above.

    Even then the impostor is not believed, because the policy is that of another server.
    """
    front, _ = impostor("another CA")
    names = '("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")'
    broken = changed(
        deployment("self_hosted").copy(tmp_path),
        "environment.py",
        f"for name in {names}",
        "for name in ()",
    )
    broken.configure(server("own").url(), REDIS_CERT_REQS="none", **urls_of_impostor(front))
    with pytest.raises(Failed, match="CERTIFICATE_VERIFY_FAILED"):
        options_of(broken, "write")
    assert front.connections
    assert front.application_bytes == 0


@pytest.mark.parametrize("name", ["BROKER_URL", "CELERY_BROKER", "CELERY_BROKER_URL"])
def test_the_celery_command_verifies_whatever_it_is_given(name, deployment, server, impostor):
    front, _ = impostor("another CA")
    place = deployment("self_hosted")
    for query in ("", "?ssl_cert_reqs=none"):
        place.configure(
            server("own").url(), **{name: f"rediss://:pw@localhost:{front.port}/0{query}"}
        )
        done = place.project.run("celery -A config inspect ping --timeout 1")
        assert done.returncode != 0
    # Refused at start, or at the handshake.
    assert bool(front.connections) == (name == "CELERY_BROKER_URL")
    assert front.application_bytes == 0


def test_a_loader_or_configuration_of_the_environment_changes_nothing(deployment, server):
    right = server("own")
    place = deployment("self_hosted")
    place.configure(right.url())
    without = options_of(place, "write")
    place.configure(right.url(), CELERY_LOADER="default", CELERY_CONFIG_MODULE="no_such_module")
    assert options_of(place, "write") == without


@pytest.mark.parametrize("results", ["redis://localhost:6379/1", "rediss://localhost:6379/1"])
def test_two_urls_with_two_policies_are_refused(results, deployment):
    place = deployment("self_hosted")
    broker = "rediss://h/0" if results.startswith("redis:") else "redis://localhost/0"
    place.configure(broker, CELERY_RESULT_BACKEND=results)
    done = place.project.manage("check")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "CELERY_RESULT_BACKEND and REDIS_URL must both be rediss:// or both redis://" in line


CACHE = """
import django, os, redis, sys
sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
django.setup()
from django.conf import settings
from django.core.cache import cache
value = {"text": "\u00fc", "list": [1, None]}
cache.set("key", value)
cache.set("count", 1)
cache.incr("count")
assert cache.get("key") == value and cache.get("count") == 2
client = redis.Redis.from_url(settings.REDIS.url, **settings.REDIS.client())
for name in sorted(client.keys("*")):
    print(name.decode(), client.get(name).decode())
"""


def test_the_cache_of_the_page_on_redis_keeps_json_over_tls(deployment, server, impostor, tmp_path):
    place = deployment("self_hosted").copy(tmp_path)
    project = place.project
    page = (project.path / "docs/redis.md").read_text()
    (snippet,) = re.findall(r"^ +CACHES = \{\n(?: {6,}.*\n)+", page, re.MULTILINE)
    with open(project.path / "config" / "settings.py", "a") as settings:
        settings.write(textwrap.dedent(snippet))
    right = server("own")
    place.configure(right.url())
    done = project.run([str(project.python), "-c", CACHE])
    assert done.returncode == 0, done.stderr
    prefix = "{" + project.slug + "}:1:"
    assert done.stdout.splitlines() == [
        prefix + "count 2",
        prefix + 'key {"text":"\\u00fc","list":[1,null]}',
    ]
    front, _ = impostor("another CA")
    place.configure(f"rediss://:pw@localhost:{front.port}/0")
    done = project.run([str(project.python), "-c", CACHE])
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
    assert front.application_bytes == 0
    # This is how Django's own format would fail.
    settings = project.path / "config" / "settings.py"
    settings.write_text(settings.read_text().replace('"serializer"', '"client_name"'))
    right.command("FLUSHALL")
    place.configure(right.url())
    done = project.run([str(project.python), "-c", CACHE])
    assert "UnicodeDecodeError" in done.stderr
