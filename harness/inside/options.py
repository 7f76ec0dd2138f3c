"""Run by a service's Python in its folder: how each of its clients connects.

It prints {client: {option: value}} as JSON after the server has answered each client. With "write"
only the broker is asked, in both directions.
"""

import json
import os
import sys
from importlib import import_module

import redis

sys.path.insert(0, os.getcwd())
only = sys.argv[1:]
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import_module("django").setup()
app = import_module("config.celery").app
readiness = import_module("operations.readiness")
diagnosis = import_module("redis_connection.diagnosis")
settings = import_module("django.conf").settings

# These are attributes of the SSL context of the socket.
OF_CONTEXTS = ("verify_mode", "check_hostname", "minimum_version", "verify_flags", "get_ca_certs")


def words(value):
    """Return the value as JSON, equal for equal values."""
    return sorted(map(repr, value.items())) if isinstance(value, dict) else repr(value)


def of_context(sock):
    """Return what the socket is encrypted with, or nothing if it is not."""
    context = getattr(sock, "context", None)
    found = {name: getattr(context, name) for name in OF_CONTEXTS} if context else {}
    return {name: words(value() if callable(value) else value) for name, value in found.items()}


def class_of(connection):
    """Return the class that connects. kombu derives a class without a name from it for channels."""
    modules = (each.__module__ for each in type(connection).mro())
    return next(module for module in modules if not module.startswith("kombu."))


def connects(pool):
    """Return the options of a connection of the pool after the server has answered on it."""
    connection = pool.make_connection()
    connection.connect()
    connection.send_command("PING")
    assert connection.read_response() == b"PONG"
    options = {
        name: words(value)
        for name, value in vars(connection).items()
        if name.startswith("socket_keepalive")
    } | of_context(connection._sock)
    connection.disconnect()
    return (
        options
        | {"host": f"{connection.host} {connection.port}"}
        | {"class": class_of(connection)}
        | {"encrypted": isinstance(connection, redis.SSLConnection)}
    )


with app.connection_for_write() as write, app.connection_for_read() as read:
    clients = {
        "broker, written": write.default_channel.client.connection_pool,
        "broker, read": read.default_channel.client.connection_pool,
        "broker, awaited": read.default_channel.async_pool,
    }
    if not only:
        clients["results"] = app.backend.client.connection_pool
        clients["doctor"] = diagnosis.RedisDiagnosis(settings.REDIS).client.connection_pool
        clients["/readyz"] = readiness.kept_client().connection_pool
        policy = settings.REDIS
        clients["redis-py"] = redis.Redis.from_url(policy.url, **policy.client()).connection_pool
    print(json.dumps({name: connects(pool) for name, pool in clients.items()}))
