"""Run by the service's Python: which policy the service reads from its defaults and environment.

On its input is JSON: the `service`'s folder, the `environments` with their `defaults` and the
`variable` of the URL, and `stores`, {name: PEM files}, to name the CAs. It prints a list: of each
environment, all that a handshake depends on, or why the service does not start.
"""

import hashlib
import json
import os
import runpy
import ssl
import sys
from importlib import import_module
from pathlib import Path

given = json.load(sys.stdin)
folder = Path(given["service"])
sys.path.insert(0, str(folder))
# This module alone, because its package would start Celery and read the settings.
Environment = runpy.run_path(str(folder / "config" / "environment.py"))["Environment"]
make_context = import_module("redis_connection.context").make_context

names = {}
for name, files in given["stores"].items():
    for file in files:
        der = ssl.PEM_cert_to_DER_cert(Path(file).read_text())
        names[hashlib.sha256(der).digest()] = name


def policy_of(defaults, variables, url_name):
    """The policy, or None and what is wrong, with these as all variables of the process."""
    os.environ.clear()
    os.environ.update(variables)
    read = Environment(Path("no.env"), defaults)
    policy = read.redis_policy(url_name, production=True)
    return None if read.problems else policy, read.problems


def of_context(context):
    """What a handshake depends on. The files of a store are named, not listed."""
    cas = context.get_ca_certs(True)
    return {
        "verify_mode": context.verify_mode.name,
        "check_hostname": context.check_hostname,
        "trusts": sorted({names[hashlib.sha256(der).digest()] for der in cas}),
        "other certificates": context.cert_store_stats()["x509"] - len(cas),
        "minimum_version": context.minimum_version.name,
        "maximum_version": context.maximum_version.name,
        "verify_flags": int(context.verify_flags),
        "options": int(context.options),
        "ciphers": [cipher["name"] for cipher in context.get_ciphers()],
    }


def found(policy):
    options = policy.client()
    trust = options.pop("trust", None)
    connection = options.pop("connection_class")
    # For others, such as Flower. A path is what the context above trusts.
    celery = {name: str(value) for name, value in (policy.celery() or {}).items()}
    celery.update({name: "given" for name in celery if name == "ssl_ca_certs"})
    return {
        "context": of_context(make_context(trust)) if trust else None,
        "client certificate": bool(policy.certfile),
        "connection": f"{connection.__module__}.{connection.__name__}",
        "options": {name: repr(value) for name, value in sorted(options.items())},
        "celery": celery,
    }


answers = []
for each in given["environments"]:
    policy, problems = policy_of(each["defaults"], each["environment"], each["variable"])
    answers.append(found(policy) if policy else {"refused": problems})
print(json.dumps(answers))
