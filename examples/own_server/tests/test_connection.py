"""The connections: what they override of redis-py and kombu really runs.

A name that redis-py or kombu gives up would be overridden in vain. So each test asks a client that
connects, and not the class.
"""

import asyncio
import json
import os
import signal
import ssl
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import kombu
import redis
from celery import Celery
from django.test import SimpleTestCase
from kombu.exceptions import OperationalError

from redis_connection import connection, context, pem, transport
from redis_connection.policy import Policy

from .answering import answering

PASSWORD = "the-password-of-a-test"
UNKNOWN = "-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' '{}'\r\n"
ERRORS = (redis.RedisError, OperationalError, OSError)


def ping(policy: Policy):
    redis.Redis.from_url(policy.url, **policy.client()).ping()


def ping_by_asyncio(policy: Policy):
    async def ping():
        pool = redis.asyncio.ConnectionPool(**policy.asyncio_client())
        async with redis.asyncio.Redis.from_pool(pool) as client:
            await client.ping()

    asyncio.run(ping())


def publish(policy: Policy):
    with kombu.Connection(policy.url, transport_options={"max_retries": 1}) as broker:
        broker.Producer().publish({}, routing_key="q")


def store(policy: Policy):
    app = Celery("a", backend=policy.url, set_as_current=False)
    app.conf.redis_backend_use_ssl = policy.celery()
    app.backend.client.ping()


CLIENTS = (ping, ping_by_asyncio, publish, store)


def broker_of(server) -> kombu.Connection:
    return kombu.Connection(f"redis://127.0.0.1:{server.port}/0")


@contextmanager
def registered(policy: Policy):
    with mock.patch.dict(connection.trusts):
        policy.register()
        yield policy


