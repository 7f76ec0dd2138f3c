"""The transport: what it adds to kombu's really runs, and does what it promises."""

import json
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import kombu
from celery import current_app
from django.test import SimpleTestCase
from kombu.transport import virtual
from redis.exceptions import OutOfMemoryError, ReadOnlyError, TimeoutError

from redis_connection import internals, transport

from .answering import answering

QOS, CHANNEL = "kombu.transport.redis.QoS", "kombu.transport.redis.Channel"

MESSAGE = {
    "body": "e30=",
    "headers": {"task": "t", "id": "1"},
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "properties": {
        "delivery_tag": "tag",
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": "celery"},
    },
}


class Redis:
    """Says to each pipeline what `error` says, or writes down what was executed."""

    def __init__(self):
        self.error, self.executed, self.commands = None, [], []

    def pipeline(self):
        self.commands = []
        return self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments: self.commands.append((name, *arguments)) or self

    def execute(self):
        if self.error:
            raise self.error
        self.executed += self.commands


def channel_of(redis: Redis) -> transport.Channel:
    """A channel of ours with everything but a connection."""
    channel = object.__new__(transport.Channel)
    client = SimpleNamespace(as_uri=lambda: f"redis://{id(redis)}")
    channel.connection = SimpleNamespace(client=client)
    channel._create_client = lambda asynchronous=False: redis  # type: ignore[method-assign]
    return channel


class AliasTests(SimpleTestCase):
    def test_every_connection_goes_through_it(self):
        for connection in (current_app.connection_for_write(), kombu.Connection("rediss://h")):
            found = connection.get_transport_cls()
            self.assertIs(found, transport.Transport)
            self.assertIs(found.Channel, transport.Channel)
            self.assertIs(found.Channel.QoS, transport.QoS)

    def test_also_where_kombu_was_asked_before(self):
        code = "import kombu; kombu.Connection('rediss://h').get_transport_cls()"
        code += "; import config"
        code += "; print(kombu.Connection('rediss://h').get_transport_cls().__module__)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        self.assertEqual(done.stdout.split(), ["redis_connection.transport"], done.stderr)

    def test_redis_py_and_kombu_have_what_is_overridden(self):
        """A name that they give up would be overridden in vain, and nobody would see it."""
        ours = (
            internals.TLSConnection,
            internals.AsyncioTLSConnection,
            internals.QoS,
            internals.Channel,
        )
        private = [(each, name) for each in ours for name in vars(each) if name[:1] == "_"]
        checked = 0
        for each, name in private:
            if not name.startswith("__"):
                checked += 1
                with self.subTest(ours=each.__name__, name=name):
                    self.assertTrue(hasattr(each.__base__, name))
        self.assertGreater(checked, 6)


