"""The other Pythons that a service may run on. Their ssl modules differ."""

import pytest

from harness import journey
from harness.impostors import Encounter, Meeting, listing
from harness.processes import run
from harness.pythons import OTHERS, RUNNING, SUPPORTED, find, others
from harness.refusals import KINDS, refused

# An owner's CA and a pinned certificate, which Python 3.13 reads more strictly.
NAMES = ["self_hosted", "heroku_pinned"]


@pytest.mark.all
@pytest.mark.parametrize("name", NAMES)
def test_registers_mails_verifies_and_logs_in(name, other_python, deployment, stand_in, tables):
    journey.take(name, deployment, stand_in, tables, python=other_python)


@pytest.mark.all
@pytest.mark.parametrize("kind", KINDS)
def test_refuses_every_bad_server(kind, other_python, deployment, tables):
    """One row that verifies everything does what the refusal matrix does on the running Python."""
    place = deployment("self_hosted", python=other_python)
    assert kind in refused(place.row)
    with Meeting(place, [kind], "required", tables) as meeting:
        failed = meeting.problems(Encounter.refused)
        assert not failed, listing(failed)
        assert meeting.server.commands_seen() == {}


@pytest.mark.all
def test_the_service_runs_on_that_python(other_python, deployment):
    (version,) = [version for version, path in others().items() if path == other_python]
    shown = deployment("self_hosted", python=other_python).project.run(["python", "--version"])
    assert shown.stdout.startswith(f"Python {version}.")


def test_every_python_found_is_of_the_version_it_is_found_for():
    assert {RUNNING, *OTHERS} == {RUNNING, *SUPPORTED}
    assert RUNNING not in others()
    for version, path in others().items():
        shown = run([path, "--version"], cwd="/", env={}, seconds=30)
        assert shown.stdout.startswith(f"Python {version}.")


def test_what_does_not_start_or_is_another_version_is_not_found(tmp_path, monkeypatch):
    shim = tmp_path / "python2.99"
    shim.write_text("#!/bin/sh\necho 'pyenv: python2.99: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find("2.99") is None
    shim.write_text("#!/bin/sh\necho 2.98 /elsewhere/python\n")
    assert find("2.99") is None
    shim.write_text("#!/bin/sh\necho 2.99 /elsewhere/python\n")
    assert find("2.99") == "/elsewhere/python"
