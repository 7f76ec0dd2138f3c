"""Run by a service's Python in its folder, with its slug: how each of its clients connects.

Prints {client: {option: value}} as JSON, after each of them has been answered by the server. With
"write" only the broker is asked, in both directions.
"""

import json
import os
import sys
from importlib import import_module

import redis

sys.path.insert(0, os.getcwd())
slug, *only = sys.argv[1:]
os.environ["DJANGO_SETTINGS_MODULE"] = f"{slug}.settings"
import_module("django").setup()
app = import_module(f"{slug}.celery").app
probes = import_module("operations.probes")
settings = import_module("django.conf").settings

WATCHED = ("cert_reqs", "check_hostname", "ca_certs", "ca_data", "ca_path", "certfile", "keyfile")
WATCHED += ("certificate_password", "redis_connect_func")


def words(value):
    """As JSON, and equal for equal policies: a bound method stands for what it is bound to."""
    if hasattr(value, "__self__"):
        policy = {name: text for name, text in vars(value.__self__).items() if name != "url"}
        return [value.__func__.__qualname__, policy]
    return sorted(map(repr, value.items())) if isinstance(value, dict) else repr(value)


def connects(pool):
    """What a connection of the pool is made with, once the server has answered on it."""
    connection = pool.make_connection()
    connection.connect()
    connection.send_command("PING")
    assert connection.read_response() == b"PONG"
    connection.disconnect()
    options = {
        name: words(value)
        for name, value in vars(connection).items()
        if name in WATCHED or name.startswith(("ssl_", "socket_keepalive"))
    }
    return (
        options
        | {"host": f"{connection.host} {connection.port}"}
        | {"class": "TLS" if isinstance(connection, redis.SSLConnection) else "plain"}
    )


with app.connection_for_write() as write, app.connection_for_read() as read:
    clients = {
        "broker, written": write.default_channel.client.connection_pool,
        "broker, read": read.default_channel.client.connection_pool,
        "broker, awaited": read.default_channel.async_pool,
    }
    if not only:
        clients["results"] = app.backend.client.connection_pool
        clients["doctor"] = probes.Way().client.connection_pool
        clients["/readyz"] = probes.ready_client().connection_pool
        policy = settings.REDIS
        clients["redis-py"] = redis.Redis.from_url(policy.url, **policy.client()).connection_pool
    print(json.dumps({name: connects(pool) for name, pool in clients.items()}))
