"""kombu's Redis transport, for a Redis that stalls, refuses, or hands out what is not a message.

config/celery.py names it in kombu's table of transports, so every connection of Celery uses it
(D-54).
This is what it adds, and what kombu 5.7 does without it:

- An acknowledgement that gets no answer leaves the worker its place for another task. kombu asks
  Redis first and forgets the message afterwards. Where Redis does not answer, kombu never forgets
  it. A worker that has lost as many acknowledgements as it has places takes no task any more.
- A message that Redis does not record is worked on all the same. kombu drops it.
- A message that cannot be read is handed to `on_unreadable`. kombu ends the worker.
- A server that refuses is asked through a new connection the next time. kombu keeps the connection,
  also when the server behind it has become a replica.
- Connections believe the server that the policy names (connection.py), and their errors do not show
  the password.
- A process shares two connections for everything but waiting for messages. kombu opens two for each
  thread that sends tasks (D-25).
"""

import logging
import os
import threading
import weakref
from collections import defaultdict
from contextlib import suppress
from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis import BlockingConnectionPool
from redis.exceptions import RedisError, ResponseError

from . import connection, internals

logger = logging.getLogger(__name__)

# Each process has this many connections for everything but waiting for messages. Two are needed at
# a time: one gives a message back in a transaction, and the other looks up its queue meanwhile.
SHARED_CONNECTIONS = 2

# Seconds to wait until one of them is free. After that, sending a task fails.
WAIT_FOR_CONNECTION = 2

# What Python raises where a message is not built as kombu builds it.
MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def log_unreadable(queue: str, raw: bytes, reason: str) -> None:
    logger.error("what waited in %s is not a message, and was dropped: %s", queue, reason)


# This is called with the queue, the bytes and the reason when something in a queue is not a message
# at all. It must not raise. operations/consumer.py puts its own function here.
on_unreadable = log_unreadable