class LivingTests(SimpleTestCase):
    def test_every_client_takes_the_context_of_the_policy(self):
        """Those that are not given the policy itself find it by host and port."""
        asked = []

        def refuse(trust):
            asked.append(trust)
            raise OSError("asked for the context")

        with answering() as server, mock.patch.object(context, "context_of", refuse):
            url = f"rediss://:{PASSWORD}@127.0.0.1:{server.port}/0"
            for policy in (Policy(url), Policy(url, "optional"), Policy(url, "none", False)):
                for client in CLIENTS:
                    with self.subTest(client=client.__name__, policy=policy):
                        asked.clear()
                        with registered(policy), self.assertRaises(ERRORS) as caught:
                            client(policy)
                        self.assertIn("asked for the context", str(caught.exception))
                        self.assertEqual(set(asked), {policy.trust})
            self.assertEqual(server.commands, [])

    def test_a_server_that_is_not_this_services_is_not_believed_by_its_policy(self):
        weak = Policy("rediss://h:7000", "none", False)
        with registered(weak):
            self.assertEqual(connection.trust_of("H", 7000), weak.trust)
            for host, port in (("h", 7001), ("other", 7000), ("h", 6379)):
                self.assertEqual(connection.trust_of(host, port), context.SYSTEM)

    def test_an_error_of_a_pin_names_the_variable(self):
        pinned = context.Trust(check_hostname=False, ca_certs="/ca.pem")

        def refuse(*args, **kwargs):
            error = ssl.SSLCertVerificationError(1, "certificate verify failed")
            error.verify_code = 20  # no issuer was found
            raise error

        refusing = mock.Mock(wrap_socket=refuse)
        with (
            answering() as server,
            mock.patch.object(context, "context_of", return_value=refusing),
            mock.patch("asyncio.open_connection", refuse),
        ):
            url = f"rediss://127.0.0.1:{server.port}/0"
            policy = Policy(url, check_hostname=False, ca_certs="/ca.pem")
            self.assertEqual(policy.trust, pinned)
            for client in (ping, ping_by_asyncio):
                with self.subTest(client=client.__name__):
                    with self.assertRaises(redis.ConnectionError) as caught:
                        client(policy)
                    self.assertIn(context.NOT_ISSUED, str(caught.exception))

    def test_no_error_has_the_password(self):
        """Redis repeats what it does not know, and cuts it off after 128 characters."""
        for password, repeated in ((PASSWORD, PASSWORD), (PASSWORD * 9, PASSWORD * 4)):
            # redis-py 7 logs in by AUTH, redis-py 8 by HELLO.
            unknown = UNKNOWN.format(repeated).encode()
            with answering(HELLO=unknown, AUTH=unknown) as server:
                policy = Policy(f"redis://:{password}@127.0.0.1:{server.port}/0")
                for client in CLIENTS:
                    with self.subTest(client=client.__name__):
                        with self.assertRaises(ERRORS) as caught:
                            client(policy)
                        error = caught.exception
                        while error:
                            self.assertNotIn(PASSWORD[:5], str(error))
                            error = error.__context__
                        self.assertIn("***", str(caught.exception))

    def test_only_the_password_is_hidden(self):
        for secret, text, shown in (
            ("hunter22", "at 'hunter22'.", "at '***'."),
            ("hunter22hunter", "at 'hunter22", "at '***"),
            ("abc", "a 'abc' b", "a '***' b"),
            ("abcdefg", "the alphabet begins with abcd", "the alphabet begins with abcd"),
            ("new\nline\r\tsecret", "at 'new line \tsecret'", "at '***'"),
            ("hunter\0more", "at 'hunter'", "at '***'"),
            ("", "nothing to hide", "nothing to hide"),
            (None, "nothing to hide", "nothing to hide"),
        ):
            error = redis.ResponseError(text)
            connection.remove_secret(error, secret)
            self.assertEqual(str(error), shown)

    def test_a_process_shares_two_connections(self):
        with answering() as server:
            brokers = [broker_of(server) for _ in range(16)]
            producers = [broker.Producer() for broker in brokers]
            pools = {producer.channel.pool for producer in producers}
            self.assertEqual(len(pools), 1)
            (pool,) = pools
            self.assertIsInstance(pool, redis.BlockingConnectionPool)
            self.assertEqual(
                (pool.max_connections, pool.timeout), (2, transport.WAIT_FOR_CONNECTION)
            )
            self.assertLessEqual(server.most, 2)
            threads = [
                threading.Thread(target=producer.publish, args=[{}], kwargs={"routing_key": "q"})
                for producer in producers
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertLessEqual(server.most, 2)
            pushed = [command for command in server.commands if command[0] == "LPUSH"]
            self.assertEqual(len(pushed), 16)
            # One that closes does not cut the others' connections.
            brokers[0].close()
            self.assertLessEqual(1, server.open)
            producers[1].publish({}, routing_key="q")
            for broker in brokers:
                broker.close()

    def test_what_waits_for_messages_has_a_connection_of_its_own(self):
        with answering() as server, broker_of(server) as broker:
            channel = broker.default_channel
            self.assertEqual(channel.keyprefix_fanout, "/0.")
            self.assertIsNot(channel.async_pool, channel.pool)
            self.assertNotIsInstance(channel.async_pool, redis.BlockingConnectionPool)

    def test_a_child_gets_a_pool_of_its_own(self):
        with answering() as server, broker_of(server) as broker:
            producer = broker.Producer()
            producer.publish({}, routing_key="q")
            pool, held, done = producer.channel.pool, threading.Event(), threading.Event()

            def hold():
                with transport.pools_lock, pool._lock:
                    held.set()
                    done.wait(60)

            thread = threading.Thread(target=hold)
            thread.start()
            held.wait(60)
            if (pid := os.fork()) == 0:
                signal.alarm(20)  # ends it, if it waits for a lock that nobody will release
                with broker_of(server) as own:
                    own.Producer().publish({}, routing_key="q")
                os._exit(0)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            done.set()
            thread.join()
            producer.publish({}, routing_key="q")


class ContextTests(SimpleTestCase):
    def setUp(self):
        self.enterContext(mock.patch.dict(context.contexts, clear=True))
        self.enterContext(mock.patch.dict(context.unusable, clear=True))

    def test_one_is_made_once_for_each_policy(self):
        first, again = context.context_of(context.SYSTEM), context.context_of(context.SYSTEM)
        self.assertIs(first, again)
        self.assertIsNot(first, context.context_of(context.Trust("none", False)))

    def test_a_changed_file_counts_and_a_broken_one_does_not(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(context, "make_context"):
            file = Path(folder, "ca.pem")
            file.write_text("one")
            trust = context.Trust(ca_certs=str(file))
            context.make_context.side_effect = ["first", "second"]
            self.assertEqual(context.context_of(trust), "first")
            file.write_text("another")
            self.assertEqual(context.context_of(trust), "second")
            file.unlink()
            os.mkfifo(file)  # to read it would never end
            with self.assertLogs(context.logger) as logs:
                context.make_context.side_effect = lambda trust: pem.text_of(trust.ca_certs)
                self.assertEqual([context.context_of(trust) for _ in range(3)], ["second"] * 3)
            self.assertEqual(len(logs.output), 1)
            file.unlink()
            context.make_context.side_effect = FileNotFoundError("gone")
            with self.assertLogs(context.logger) as logs:
                self.assertEqual([context.context_of(trust) for _ in range(3)], ["second"] * 3)
            self.assertEqual(len(logs.output), 1)
            file.write_text("a third")
            context.make_context.side_effect = ["third"]
            self.assertEqual(context.context_of(trust), "third")

    def test_who_verifies_checks_the_host_name_too(self):
        for trust, verify_mode, check_hostname in (
            (context.SYSTEM, ssl.CERT_REQUIRED, True),
            (context.Trust("optional"), ssl.CERT_OPTIONAL, True),
            (context.Trust("none"), ssl.CERT_NONE, False),
        ):
            with self.subTest(trust=trust):
                made = context.make_context(trust)
                self.assertEqual(made.verify_mode, verify_mode)
                self.assertIs(made.check_hostname, check_hostname)

    def test_none_weaker_than_tls_1_2(self):
        for trust in (context.SYSTEM, context.Trust("none", False)):
            self.assertEqual(context.make_context(trust).minimum_version, 0x0303)


class PEMTests(SimpleTestCase):
    def test_text_is_read_from_a_path_that_is_no_file(self):
        with pem.readable("some text") as path:
            self.assertEqual(Path(path).read_text(), "some text")
        self.assertFalse(Path(path).exists())

    def test_the_path_works_without_memfd_and_for_a_long_text(self):
        text = "0123456789" * 20_000
        for missing in (AttributeError, PermissionError):
            with (
                mock.patch.object(pem, "in_memory", side_effect=missing),
                pem.readable(text) as path,
            ):
                self.assertEqual(Path(path).read_text(), text)
        with mock.patch.object(pem, "in_memory", side_effect=OSError), pem.readable(text):
            pass  # nobody reads it

    def test_text_may_have_the_line_ends_of_an_env_file(self):
        text = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"
        for given in (text, text.replace("\n", "\\n"), text.replace("\n", "\\r\\n")):
            self.assertEqual(pem.certificates_in(pem.text_of(given)), [b"\0"])


class PlainValuesTests(SimpleTestCase):
    """For whoever reads CELERY_BROKER_USE_SSL without our classes."""

    def test_the_setting_is_plain_and_never_weaker_than_the_policy(self):
        text = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"
        for policy in (
            Policy("rediss://h"),
            Policy("rediss://h", check_hostname=False, ca_certs=text),
            Policy("rediss://h", "optional", False, "/ca.pem", "/cert.pem", "/key.pem"),
        ):
            options = policy.celery()
            self.assertEqual(json.loads(json.dumps(options)), options)
            self.assertEqual(options["ssl_cert_reqs"], "required")
            self.assertIs(options["ssl_check_hostname"], True)
            redis.SSLConnection(**options)  # which knows each of them

    def test_a_key_given_as_text_is_in_no_setting(self):
        key = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----"
        policy = Policy("rediss://h", certfile="/cert.pem", keyfile=key)
        for shown in (policy.celery(), policy, policy.client(), policy.trust):
            self.assertNotIn("AA==", str(shown))
