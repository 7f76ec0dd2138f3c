"""The policy of a Redis URL, from the environment variables of this service."""

from fnmatch import fnmatch

from redis_connection.policy import Policy

from . import pem_files
from .environment import Environment, Refused
from .redis_url import read_url


def from_environment(env: Environment, name: str, *, production: bool) -> Policy:
    """The policy of the URL in the variable `name`; Refused if it could not work or is too weak."""
    cert_reqs = env.text("REDIS_CERT_REQS").lower()
    if cert_reqs not in ("required", "optional", "none"):
        raise Refused("REDIS_CERT_REQS is not one of: required, optional, none.")
    text = env.text(name, "" if production else "redis://localhost:6379/0")
    if not text:
        raise Refused(f"{name} is not set: give the URL of your Redis.")
    url, host = read_url(name, text, cert_reqs, env.integer("REDIS_DATABASES", minimum=1))
    check_hostname = env.boolean("REDIS_CHECK_HOSTNAME")
    policy = Policy(url, cert_reqs, check_hostname, *pem_files.from_environment(env))
    if production and not policy.encrypted and not policy.private:
        patterns = map(str.lower, env.list("REDIS_ALLOW_PLAINTEXT"))
        if not any(pattern == "true" or fnmatch(host, pattern) for pattern in patterns):
            raise Refused(
                f"{name} is plain redis:// to the public host {host}: anyone on the path reads the"
                " password. Use rediss://, or name the host in REDIS_ALLOW_PLAINTEXT."
            )
    if policy.verified and not policy.check_hostname and not policy.ca_certs:
        raise Refused(
            f"REDIS_CERT_REQS={cert_reqs} without the host name check needs REDIS_CA_CERTS, or any"
            " public certificate would be accepted. `REDIS_CERT_REQS=none python manage.py doctor"
            " --certificate` prints the server's."
        )
    if policy.pinned:
        pem_files.check_pins(policy.ca_certs)
    return policy