class LivingTests(SimpleTestCase):
    """What is overridden is what kombu calls: each test has a connection, and lets kombu call."""

    def setUp(self):
        self.server = self.enterContext(answering())
        self.url = f"redis://127.0.0.1:{self.server.port}/0"
        self.broker = self.enterContext(kombu.Connection(self.url))
        self.channel = self.broker.default_channel

    def test_the_parts_of_a_channel_are_ours(self):
        self.assertIsInstance(self.channel, transport.Channel)
        self.assertIsInstance(self.channel.client, transport.Client)
        self.assertIsInstance(self.channel.qos, transport.QoS)

    def test_a_channel_that_is_closed_leaves_the_others_their_connections(self):
        self.broker.Producer().publish({}, routing_key="q")
        with kombu.Connection(self.url) as other:
            other.Producer().publish({}, routing_key="q")
        logins = len([command for command in self.server.commands if command[0] == "HELLO"])
        self.broker.Producer().publish({}, routing_key="q")
        again = len([command for command in self.server.commands if command[0] == "HELLO"])
        self.assertEqual(again, logins)

    def test_what_is_published_and_no_message_ends_nothing(self):
        published = [b"pmessage", b"/0.celery.pidbox", b"/0.celery.pidbox", b"[]"]
        subscriber = SimpleNamespace(parse_response=lambda: published)
        self.channel._fanout_to_queue["celery.pidbox"] = "a queue"
        with self.assertLogs(transport.logger):
            self.assertFalse(self.channel._receive_one(subscriber))

    def test_a_worker_repeats_acknowledgements_every_few_seconds(self):
        self.channel._active_queues.append("q")
        theirs = mock.patch(f"{QOS}.restore_visible", side_effect=ReadOnlyError("a replica"))
        settle = mock.patch.object(transport.QoS, "settle")
        leave = mock.patch.object(transport.Channel, "leave_server")
        with theirs as restored, settle as settled, leave as left:
            self.channel.connection.cycle.maybe_restore_messages()
        for each in (settled, restored, left):
            each.assert_called_once()

    def test_a_server_that_refuses_fills_no_log(self):
        refusal = ReadOnlyError("a replica")
        refuses = mock.patch(f"{CHANNEL}.maybe_refresh_binding_expiry", side_effect=refusal)
        leave = mock.patch.object(transport.Channel, "leave_server")
        with refuses as asked, leave as left, self.assertNoLogs("kombu"):
            self.channel.connection.cycle.maybe_refresh_binding_expiry()
        asked.assert_called_once()
        left.assert_called_once()

    def test_a_channel_that_ends_repeats_them_too(self):
        message = SimpleNamespace(delivery_info={}, _raw=MESSAGE)
        virtual.QoS.append(self.channel.qos, message, "tag")
        theirs = mock.patch(f"{QOS}.restore_unacked", return_value=[])
        with theirs as restored, mock.patch.object(transport.QoS, "settle") as settled:
            self.channel.close()
        settled.assert_called_once()
        restored.assert_called_once()


class AcknowledgementTests(SimpleTestCase):
    def setUp(self):
        self.redis = Redis()
        self.qos = transport.QoS(channel_of(self.redis), prefetch_count=1)
        self.addCleanup(self.qos._on_collect.cancel)
        self.message = SimpleNamespace(
            delivery_info={"exchange": "", "routing_key": "celery"}, _raw=MESSAGE
        )

    def test_one_that_gets_no_answer_costs_no_place_and_is_repeated(self):
        for again in range(3):
            self.qos.append(self.message, f"tag {again}")
            self.assertFalse(self.qos.can_consume())
            self.redis.error = TimeoutError("silent")
            with self.assertLogs(transport.logger):
                self.qos.ack(f"tag {again}")
            self.assertTrue(self.qos.can_consume())
            self.redis.error = None
        self.redis.executed = []
        self.qos.settle()
        removed = {command[2] for command in self.redis.executed if command[0] == "hdel"}
        self.assertEqual(removed, {"tag 0", "tag 1", "tag 2"})
        self.redis.executed = []
        self.qos.settle()
        self.assertEqual(self.redis.executed, [])

    def test_it_is_repeated_by_the_next_channel_too(self):
        self.qos.append(self.message, "tag")
        self.redis.error = TimeoutError("silent")
        with self.assertLogs(transport.logger):
            self.qos.ack("tag")
        self.redis.error = None
        following = transport.QoS(self.qos.channel)
        self.addCleanup(following._on_collect.cancel)
        following.settle()
        self.assertIn(("hdel", "unacked", "tag"), self.redis.executed)

    def test_one_more_that_is_rejected_frees_the_place_as_well(self):
        for requeue in (False, True):
            self.qos.append(self.message, "tag")
            self.redis.error = TimeoutError("silent")
            silent = mock.patch.object(
                transport.QoS, "restore_by_tag", side_effect=self.redis.error
            )
            with self.assertLogs(transport.logger), silent:
                self.qos.reject("tag", requeue=requeue)
            self.assertTrue(self.qos.can_consume())
            self.redis.error = None
            with mock.patch.object(transport.QoS, "restore_by_tag") as restore:
                self.qos.settle()
            self.assertEqual(restore.called, requeue)

    def test_what_redis_does_not_record_is_worked_on_and_recorded_later(self):
        self.redis.error = OutOfMemoryError("used memory > 'maxmemory'")
        with self.assertLogs(transport.logger):
            self.qos.append(self.message, "tag")
        self.assertFalse(self.qos.can_consume())
        self.redis.error = None
        self.qos.settle()
        self.assertEqual([command[0] for command in self.redis.executed], ["zadd", "hset"])
        self.qos.ack("tag")
        self.assertTrue(self.qos.can_consume())

    def test_what_is_given_back_before_it_was_recorded_is_recorded_first(self):
        self.redis.error = OutOfMemoryError("used memory > 'maxmemory'")
        with self.assertLogs(transport.logger):
            self.qos.append(self.message, "tag")
        self.redis.error = None
        with mock.patch.object(transport.QoS, "restore_by_tag") as restore:
            restore.side_effect = lambda *_, **__: self.assertIn("hset", self.names())
            self.qos.reject("tag", requeue=True)
        restore.assert_called_once()

    def names(self):
        return [command[0] for command in self.redis.executed]

    def test_a_server_that_refuses_an_acknowledgement_is_left(self):
        for error, left in (ReadOnlyError("a replica"), 1), (TimeoutError("silent"), 0):
            self.qos.append(self.message, "tag")
            self.redis.error = error
            leave = mock.patch.object(transport.Channel, "leave_server")
            with self.assertLogs(transport.logger), leave as called:
                self.qos.ack("tag")
            self.assertEqual(called.call_count, left)
            self.redis.error = None

    def test_what_is_done_before_it_was_recorded_is_not_recorded_any_more(self):
        self.redis.error = OutOfMemoryError("used memory > 'maxmemory'")
        with self.assertLogs(transport.logger):
            self.qos.append(self.message, "tag")
        self.redis.error = None
        self.qos.ack("tag")
        self.redis.executed = []
        self.qos.settle()
        self.assertEqual(self.redis.executed, [])


