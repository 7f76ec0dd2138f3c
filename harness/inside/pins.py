"""Run by a service's Python in its folder: who is accepted with which pin.

Its last argument is JSON, {"urls": {server: URL}, "pins": {pin: PEM file}}. It prints
{pin: {server: {"celery": "", "redis-py": "why not"}}}.
"""

import json
import os
import sys
from importlib import import_module

import redis
from kombu import Connection
from redis.backoff import NoBackoff
from redis.retry import Retry

sys.path.insert(0, os.getcwd())
(given,) = sys.argv[1:]
given = json.loads(given)
import_module("config")  # which names our transport in kombu's table
read_policy = import_module("redis_connection.policy").read_policy


def policy_of(url, pin):
    policy = read_policy(
        "URL", url, cert_reqs="required", check_hostname=False, databases=16, ca_certs=pin
    )
    assert policy.pinned
    policy.register()
    return policy


def by_celery(policy):
    with Connection(policy.url, ssl=policy.celery()) as connection:
        # This makes a channel, which sends a PING. connect() would try twice, 2 s apart.
        connection.transport.establish_connection()


def by_redis_py(policy):
    redis.Redis.from_url(policy.url, **policy.client(), retry=Retry(NoBackoff(), 0)).ping()


def why_not(connect, policy):
    try:
        connect(policy)
    except redis.RedisError as error:
        return str(error)
    return ""


os.environ.pop("REDIS_CA_CERTS", None)
os.environ.pop("REDIS_CERT_REQS", None)
print(
    json.dumps(
        {
            pin: {
                server: {
                    "celery": why_not(by_celery, policy_of(url, path)),
                    "redis-py": why_not(by_redis_py, policy_of(url, path)),
                }
                for server, url in given["urls"].items()
            }
            for pin, path in given["pins"].items()
        }
    )
)