class QoS(internals.QoS):
    """The messages that this worker holds, and what Redis has not heard about them yet.

    `settle()` runs every 10 seconds. The overdue acknowledgements belong to the process and not to
    the channel, so they outlive a connection that breaks in the meantime.
    """

    # {broker: {delivery tag: whether the message goes back to its queue}}
    overdue: dict[str, dict[str, bool]] = defaultdict(dict)

    def __init__(self, channel: "Channel", prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        broker = channel.connection.client.as_uri()  # without the password
        self.overdue_here = self.overdue[f"{broker} {channel.global_keyprefix}"]
        # {delivery tag: a message that Redis handed out and did not record}
        self.unrecorded: dict[str, Any] = {}

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
        except (RedisError, OSError) as error:
            logger.warning("Redis did not record a message that it handed out: %s", error)
            # Redis has the message in none of its lists any more. To raise here would lose it.
            virtual.QoS.append(self, message, delivery_tag)
            self.unrecorded[delivery_tag] = message

    def ack(self, delivery_tag: str) -> None:
        self.unrecorded.pop(delivery_tag, None)
        try:
            super().ack(delivery_tag)
        except (RedisError, OSError) as error:
            self.tell_later(delivery_tag, error)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            # kombu takes the message from Redis's record to put it back.
            self.record()
        self.unrecorded.pop(delivery_tag, None)
        try:
            super().reject(delivery_tag, requeue)
        except (RedisError, OSError) as error:
            self.tell_later(delivery_tag, error, requeue)

    def tell_later(self, delivery_tag: str, error: Exception, requeue: bool = False) -> None:
        """Free the worker's place, and remember to tell Redis."""
        logger.warning("an acknowledgement is repeated, since Redis did not take it: %s", error)
        # This frees the place. It counts each message once, even if kombu came so far by itself.
        virtual.QoS.ack(self, delivery_tag)
        self.overdue_here[delivery_tag] = requeue
        if isinstance(error, ResponseError):
            self.channel.leave_server()

    def settle(self) -> None:
        """Tell Redis what it did not hear. Raises RedisError if it does not hear it now either."""
        finished = [tag for tag, requeue in self.overdue_here.items() if not requeue]
        if finished:
            with self.pipe_or_acquire() as pipe:
                for tag in finished:
                    self.remove_from_indices(tag, pipe)
                pipe.execute()
        for tag, requeue in list(self.overdue_here.items()):
            if requeue:
                self.restore_by_tag(tag, leftmost=True)
            del self.overdue_here[tag]
        self.record()

    def record(self) -> None:
        """Record the messages that lack a record, so that they outlive this process."""
        for tag, message in list(self.unrecorded.items()):
            super().append(message, tag)
            del self.unrecorded[tag]

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """kombu calls this every 10 s, to give away what other workers held for too long."""
        try:
            self.settle()
            super().restore_visible(*args, **options)
        except ResponseError as error:
            # It takes a lock, which is a write. Where Redis refuses only writes, consuming goes on.
            logger.debug("Redis refuses, and is asked again: %s", error)
            self.channel.leave_server()

    def restore_unacked(self, client: Any = None) -> None:
        """kombu calls this when the channel ends, to give back what was not acknowledged."""
        with suppress(RedisError, OSError):
            self.settle()
        super().restore_unacked(client)


class Client(kombu_redis.PrefixedStrictRedis):
    """A client that takes what is not a message out of kombu's way."""

    def __init__(self, *args: Any, channel: "Channel", **options: Any) -> None:
        super().__init__(*args, **options)
        self.channel = channel

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        reply = super().parse_response(connection, command_name, **options)
        if command_name != "BRPOP" or not reply:
            return reply
        key, raw = reply
        fault = self.channel.fault_of(raw)
        if not fault:
            return reply
        # The key is the queue and, behind a separator, the priority.
        queue = bytes_to_str(key).rsplit(self.channel.sep, 1)[0]
        on_unreadable(queue, raw, fault)
        return None  # as if nothing had come


# The pools of this process, each for as long as a channel uses it.
pools: weakref.WeakValueDictionary[str, BlockingConnectionPool] = weakref.WeakValueDictionary()
pools_lock = threading.Lock()


def shared_pool(parameters: dict[str, Any]) -> BlockingConnectionPool:
    """The pool of this process for connections with these parameters."""
    name = repr(sorted(parameters.items(), key=lambda item: item[0]))
    with pools_lock:
        pool = pools.get(name)
        if pool is None:
            pool = BlockingConnectionPool(
                **parameters
                | {"max_connections": SHARED_CONNECTIONS, "timeout": WAIT_FOR_CONNECTION}
            )
            pools[name] = pool
        return pool


def forget_pools() -> None:
    """Begin anew in a child process.

    A thread of the parent may have held a lock of theirs when the process was forked. That thread
    does not exist in the child, so nobody would release the lock.
    """
    global pools_lock
    pools_lock = threading.Lock()
    pools.clear()


os.register_at_fork(after_in_child=forget_pools)


class Channel(internals.Channel):
    QoS = QoS
    connection_class = connection.Connection
    connection_class_ssl = connection.TLSConnection  # type: ignore[assignment]

    # kombu has two clients for a channel: one for commands, and one that waits for messages. Its
    # constructor sends a PING by the second one, which opens a connection for it. A channel that
    # only sends tasks would never use that connection again. So until the constructor has ended,
    # the second client gets the shared pool as well.
    is_constructed = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.is_constructed = True
        # From now on the second client needs a pool of its own. kombu keeps both the pool and the
        # client, and makes new ones when they are asked for.
        self.forget_pool_for_waiting()
        del self.client

    def make_pool(self, *, waits_for_messages: bool) -> redis.ConnectionPool:
        """The shared pool. Waiting keeps a connection busy, so it has a pool of its own."""
        if waits_for_messages and self.is_constructed:
            return super().make_pool(waits_for_messages=True)
        return shared_pool(self.pool_parameters())

    def disconnect_pools(self) -> None:
        """Leave the shared pool to the other channels, and end the one of this channel."""
        self.forget_pool_for_commands()
        if not self.is_constructed:
            # The PING has failed, and this is the shared pool, too.
            self.forget_pool_for_waiting()
        super().disconnect_pools()

    def leave_server(self) -> None:
        """Open new connections from now on: the name of a server that refuses may lead to another.

        Connections that are in use are left to who uses them.
        """
        self.pool.disconnect(inuse_connections=False)

    def make_client(self, *args: Any, **options: Any) -> Client:
        return Client(*args, channel=self, global_keyprefix=self.global_keyprefix, **options)

    def fault_of(self, raw: bytes) -> str:
        """Why kombu could not make a message of `raw`, or not put it back. Empty if it can."""
        try:
            message = self.Message(loads(bytes_to_str(raw)), channel=self)
            for name in ("exchange", "routing_key"):
                message.delivery_info[name]
        except Exception as error:  # whatever it is, the cause lies in these bytes
            return f"{type(error).__name__}: {error}"
        if not isinstance(message.headers, dict):
            return "its headers are not a mapping"
        if not isinstance(message.delivery_tag, str):
            return "its delivery tag is not text"
        return ""

    def deliver_published(self, message: Any, exchange: str) -> bool:
        """Skip what is malformed. It was published and not queued, so there is nothing to keep."""
        try:
            return super().deliver_published(message, exchange)
        except MALFORMED as error:
            logger.warning("what was published to %s is not a message: %r", exchange, error)
            return False

    def maybe_refresh_binding_expiry(self) -> None:
        try:
            super().maybe_refresh_binding_expiry()
        except ResponseError as error:
            # This is a write, which is tried again within a second. kombu would log a traceback
            # each time.
            logger.debug("Redis refuses, and is asked again: %s", error)
            self.leave_server()

    def put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        try:
            super().put(queue, message, **options)
        except ResponseError:
            self.leave_server()
            raise


class Transport(kombu_redis.Transport):
    Channel = Channel