class MessageTests(SimpleTestCase):
    def changed(self, **changes):
        return json.dumps(MESSAGE | changes).encode()

    def test_a_message_is_one(self):
        channel = channel_of(Redis())
        self.assertEqual(channel.fault_of(json.dumps(MESSAGE).encode()), "")
        properties = MESSAGE["properties"]
        for raw in (
            b"",
            b"\xff",
            b"not JSON",
            b"[" * 100_000,
            b"[]",
            b"null",
            self.changed(properties={}),
            self.changed(properties=properties | {"delivery_tag": ["a list"]}),
            self.changed(properties=properties | {"delivery_info": None}),
            self.changed(properties=properties | {"delivery_info": {"exchange": ""}}),
            self.changed(properties=properties | {"body_encoding": "rot13"}),
            self.changed(body="not base64"),
            self.changed(headers=["a list"]),
        ):
            with self.subTest(raw[:60]):
                self.assertNotEqual(channel.fault_of(raw), "")

    def test_what_is_none_is_handed_over_and_consuming_goes_on(self):
        client = object.__new__(transport.Client)
        client.channel, client.global_keyprefix = channel_of(Redis()), "{p}:"
        found = []
        for raw, expected in (b"[]", None), (json.dumps(MESSAGE).encode(), "celery"):
            reply = [b"{p}:celery\x06\x163", raw]
            with (
                mock.patch("redis.Redis.parse_response", return_value=reply),
                mock.patch.object(transport, "on_unreadable", lambda *seen: found.append(seen)),
            ):
                answer = client.parse_response(None, "BRPOP")
            self.assertEqual(answer and answer[0].partition(b"\x06")[0].decode(), expected)
        ((queue, raw, reason),) = found
        self.assertEqual((queue, raw), ("celery", b"[]"))
        self.assertIn("TypeError", reason)


class RefusalTests(SimpleTestCase):
    def test_a_server_that_refuses_is_left(self):
        channel = channel_of(Redis())
        channel._pool = mock.Mock()
        refuses = mock.Mock(side_effect=ReadOnlyError("a replica"))
        theirs = mock.patch("kombu.transport.redis.Channel._put", refuses)
        with theirs, self.assertRaises(ReadOnlyError):
            channel._put("celery", MESSAGE)
        channel._pool.disconnect.assert_called_once_with(inuse_connections=False)
