"""A message that a worker cannot read or does not know is kept, and ends no program."""

import base64
import json
import sqlite3

import pytest

from harness.processes import Failed, wait_until

TABLE = "operations_putasidemessage"


def message(**changes):
    """Return a message of kombu as Redis keeps it, with a test's changes."""
    body = json.dumps([[1], {}, {}]).encode()
    whole = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "numbered.tasks.numbered", "id": "one-of-a-test"},
        "properties": {
            "correlation_id": "one-of-a-test",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 3,
            "body_encoding": "base64",
            "delivery_tag": "tag-of-a-test",
        },
    }
    return json.dumps(whole | changes)


MESSAGES = {
    "not JSON": "this is no message",
    "JSON, but no message": json.dumps({"hello": "world"}),
    "a list": json.dumps([1, 2, 3]),
    "no properties": message(properties={}),
    "body is not base64": message(body="\u00e4 this is not base64 \u00e4"),
    "body is not JSON": message(body=base64.b64encode(b"{[").decode()),
    "no id": message(headers={"lang": "py", "task": "numbered.tasks.numbered"}),
    "no headers": message(headers={}),
    "unknown content type": message(**{"content-type": "application/x-python-serialize"}),
    "unknown task": message(headers={"lang": "py", "task": "nobody.knows.it", "id": "unknown-1"}),
    "1 MB of it": "x" * 1_000_000,
}


def rows(stage):
    """Return (queue, reason, headers, body, worker) of the messages that were put aside."""
    return stage.sql(f"SELECT queue, reason, headers, body, worker FROM {TABLE} ORDER BY id")


def problem_with(stage, text):
    """Return what went wrong with this message, or None."""
    before, worker, count = stage.pids(), len(stage.exits_of_worker()), len(rows(stage))
    stage.server.command("LPUSH", stage.key("celery"), text)
    try:
        wait_until(lambda: len(rows(stage)) > count, 10, "a row for it")
        stage.wait_done(stage.send(1), 15)
    except (Failed, AssertionError) as error:
        return str(error).splitlines()[0]
    queue, reason, _, body, name = rows(stage)[-1]
    if not (queue and reason and name):
        return f"a row that does not say enough: {queue!r}, {reason!r}, {name!r}"
    if len(body) > 4096:
        return f"a row of {len(body)} characters"
    if stage.pids() != before or len(stage.exits_of_worker()) != worker:
        return "a program was restarted"
    if stage.readyz()[0] != 200:
        return f"not ready: {stage.readyz()}"
    return None


def test_a_message_that_cannot_be_read_is_put_aside(stage):
    """There is a row for each, the worker goes on at once, and /readyz stays ready."""
    stage.start_redis()
    stage.start()
    try:
        rows(stage)
    except sqlite3.OperationalError as error:
        pytest.fail(str(error))
    problems = {name: problem_with(stage, text) for name, text in MESSAGES.items()}
    assert {name: text for name, text in problems.items() if text} == {}
    assert len(rows(stage)) == len(MESSAGES)
    assert stage.unacknowledged() == 0
    assert stage.waiting() == 0


def test_a_message_that_cannot_be_read_ends_no_worker(stage):
    """Whatever becomes of the message, no worker starts again and again unseen by /readyz."""
    stage.start_redis()
    stage.start()
    before = stage.pids()
    for text in MESSAGES.values():
        stage.server.command("LPUSH", stage.key("celery"), text)
    stage.wait_done(stage.send(3), 15)
    assert stage.exits_of_worker() == []
    assert stage.pids() == before
