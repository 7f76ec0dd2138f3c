"""A wrong environment variable: one line that names it, a failure, and no part of a password."""

import os
import re
import shutil

import pytest
from cryptography.hazmat.primitives import serialization

from harness.answers import varied
from harness.processes import free_port

# A password that somebody typed without percent-encoding. No part of it may be shown.
PARTS = ("Zq7xK9vw", "Bn1YmTj5", "Hd3RsLp8")
RAW = "/".join(PARTS)
PASSWORD = "%2F".join(PARTS)
GOOD = f"rediss://:{PASSWORD}@localhost:6379/0"
KEY_TEXT = "-----BEGIN PRIVATE KEY-----\\n{}\\n-----END PRIVATE KEY-----".format("".join(PARTS))

# {what is wrong: (the variable the line must name, the settings)}
REFUSED = {
    "no secret key": ("SECRET_KEY", {"SECRET_KEY": None}),
    "no Redis URL": ("REDIS_URL", {"REDIS_URL": None}),
    "empty Redis URL": ("REDIS_URL", {"REDIS_URL": " "}),
    "unparsable Redis URL": ("REDIS_URL", {"REDIS_URL": f"rediss://:{PASSWORD}@[::1:6379/0"}),
    "wrong scheme": ("REDIS_URL", {"REDIS_URL": f"http://:{PASSWORD}@localhost:6379/0"}),
    "misspelt scheme": ("REDIS_URL", {"REDIS_URL": f"reddis://:{PASSWORD}@localhost:6379/0"}),
    "quotes": ("REDIS_URL", {"REDIS_URL": f"'{GOOD}'"}),
    "quotes at the end": ("REDIS_URL", {"REDIS_URL": f'rediss://:{PASSWORD}@localhost"'}),
    "no scheme": ("REDIS_URL", {"REDIS_URL": f":{PASSWORD}@localhost:6379/0"}),
    "one database": (
        "REDIS_URL",
        {"REDIS_URL": f"rediss://:{PASSWORD}@localhost/1", "REDIS_DATABASES": "1"},
    ),
    "raw slash": ("REDIS_URL", {"REDIS_URL": f"rediss://:{RAW}@localhost:6379/0"}),
    "raw hash": ("REDIS_URL", {"REDIS_URL": f"rediss://:{'#'.join(PARTS)}@localhost:6379/0"}),
    "raw bracket": ("REDIS_URL", {"REDIS_URL": f"rediss://:{'['.join(PARTS)}@localhost:6379/0"}),
    "port too high": ("REDIS_URL", {"REDIS_URL": f"rediss://:{PASSWORD}@localhost:99999/0"}),
    "database too high": ("REDIS_URL", {"REDIS_URL": f"rediss://:{PASSWORD}@localhost:6379/16"}),
    "database is a word": ("REDIS_URL", {"REDIS_URL": f"rediss://:{PASSWORD}@localhost/abc"}),
    "CA in the query": ("REDIS_URL", {"REDIS_URL": GOOD + "?ssl_ca_certs=/ca.pem"}),
    "host name check in the query": ("REDIS_URL", {"REDIS_URL": GOOD + "?ssl_check_hostname=no"}),
    "query": ("REDIS_URL", {"REDIS_URL": GOOD + "?ssl_cert_reqs=none"}),
    "password in the query": ("REDIS_URL", {"REDIS_URL": f"rediss://h/0?password={PARTS[0]}"}),
    "plain and public": ("REDIS_URL", {"REDIS_URL": f"redis://:{PASSWORD}@redis.example.com/0"}),
    "the winning URL": ("CELERY_BROKER_URL", {"CELERY_BROKER_URL": f"amqp://u:{PASSWORD}@h/0"}),
    "plain and public, written otherwise": (
        "REDIS_URL",
        {"REDIS_URL": f"redis://:{PASSWORD}@redis\u3002example\u3002com/0"},
    ),
    "a URL for the worker alone": ("BROKER_URL", {"BROKER_URL": GOOD}),
    "results with another policy": (
        "CELERY_RESULT_BACKEND",
        {"CELERY_RESULT_BACKEND": f"redis://:{PASSWORD}@localhost:6379/1"},
    ),
    "results that are not verified": (
        "CELERY_RESULT_BACKEND",
        {"CELERY_BROKER_URL": GOOD, "CELERY_RESULT_BACKEND": GOOD + "?ssl_cert_reqs=none"},
    ),
    "results": ("CELERY_RESULT_BACKEND", {"CELERY_RESULT_BACKEND": f"rpc://u:{PASSWORD}@h/0"}),
    "strictness": ("REDIS_CERT_REQS", {"REDIS_CERT_REQS": "strict"}),
    "host name check": ("REDIS_CHECK_HOSTNAME", {"REDIS_CHECK_HOSTNAME": "maybe"}),
    "pin without a CA": (
        "REDIS_CA_CERTS",
        {"REDIS_CHECK_HOSTNAME": "false", "REDIS_CA_CERTS": None},
    ),
    "pin of a public CA": (
        "REDIS_CA_CERTS",
        {"REDIS_CHECK_HOSTNAME": "false", "REDIS_CA_CERTS": "public.pem"},
    ),
    "CA is not there": ("REDIS_CA_CERTS", {"REDIS_CA_CERTS": "/no/such/ca.pem"}),
    "CA is not there, with a space": ("REDIS_CA_CERTS", {"REDIS_CA_CERTS": "no such ca.pem"}),
    "CA is a folder": ("REDIS_CA_CERTS", {"REDIS_CA_CERTS": "folder"}),
    "CA is empty": ("REDIS_CA_CERTS", {"REDIS_CA_CERTS": "empty.pem"}),
    "CA is not a certificate": ("REDIS_CA_CERTS", {"REDIS_CA_CERTS": "garbage.pem"}),
    "CA is a key": ("REDIS_CA_CERTS", {"REDIS_CA_CERTS": "client.key"}),
    "CA is the text of a key": ("REDIS_CA_CERTS", {"REDIS_CA_CERTS": KEY_TEXT}),
    "CA is what a key holds": ("REDIS_CA_CERTS", {"REDIS_CA_CERTS": "".join(PARTS)}),
    "CA is cut off": ("REDIS_CA_CERTS", {"REDIS_CA_CERTS": "cut.pem"}),
    "CA text is not a certificate": (
        "REDIS_CA_CERTS",
        {"REDIS_CA_CERTS": "-----BEGIN CERTIFICATE-----\\nnone\\n-----END CERTIFICATE-----"},
    ),
    "certificate without key": ("REDIS_CLIENT_KEY", {"REDIS_CLIENT_CERT": "client.pem"}),
    "key without certificate": ("REDIS_CLIENT_CERT", {"REDIS_CLIENT_KEY": "client.key"}),
    "certificate is not there": (
        "REDIS_CLIENT_CERT",
        {"REDIS_CLIENT_CERT": "/no/such.pem", "REDIS_CLIENT_KEY": "client.key"},
    ),
    "another key": (
        "REDIS_CLIENT_KEY",
        {"REDIS_CLIENT_CERT": "client.pem", "REDIS_CLIENT_KEY": "other.key"},
    ),
    "key is not there": (
        "REDIS_CLIENT_KEY",
        {"REDIS_CLIENT_CERT": "client.pem", "REDIS_CLIENT_KEY": "/no/such.key"},
    ),
    "key is a certificate": (
        "REDIS_CLIENT_KEY",
        {"REDIS_CLIENT_CERT": "client.pem", "REDIS_CLIENT_KEY": "client.pem"},
    ),
    "key is encrypted": (
        "REDIS_CLIENT_KEY",
        {"REDIS_CLIENT_CERT": "client.pem", "REDIS_CLIENT_KEY": "encrypted.key"},
    ),
    "key is damaged": (
        "REDIS_CLIENT_KEY",
        {"REDIS_CLIENT_CERT": "client.pem", "REDIS_CLIENT_KEY": KEY_TEXT},
    ),
    "key without its first line": (
        "REDIS_CLIENT_KEY",
        {"REDIS_CLIENT_CERT": "client.pem", "REDIS_CLIENT_KEY": "".join(PARTS)},
    ),
    "key without its first line, begun with a slash": (
        "REDIS_CLIENT_KEY",
        {"REDIS_CLIENT_CERT": "client.pem", "REDIS_CLIENT_KEY": "/" + "".join(PARTS)},
    ),
    "secret with dots for a key": (
        "REDIS_CLIENT_KEY",
        {"REDIS_CLIENT_CERT": "client.pem", "REDIS_CLIENT_KEY": ".".join(PARTS)},
    ),
    "databases": ("REDIS_DATABASES", {"REDIS_DATABASES": "some"}),
    "no database": ("REDIS_DATABASES", {"REDIS_DATABASES": "0"}),
    "connections": ("REDIS_MAX_CONNECTIONS", {"REDIS_MAX_CONNECTIONS": "-1"}),
    "polling": ("CELERY_POLLING_INTERVAL", {"CELERY_POLLING_INTERVAL": "0"}),
    "remote control": ("CELERY_REMOTE_CONTROL", {"CELERY_REMOTE_CONTROL": "2"}),
    "DEBUG": ("DEBUG", {"DEBUG": "maybe"}),
    "database": ("DATABASE_URL", {"DATABASE_URL": f"postgres://u:{PASSWORD}@h:port/db"}),
    "no such database": ("DATABASE_URL", {"DATABASE_URL": f"db2://u:{PASSWORD}@h/db"}),
    "no such driver": ("DATABASE_URL", {"DATABASE_URL": f"mysql://u:{PASSWORD}@h/db"}),
    "e-mail": ("EMAIL_URL", {"EMAIL_URL": f"smtp+tls://u:{PASSWORD}@h:port"}),
    "no such mailer": ("EMAIL_URL", {"EMAIL_URL": f"pigeon://u:{PASSWORD}@h"}),
    "no database name": ("DATABASE_URL", {"DATABASE_URL": f"postgres://u:{PASSWORD}@h"}),
    "option of another library": (
        "DATABASE_URL",
        {"DATABASE_URL": f"postgres://u:{PASSWORD}@h/db?pgbouncer=true"},
    ),
    "no such sslmode": (
        "DATABASE_URL",
        {"DATABASE_URL": f"postgres://u:{PASSWORD}@h/db?sslmode=required"},
    ),
    "raw slash for the database": ("DATABASE_URL", {"DATABASE_URL": f"postgres://u:{RAW}@h/db"}),
    "TLS as an option": ("EMAIL_URL", {"EMAIL_URL": f"smtp://u:{PASSWORD}@h:587/?tls=True"}),
    "mail in plain text": ("EMAIL_URL", {"EMAIL_URL": f"smtp://u:{PASSWORD}@mail.example.com"}),
    "mail at the wrong port": ("EMAIL_URL", {"EMAIL_URL": f"smtp+tls://u:{PASSWORD}@h:465"}),
    "mail user without password": ("EMAIL_URL", {"EMAIL_URL": "smtp+tls://Zq7xK9vw@h:587"}),
    "mail password beyond ASCII": ("EMAIL_URL", {"EMAIL_URL": f"smtp+tls://u:{PASSWORD}ö@h:587"}),
    "nobody sends": (
        "DEFAULT_FROM_EMAIL",
        {"EMAIL_URL": f"smtp+tls://u:{PASSWORD}@h", "DEFAULT_FROM_EMAIL": None},
    ),
    "no address": ("DEFAULT_FROM_EMAIL", {"DEFAULT_FROM_EMAIL": GOOD}),
    "no hosts": ("ALLOWED_HOSTS", {"ALLOWED_HOSTS": None}),
    "any host": ("ALLOWED_HOSTS", {"ALLOWED_HOSTS": "*"}),
    "a URL for a host": ("ALLOWED_HOSTS", {"ALLOWED_HOSTS": GOOD}),
    "port too high for the web": ("PORT", {"PORT": "99999"}),
    "quoted secret": ("SECRET_KEY", {"SECRET_KEY": f'"{PASSWORD}"'}),
    "socket": ("REDIS_URL", {"REDIS_URL": f"unix://:{PASSWORD}@/run/redis.sock"}),
    "sentinel": ("REDIS_URL", {"REDIS_URL": f"sentinel://:{PASSWORD}@localhost:26379"}),
    "log level": ("LOG_LEVEL", {"LOG_LEVEL": "loud"}),
    "HSTS": ("SECURE_HSTS_SECONDS", {"SECURE_HSTS_SECONDS": "1h"}),
    "tasks at a time": ("CELERY_WORKER_CONCURRENCY", {"CELERY_WORKER_CONCURRENCY": "two"}),
    "web processes": ("WEB_CONCURRENCY", {"WEB_CONCURRENCY": "two"}),
    "port of the web": ("PORT", {"PORT": "http"}),
}
# Variables with few right values, each with a URL that was pasted into it.
CHOICES = ["REDIS_CERT_REQS", "REDIS_CHECK_HOSTNAME", "REDIS_DATABASES", "REDIS_MAX_CONNECTIONS"]
CHOICES += ["CELERY_POLLING_INTERVAL", "CELERY_REMOTE_CONTROL", "CELERY_WORKER_CONCURRENCY"]
CHOICES += ["WEB_CONCURRENCY", "PORT", "DEBUG", "LOG_LEVEL", "SECURE_HSTS_SECONDS"]
REFUSED |= {f"a URL in {name}": (name, {name: GOOD}) for name in CHOICES}
# What the line says of the value given, and what to give instead. " ... " stands for other words.
WORDS = {
    "quotes": "remove the quotes",
    "quotes at the end": "remove the quotes",
    "quoted secret": "remove the quotes",
    "no database name": "end it in /NAME",
    "option of another library": "does not know",
    "no such sslmode": "verify-full",
    "TLS as an option": "smtp+tls://",
    "mail in plain text": "not known to be private",
    "mail at the wrong port": "smtp+ssl://",
    "nobody sends": "is not set",
    "no hosts": "is not set",
    "any host": "write the names",
    "a URL for a host": "no host name",
    "socket": "Unix sockets are not supported",
    "sentinel": "Sentinel is not supported",
    "misspelt scheme": "does not start with redis:// or rediss:// ... copy the URL",
    "wrong scheme": "does not start with redis:// or rediss:// ... copy the URL",
    "no scheme": "does not start with redis:// or rediss:// ... put one before it",
    "one database": "REDIS_DATABASES says 0 only",
    "no database": "at least 1",
    "results that are not verified": "would win over REDIS_CERT_REQS",
    "raw slash": "percent-encode",
    "raw hash": "percent-encode",
    "raw bracket": "percent-encode",
    "port too high": "between 1 and 65535",
    "database too high": "0 to 15",
    "database is a word": "number of a database: end it in /0",
    "query": "would win over REDIS_CERT_REQS",
    "plain and public": "to redis.example.com, which is not known to be private",
    "CA is not there, with a space": "REDIS_CA_CERTS (no such ca.pem) cannot be read: No such file",
    "CA is a folder": "it is not a file. Give the path of a PEM file, or its text.",
    "CA is empty": "empty.pem) holds no certificate",
    "CA is a key": "holds no certificate",
    "CA is the text of a key": "holds no certificate",
    "CA is cut off": "cut.pem) cannot be used ( ... copy it again, whole",
    "certificate is not there": "REDIS_CLIENT_CERT (/no/such.pem) cannot be read: No such file",
    "key is not there": "REDIS_CLIENT_KEY (/no/such.key) cannot be read: No such file",
    "key is a certificate": "holds no private key",
    "key is encrypted": "openssl pkey",
    "another key": "REDIS_CLIENT_KEY (/ ... ) is not the key of REDIS_CLIENT_CERT (/ ... .pem)",
    "pin without a CA": "doctor --certificate",
}
ACCEPTED = {
    "nothing changed": {},
    "spaces around the URL": {"REDIS_URL": f" {GOOD}\n"},
    "client certificate": {"REDIS_CLIENT_CERT": "client.pem", "REDIS_CLIENT_KEY": "client.key"},
    "plain and public, allowed in other letters": {
        "REDIS_URL": f"redis://:{PASSWORD}@redis.example.COM/0",
        "REDIS_ALLOW_PLAINTEXT": "Redis.Example.com",
    },
}
COMMANDS = {
    "celery worker": "celery -A config worker",
    "celery beat": "celery -A config beat",
    "gunicorn": "gunicorn config.wsgi --bind 127.0.0.1:{port}",
    "supervise": "python -m operations.supervise -c supervisord.conf",
}
EVERYWHERE = ["no secret key", "raw slash", "another key", "database", "no hosts"]
EVERYWHERE += ["TLS as an option", "port of the web"]


