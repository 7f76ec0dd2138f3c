"""Run by a service's Python in its folder, with a seed: many URLs, read.

It prints counts and whatever went wrong as JSON. With a fault as third word the service is made
worse, to show that this script would find it: "leaky" refusals quote the URL, for "careless" every
host is private, "literal" decodes no password, and "lenient" does not verify.
"""

import json
import os
import random
import sys
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

sys.path.insert(0, os.getcwd())
seed, *fault = sys.argv[1:]
environment = import_module("config.environment")
errors = import_module("redis_connection.errors")
policies = import_module("redis_connection.policy")
read_url = policies.read_url
kombu = import_module("kombu")
parse_url = import_module("redis.connection").parse_url

TRIES = 8000
SECRET = "Zq7SECRETzX"
FRAGMENTS = [SECRET[i : i + 4].lower() for i in range(len(SECRET) - 3)]
DEFAULTS = {"REDIS_CERT_REQS": "required", "REDIS_CHECK_HOSTNAME": "true", "REDIS_DATABASES": "16"}
# These of the hosts below may be reached without TLS.
PRIVATE = {"h", "localhost", "10.0.0.1", "::1", "fd00::1", "x.internal", "h.internal"}
PRIVATE |= {"h_x", "xn--a"}

# Usual parts come first, and are drawn more often.
SCHEMES = ["rediss", "redis", "valkeys", "valkey"]
ODD_SCHEMES = ["REDIS", "Rediss", "redis+ssl", "unix", "sentinel", "reddis", "http", "rediss ", ""]
HOSTS = ["h", "localhost", "h.example.com", "10.0.0.1", "8.8.8.8", "[::1]", "x.internal"]
ODD_HOSTS = ["[2001:db8::1]", "[fd00::1]", "::1", "h_x", "H.Internal", "evil%2Ecom", "134744072"]
ODD_HOSTS += ["0x8.8.8.8", "", "h;x", "h,h2", "[fe80::1%25eth0]", "fd00::1", "a..b", "-", "h%00"]
ODD_HOSTS += ["\u2100.com", "evil\u3002com", "evil\uff0ecom", "xn--a", "h\n", "localhost.", "127.1"]
ODD_HOSTS += ["[::ffff:8.8.8.8]", "[::ffff:10.0.0.1]", "0", "evil.com\\.internal", "[h]", "h h"]
PORTS = ["", ":6379"]
ODD_PORTS = [":0", ":65536", ":99999", ":-1", ":abc", ":6379:1", ":", "::", ": 6379", ":\u0666"]
PATHS = ["", "/", "/0", "/15"]
ODD_PATHS = ["/16", "/-1", "/00", "/0/", "//0", "/0/1", "/\u0663", "/1e1", "/" + "1" * 5000, "/0 "]
ODD_PATHS += ["/abc", "/0;a", "/%30"]
ODD_QUERIES = ["?ssl_cert_reqs=none", "?ssl_cert_reqs=required", "?ssl_cert_reqs=CERT_REQUIRED"]
ODD_QUERIES += ["?ssl_cert_reqs=required&ssl_cert_reqs=none", "?ssl_ca_certs=/x", "?a;b", "?", "?="]
ODD_QUERIES += ["?ssl_cert_reqs=none&ssl_cert_reqs=required", "?SSL_CERT_REQS=none", "?x", "#x"]
ODD_QUERIES += ["?ssl%5fcert_reqs=none", "#?ssl_cert_reqs=none", "?ssl_check_hostname=false"]
ODD_QUERIES += ["?" + "&".join(["a=1"] * 3000), "?db=1", "?virtual_host=1"]
TYPED = list("@:/?#[]%;&=+ ,!$'()*\\\"\t\n\r|^`{}<>~é€")
ENCODED = ["%2F", "%zz", "%", "%00", "%40", "%0a", "%3B", "%25", "%C3%BC", "%FF"]
VARIABLES = {
    "REDIS_CERT_REQS": ["none", "NONE", "optional", "required", "cert_none", "0", SECRET],
    "REDIS_CHECK_HOSTNAME": ["no", "x", SECRET],
    "REDIS_DATABASES": ["1", "0", "x", "-1", "²", "9" * 5000, SECRET],
    "REDIS_ALLOW_PLAINTEXT": ["*", "true", "True", "[", "8.8.8.8", SECRET],
    "REDIS_CA_CERTS": ["/no/such", "x", SECRET, "-----BEGIN PRIVATE KEY-----\n" + SECRET],
    "REDIS_CLIENT_KEY": [SECRET, f"/{SECRET}", f"a.{SECRET}"]
    + ["-----BEGIN RSA PRIVATE KEY-----\\n" + SECRET],
}
draw = random.Random(int(seed))


def one_of(usual, odd):
    """Return mostly a usual part, because the first odd part already gets a URL refused."""
    return draw.choice(odd if draw.random() < 0.15 else usual)


def inserted(text, parts):
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice(parts) + text[at:]


