"""kombu's Redis transport, for a Redis that stalls, refuses, or hands out what is no message.

celery.py names it in kombu's table of transports, so every connection of Celery goes through it.
What it adds, and what kombu 5.7 does without it:

- An acknowledgement that gets no answer costs no place in the worker. kombu asks Redis first and
  forgets the message after. Where Redis does not answer, it never forgets the message, and a worker
  that has lost as many acknowledgements as it has places takes no task any more.
- A message that Redis does not record is worked on all the same. kombu drops it.
- What cannot be read is handed to `on_unreadable`. kombu ends the worker.
- A server that refuses is asked through a new connection the next time. kombu keeps the connection,
  also when it leads to a server that is a replica by now.
- Connections believe the server that the policy names (connection.py), and their errors show no
  password.
- A process shares two connections for all that does not wait for messages. kombu opens two for each
  thread that sends tasks.
"""

import functools
import logging
import os
import threading
import weakref
from collections import defaultdict
from contextlib import suppress

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis import BlockingConnectionPool
from redis.exceptions import RedisError, ResponseError

from . import connection

logger = logging.getLogger(__name__)

# One to give a message back in a transaction, and one to look its queue up meanwhile.
SHARED_CONNECTIONS = 2  # in each process
WAIT = 2  # seconds until one of them must be free, or sending fails

# What Python raises where a message is not built as kombu builds it.
MALFORMED = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError
)  # fmt: skip


def log_unreadable(queue: str, raw: bytes, reason: str):
    logger.error("what waited in %s is no message, and was dropped: %s", queue, reason)


# Called with the queue, the bytes and the reason for what is no message at all. It must not raise.
on_unreadable = log_unreadable


class QoS(kombu_redis.QoS):
    """What this worker holds, and what Redis has yet to hear of it.

    `settle()` runs every 10 seconds. Overdue acknowledgements are kept for the process, not for the
    channel: they outlive a connection that breaks in the meantime.
    """

    # {broker: {delivery tag: whether the message goes back to its queue}}
    overdue: dict[str, dict[str, bool]] = defaultdict(dict)

    def __init__(self, channel, prefetch_count=0):
        super().__init__(channel, prefetch_count)
        broker = channel.connection.client.as_uri()  # without the password
        self.overdue_here = self.overdue[f"{broker} {channel.global_keyprefix}"]
        self.unrecorded = {}  # {delivery tag: message}

    def append(self, message, delivery_tag):
        try:
            super().append(message, delivery_tag)
        except (RedisError, OSError) as error:
            logger.warning("Redis did not record a message that it handed out: %s", error)
            # The message is in no list of Redis any more: to raise here would lose it.
            virtual.QoS.append(self, message, delivery_tag)
            self.unrecorded[delivery_tag] = message

    def ack(self, delivery_tag):
        self.unrecorded.pop(delivery_tag, None)
        try:
            super().ack(delivery_tag)
        except (RedisError, OSError) as error:
            self.owe(delivery_tag, error)

    def reject(self, delivery_tag, requeue=False):
        if requeue:
            self.record()
        self.unrecorded.pop(delivery_tag, None)
        try:
            super().reject(delivery_tag, requeue)
        except (RedisError, OSError) as error:
            self.owe(delivery_tag, error, requeue)

    def owe(self, delivery_tag, error, requeue=False):
        """Free the place, and remember to tell Redis later."""
        logger.warning("an acknowledgement is repeated, since Redis did not take it: %s", error)
        # Once, and only where `super()` raised before it came to this line itself.
        virtual.QoS.ack(self, delivery_tag)
        self.overdue_here[delivery_tag] = requeue
        if isinstance(error, ResponseError):
            self.channel.leave_server()

    def settle(self):
        """Tell Redis what it did not hear; RedisError where it does not hear it now either."""
        done = [tag for tag, requeue in self.overdue_here.items() if not requeue]
        if done:
            with self.pipe_or_acquire() as pipe:
                for tag in done:
                    self._remove_from_indices(tag, pipe)
                pipe.execute()
        for tag, requeue in list(self.overdue_here.items()):
            if requeue:
                self.restore_by_tag(tag, leftmost=True)
            del self.overdue_here[tag]
        self.record()

    def record(self):
        """Record what is worked on without a record, so that it outlives this process."""
        for tag, message in list(self.unrecorded.items()):
            super().append(message, tag)
            del self.unrecorded[tag]

    def restore_visible(self, *args, **kwargs):
        try:
            self.settle()
            super().restore_visible(*args, **kwargs)
        except ResponseError as error:
            # It takes a lock, which is a write. Consuming goes on where Redis refuses only writes.
            logger.debug("Redis refuses, and is asked again: %s", error)
            self.channel.leave_server()

    def restore_unacked(self, client=None):
        """Give back, when the channel ends, what was not acknowledged."""
        with suppress(RedisError, OSError):
            self.settle()
        super().restore_unacked(client)