@pytest.fixture(scope="module")
def environment(deployment, certificates, tmp_path_factory):
    """environment(settings) -> the project, with a right environment and these changes to it."""
    folder = tmp_path_factory.mktemp("files")
    client, other = certificates.own.issue("client"), certificates.own.issue("other")
    whole = certificates.own.pem.read_text()
    texts = {"garbage.pem": "garbage\n", "empty.pem": "", "cut.pem": whole + whole[:400]}
    texts["encrypted.key"] = encrypted(other.key)
    files = {"folder": folder} | {name: folder / name for name in texts}
    for name, text in texts.items():
        files[name].write_text(text)
    files |= {
        "client.pem": client.chain,
        "public.pem": certificates.public.pem,
        "client.key": client.key,
        "other.key": other.key,
    }
    place = deployment("self_hosted")

    def environment(settings):
        changes = {name: str(files.get(value, value)) for name, value in settings.items() if value}
        place.configure(GOOD)
        place.project.settings |= settings | changes
        return place.project

    return environment


def encrypted(key):
    """Return the key's text, encrypted with a passphrase."""
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PARTS[0].encode()),
    ).decode()


def refuses(done, name):
    """Assert that one line names the variable, and that no output shows a part of the password."""
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(rf"\b{name}\b", line)
    assert done.stdout == ""
    shown = line.lower()
    for part in map(str.lower, PARTS):
        assert not any(part[at : at + 4] in shown for at in range(len(part) - 3))


