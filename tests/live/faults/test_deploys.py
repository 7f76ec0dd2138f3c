"""What a stop, a kill and a new password leave undone is done soon after the next start."""

import pytest

from harness.processes import wait_until
from harness.smtp_sink import SMTPSink

AFTER_READY = 3 * 30  # seconds


def start_with_a_slow_mail_server(stage):
    """Start a service that is sending a mail to a slow server; return the sink and the address."""
    sink = stage.add(SMTPSink(slow=60))
    stage.start_redis()
    stage.start(EMAIL_URL=sink.url)
    address = stage.register("ada")
    wait_until(lambda: sink.greeting, 20, "a conversation with the mail server")
    return sink, address


@pytest.mark.all
def test_a_mail_that_a_stop_interrupts_is_sent_soon_after_the_start(stage):
    """At SIGTERM, as in a deploy, the task gives its claim back."""
    sink, address = start_with_a_slow_mail_server(stage)
    assert set(stage.service.stop(28).values()) == {0}
    sink.slow = 0
    stage.start(ready=False)
    stage.wait_ready()
    wait_until(lambda: sink.messages(address), AFTER_READY, "the mail after the worker's start")
    assert len(sink.messages()) == 1


def test_a_mail_that_a_kill_interrupts_is_sent_by_the_next_sweep(stage):
    """After kill -9 of everything the claim of 90 s runs out, and then the sweep sends."""
    sink, address = start_with_a_slow_mail_server(stage)
    stage.program.kill()
    sink.slow = 0
    stage.age_promises(minutes=2)
    stage.start(ready=False)
    stage.wait_ready()
    wait_until(lambda: sink.messages(address), AFTER_READY, "the mail after the worker's start")
    assert len(sink.messages()) == 1


@pytest.mark.all
def test_mails_promised_while_the_password_was_wrong_are_sent_soon_after_the_start(stage):
    """The server has a new password, and the service gets it with a later start."""
    stage.start_redis()
    stage.start()
    server, new = stage.server, "another-pw-of-tests"
    server.command("CONFIG", "SET", "requirepass", new)
    server.password = new
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    addresses = [stage.register(name) for name in ("ada", "grace", "edith")]
    wait_until(lambda: stage.readyz()[1]["broker"] == "fail", 15, "/readyz says so")
    assert stage.mailbox.messages() == []
    stage.service.stop(28)

    stage.url = server.url()
    stage.start(ready=False)
    stage.wait_ready()

    def sent():
        return all(stage.mailbox.messages(address) for address in addresses)

    wait_until(sent, AFTER_READY, "the promised mails after the worker's start")
    assert len(stage.mailbox.messages()) == 3
