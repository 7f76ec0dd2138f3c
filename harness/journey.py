"""The whole way on a provider's stand-in: register, the worker mails, follow the link, log in."""

import json
import re
import runpy
from concurrent.futures import ThreadPoolExecutor

from harness.answers import ROWS, SERVICE
from harness.browser import verification_link
from harness.processes import wait_until
from harness.stand_ins import effective_verification, journeys
from harness.tallies import tally

JOURNEYS = journeys(ROWS)
PINNED = {"REDIS_CERT_REQS": "required", "REDIS_CA_CERTS": "herokus"}
TASK = "authentication.email_utils.send_verification_email"
WEB_THREADS = runpy.run_path(str(SERVICE / "gunicorn.conf.py"))["threads"]


def take(name, deployment, stand_in, tables, **options):
    """Take the journey of this name. Other `options` go to `deployment`."""
    provider, pinned = JOURNEYS[name]
    run(deployment(provider, **options), stand_in, tables, PINNED if pinned else {})
    tally("registrations", journeys=1, e_mails_followed=1)


def run(place, stand_in, tables, settings):
    """Take one journey, from an empty Redis and a migrated database to a clean stop."""
    settings = place.certificates.paths(settings)
    with (
        stand_in(place.row) as server,
        place.start(server.given_url, tables=tables, **settings) as service,
    ):
        service.wait_for_status("/healthz", 200, 120)
        service.wait_for_status("/readyz", 200, 120)
        browser = service.browser()
        register(browser, service)
        works_in_a_worker(place, service)
        row = place.row | {"cert_reqs": settings.get("REDIS_CERT_REQS", place.row["cert_reqs"])}
        doctor_is_content(place, row, server.policy)
        says_its_policy(service, row)
        if server.has_few_connections:
            mails_a_crowd(service)
        if server.idle_timeout:
            survives_idle_closes(browser, service, server)
        assert server.info("stats", "rejected_connections") == "0"
        seen = server.commands_seen()
        assert seen.get("auth", 0) + seen.get("hello", 0) > 0
        # Everything ends within the 28 s of supervisord.conf, and no process is left over.
        codes = service.stop(28)
        assert codes == dict.fromkeys(codes, 0)


def register(browser, service):
    """Register, verify with the link of the e-mail (nothing less will do), and log in."""
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


def works_in_a_worker(place, service):
    """Assert that the task ran in a process of a worker of this service, not in a web server."""
    family = service.family()
    assert "gunicorn" not in family[service.task_pid(TASK)]
    assert any("gunicorn" in command for command in family.values())
    if place.remote_control:
        asked = place.project.run(
            ["celery", "-A", "config", "inspect", "registered", "--json"], seconds=60
        )
        assert asked.returncode == 0, asked.stderr
        (tasks,) = json.loads(asked.stdout).values()
        assert TASK in tasks


def doctor_is_content(place, row, policy):
    """Assert that every probe succeeds, and warns of an unverified certificate or of eviction."""
    code, probes = place.project.doctor()
    assert code == 0, probes
    warned = {name for name, probe in probes.items() if probe["state"] == "warn"}
    expected = {"handshake"} if level(row) == "WARNING" else set()
    expected |= {"eviction"} if policy.startswith("allkeys") else set()
    assert warned - {"connections"} == expected, probes
    assert effective_verification(row) in probes["handshake"]["seen"]


def says_its_policy(service, row):
    """Assert that web, worker and beat each log the policy once at the start, weak ones loudly."""
    said = re.findall(r"^.* redis_connection\.policy: .*$", service.output(), re.MULTILINE)
    policy = re.escape(effective_verification(row))
    line = rf"\S+ \S+ {level(row)} MainProcess\[(\d+)\] .*: {policy}"
    matches = [re.fullmatch(line, text) for text in said]
    assert len({match and match[1] for match in matches} - {None}) == len(said) == 3, said


def level(row):
    return "WARNING" if row["tls"] != "none" and row["cert_reqs"] == "none" else "INFO"


def mails_a_crowd(service):
    """Register as many at once as the web server has threads, which takes most connections."""
    addresses = [f"crowd{number}@example.com" for number in range(WEB_THREADS)]

    def register(address):
        name, _, _ = address.partition("@")
        service.browser().register(name, address, "correct horse 9")
        service.mailbox.wait(address, 30)

    with ThreadPoolExecutor(WEB_THREADS) as crowd:
        list(crowd.map(register, addresses))


def survives_idle_closes(browser, service, server):
    """Assert that a task is sent although the server has closed the connection of the last one."""
    senders = {number for number, last in server.connections().items() if last == "lpush"}
    assert senders
    server.close_idle()
    wait_until(lambda: not senders & server.connections().keys(), 60, "idle closes")
    assert server.idle_closes()
    browser.register("grace", "grace@example.com", "correct horse 8")
    # Sooner than housekeeping could find that the e-mail was not sent.
    service.mailbox.wait("grace@example.com", 30)