@pytest.mark.parametrize("wrong", varied(REFUSED, 24))
def test_manage_py_refuses(wrong, environment):
    name, settings = REFUSED[wrong]
    done = environment(settings).manage("check")
    refuses(done, name)
    for words in WORDS.get(wrong, "").split(" ... "):
        assert words in done.stderr


def test_an_unreadable_file_is_refused(environment, tmp_path):
    path = tmp_path / "ca.pem"
    path.touch(mode=0)
    project = environment({"REDIS_CA_CERTS": str(path)})
    command = "python manage.py check"
    if os.getuid() == 0:
        # Root, but without the right to read every file.
        if not shutil.which("setpriv"):
            pytest.skip("NOT TESTED: root reads every file, and there is no setpriv")
        command = f"setpriv --bounding-set=-dac_override,-dac_read_search {command}"
    done = project.run(command)
    refuses(done, "REDIS_CA_CERTS")
    assert "cannot be read: Permission denied" in done.stderr


@pytest.mark.parametrize("right", ACCEPTED)
def test_manage_py_accepts(right, environment):
    done = environment(ACCEPTED[right]).manage("check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wrong", varied(EVERYWHERE))
@pytest.mark.parametrize("command", COMMANDS)
def test_every_process_refuses(command, wrong, environment):
    """test_registration.py shows that each of them starts with a right environment."""
    name, settings = REFUSED[wrong]
    project = environment(settings)
    line = COMMANDS[command].format(port=free_port())
    refuses(project.run(line, seconds=30), name)


