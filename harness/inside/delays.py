"""Run by a service's Python in its folder, with a number of threads.

It measures how long each thread waits.

It says "ready" once it has tried to send a task, and waits for a line. Then each thread sends one,
at the same time. It prints [[seconds, error or ""], ...] as JSON.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

sys.path.insert(0, os.getcwd())
(threads,) = sys.argv[1:]
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import_module("django").setup()
send_mail = import_module("authentication.email_utils").send_verification_email
OperationalError = import_module("kombu.exceptions").OperationalError


def send(_):
    began = time.monotonic()
    try:
        send_mail.delay(0, "service.example")
    except OperationalError as error:
        return time.monotonic() - began, f"{error}"
    return time.monotonic() - began, ""


send(0)
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(int(threads)) as pool:
    print(json.dumps(list(pool.map(send, range(int(threads))))))
