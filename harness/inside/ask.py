"""Run by a service's Python in its folder: a PING by Celery, and one by redis-py."""

import os
import sys
from importlib import import_module

import redis

sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
policy = import_module("django.conf").settings.REDIS
with import_module("config.celery").app.connection_for_write() as connection:
    connection.connect()
    print("celery", connection.default_channel.client.ping())
print("redis-py", redis.Redis.from_url(policy.url, **policy.client()).ping())