@pytest.mark.parametrize("command", ["celery worker", "celery beat", "supervise"])
def test_what_gunicorn_reads_itself_is_refused_by_others_too(command, environment):
    """gunicorn has its own words for a wrong one."""
    project = environment({"WEB_CONCURRENCY": "two"})
    refuses(project.run(COMMANDS[command], seconds=30), "WEB_CONCURRENCY")


def test_all_that_is_wrong_is_named_at_once(environment):
    """A line for each variable, and no more."""
    wrong = ["no secret key", "any host", "no such sslmode", "TLS as an option", "no address"]
    project = environment(
        {name: value for what in wrong for name, value in REFUSED[what][1].items()}
    )
    for command in ("python manage.py migrate", *COMMANDS.values()):
        done = project.run(command.format(port=free_port()), seconds=30)
        assert done.returncode == 2
        named = sorted(line.split()[0] for line in done.stderr.splitlines())
        assert named == sorted(REFUSED[what][0] for what in wrong)
        assert not any(part in done.stdout + done.stderr for part in PARTS)


def test_debug_of_a_forgotten_env_file_is_off_under_supervise(deployment, tmp_path):
    """script/dev writes DEBUG=true into it; with DEBUG off a missing SECRET_KEY is refused."""
    place = deployment("self_hosted").copy(tmp_path)
    place.configure(GOOD, SECRET_KEY=None)
    (place.project.path / ".env").write_text("DEBUG=true\n")
    done = place.project.manage("check")
    assert done.returncode == 0, done.stderr
    # Without its configuration it would also end, but with another line.
    command = "python -m operations.supervise -c none.conf"
    refuses(place.project.run(command, seconds=30), "SECRET_KEY")