def a_password():
    """Return the password as it stands in the URL, and as it is meant (None if not known)."""
    text = SECRET
    if draw.random() < 0.5:
        text = inserted(inserted(text, TYPED), TYPED)
        return quote(text, safe=""), text
    for _ in range(draw.choice([0, 1, 1, 2])):
        text = inserted(text, one_of(ENCODED, TYPED))
    return text, None


def a_url():
    """Return the URL, and the password as it is meant."""
    password, meant = a_password()
    account = f"{one_of(['', 'u', 'default'], ['u@x', 'u%3A', 'u%20ü'])}:{password}@"
    if draw.random() < 0.1:
        account, meant = draw.choice([f"{SECRET}@", "u@", ":@", ""]), None
    url = one_of(SCHEMES, ODD_SCHEMES) + one_of(["://"], ["://", ":/", "//", ":"]) + account
    url += one_of(HOSTS, ODD_HOSTS) + one_of(PORTS, ODD_PORTS)
    url += one_of(PATHS, ODD_PATHS) + one_of([""], ODD_QUERIES)
    if draw.random() < 0.03:
        return inserted(url, list(" \n\t\r\\;\x7f'\"")), None
    return url, meant


def variables():
    return {name: draw.choice(values) for name, values in VARIABLES.items() if draw.random() < 0.03}


def problems_of_refusal(message, url):
    if len(message.splitlines()) != 1:
        yield "a refusal of several lines"
    if not message.startswith("REDIS_"):
        yield "a refusal that names no variable"
    if any(fragment in message.lower() for fragment in FRAGMENTS):
        yield "a fragment of the secret"


def problems_of_policy(policy, given, meant, production):
    parts = urlsplit(policy.url)
    with kombu.Connection(policy.url) as broker:
        other = broker.alt
        celery = (broker.hostname, broker.port, broker.userid, broker.password)
        database = str(broker.virtual_host or 0).strip("/") or 0
    client = parse_url(policy.url)
    redis_py = tuple(client.get(name) for name in ("host", "port", "username", "password"))
    raw = (parts.hostname, parts.port, parts.username, parts.password)
    mine = tuple(unquote(part) if isinstance(part, str) else part for part in raw)
    # All clients treat "" and None alike, and take 6379 as Redis's default port.
    if len({tuple(part or None for part in read) for read in (mine, celery, redis_py)}) != 1:
        yield f"kombu, redis-py and read_url differ: {celery}, {redis_py}, {mine}"
    if meant is not None and redis_py[3] != meant:
        yield f"another password than was meant, which is {meant!r}"
    if {int(database), int(client.get("db", 0))} != {int(parts.path.strip("/") or 0)}:
        yield "kombu, redis-py and read_url differ in the database"
    if len(other) > 1 or parts.query or parts.fragment:
        yield "more than one URL, or options in it"
    if policy.encrypted != given["REDIS_URL"].strip().lower().startswith(("rediss:", "valkeys:")):
        yield "another scheme than was given"
    allowed = parts.hostname in PRIVATE or "REDIS_ALLOW_PLAINTEXT" in given
    if production and not policy.encrypted and not allowed:
        yield f"plain text to {parts.hostname}"
    asked = given.get("REDIS_CERT_REQS", "").lower() == "none"
    if policy.encrypted and not (policy.verified or asked):
        yield "not verified, and nobody asked for that"
    options = policy.celery() or policy.client()
    if policy.verified and options["ssl_cert_reqs"] == "none":
        yield "verified, but not for Celery"


def literally(*given):
    url = read_url(*given)
    return replace(url, text=url.text.replace("%", "%25"))


def quoting(refused):
    return f"{refused.args[0]} {url}"


if fault == ["leaky"]:
    errors.InvalidSetting.__str__ = quoting
elif fault == ["careless"]:
    vars(policies)["is_private"] = lambda host: True
elif fault == ["literal"]:
    vars(policies)["read_url"] = literally
elif fault == ["lenient"]:
    policies.Policy.verified = False

counts: Counter[str] = Counter()
wrong: list[str] = []
for number in range(TRIES):
    url, meant = a_url()
    given = {"REDIS_URL": url} | variables()
    production = number % 10 != 0
    os.environ.clear()
    os.environ.update(given)
    env = environment.Environment(Path("no-such-file"), DEFAULTS)
    os.environ.clear()
    counts["tried"] += 1
    try:
        policy = env.redis_policy("REDIS_URL", production=production)
    except Exception as error:
        counts["refused"] += 1
        found = [f"a crash: {error!r}"]
    else:
        if env.problems:
            counts["refused"] += 1
            found = [wrong for line in env.problems for wrong in problems_of_refusal(line, url)]
        else:
            counts["accepted"] += 1
            counts["plain"] += not policy.encrypted
            found = list(problems_of_policy(policy, given, meant, production))
    counts["fragments"] += "a fragment of the secret" in found
    wrong += [f"{problem}: {str(given)[:300]}" for problem in found]
print(json.dumps({"counts": counts, "wrong": len(wrong), "examples": wrong[:20]}))