class Client(kombu_redis.PrefixedStrictRedis):
    """A client that sorts out what is no message before kombu stumbles over it."""

    def __init__(self, *args, channel, **kwargs):
        super().__init__(*args, **kwargs)
        self.channel = channel

    def parse_response(self, connection, command_name, **options):
        reply = super().parse_response(connection, command_name, **options)
        if command_name == "BRPOP" and reply:
            key, raw = reply
            if fault := self.channel.fault_of(raw):
                on_unreadable(bytes_to_str(key).rsplit(self.channel.sep, 1)[0], raw, fault)
                return None  # as if nothing had come
        return reply


# The pools of this process, for as long as a channel uses them.
_pools: weakref.WeakValueDictionary[str, BlockingConnectionPool] = weakref.WeakValueDictionary()
_pools_lock = threading.Lock()


def shared_pool(params: dict) -> BlockingConnectionPool:
    """The pool of this process for connections with these parameters."""
    name = repr(sorted(params.items(), key=lambda item: item[0]))
    with _pools_lock:
        pool = _pools.get(name)
        if pool is None:
            limits = {"max_connections": SHARED_CONNECTIONS, "timeout": WAIT}
            pool = _pools[name] = BlockingConnectionPool(**params | limits)
        return pool


def forget_pools():
    """In a child: a thread that held one of their locks when the process forked is not there."""
    global _pools_lock
    _pools_lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=forget_pools)


class Channel(kombu_redis.Channel):
    QoS = QoS
    connection_class = connection.Connection
    connection_class_ssl = connection.TLSConnection

    _greeting = False

    def __init__(self, *args, **kwargs):
        # kombu sends a PING by the client that is to wait for messages. A channel that only sends
        # tasks would keep a connection for that, and never use it again.
        self._greeting = True
        super().__init__(*args, **kwargs)
        self._greeting = False
        self._async_pool = None
        del self.client  # the next one has a pool of this channel's own

    def _get_pool(self, asynchronous=False):
        """kombu's own for what waits for messages, which keeps its connection busy; else shared."""
        if asynchronous and not self._greeting:
            return super()._get_pool(True)
        params = self._connparams()
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=params["db"])  # as kombu's does
        return shared_pool(params)

    def _disconnect_pools(self):
        # Other channels use the shared pool.
        self._pool = None
        if self._greeting:
            self._async_pool = None
        super()._disconnect_pools()

    def leave_server(self):
        """Connect anew from now on: the name of a server that refuses may lead to another."""
        self.pool.disconnect(inuse_connections=False)

    def _get_client(self):
        kombu_redis.Channel._get_client(self)  # for its check of redis-py's version
        return functools.partial(Client, channel=self, global_keyprefix=self.global_keyprefix)

    def fault_of(self, raw: bytes) -> str:
        """Why kombu could make no message of `raw`, or not put it back; empty if it can do both."""
        try:
            message = self.Message(loads(bytes_to_str(raw)), channel=self)
            for name in ("exchange", "routing_key"):
                message.delivery_info[name]
        except Exception as error:  # nothing but this message was looked at
            return f"{type(error).__name__}: {error}"
        if not isinstance(message.headers, dict):
            return "its headers are no mapping"
        if not isinstance(message.delivery_tag, str):
            return "its delivery tag is no text"
        return ""

    def _deliver_fanout_message(self, message, exchange):
        # A command of `celery control`, or an event. These are published, not queued: none is kept.
        try:
            return super()._deliver_fanout_message(message, exchange)
        except MALFORMED as error:
            logger.warning("what was published to %s is no message: %r", exchange, error)
            return False

    def maybe_refresh_binding_expiry(self):
        # A write, which is tried again within a second. kombu logs each refusal with a traceback.
        try:
            super().maybe_refresh_binding_expiry()
        except ResponseError as error:
            logger.debug("Redis refuses, and is asked again: %s", error)
            self.leave_server()

    def _put(self, queue, message, **kwargs):
        try:
            super()._put(queue, message, **kwargs)
        except ResponseError:
            self.leave_server()
            raise


class Transport(kombu_redis.Transport):
    Channel = Channel
