"""Real servers that behave as the providers' rows in cookiecutter.json say."""

import ipaddress
import re
import urllib.parse

from .processes import free_port, wait_until
from .redis_server import RedisServer

# {key: why} of the rows for which no server on loopback can stand in. All others are live-tested.
NOT_LIVE_TESTED: dict[str, str] = {}
# A limit that no test reaches.
PLENTY = 1000
# A stand-in closes idle connections this many times sooner, after 3 to 12 s. That is before the
# service's health check (25 s) could keep one alive or find it closed.
IDLE_SCALE = 50


class StandIn(RedisServer):
    """A server as one `row` describes it; a context manager.

    It shows `certificate`, and asks for `password` if the row's URL has one.
    """

    def __init__(self, row, certificate, password):
        form = urllib.parse.urlsplit(row["url_form"])
        self._form = form
        self._account = ""
        self._cluster_mode = row["cluster_mode"]
        self.host = "127.0.0.1" if _is_address(form.hostname) else "localhost"
        self.has_few_connections = (row["max_connections"] or PLENTY) < PLENTY
        self.idle_timeout = (row["idle_timeout_s"] or 0) // IDLE_SCALE
        self._refused = row["refused_commands"]
        # Clients cannot call these commands; `command()` has its own names for them.
        extra = [f"rename-command {word} OWN-{word}" for word in self._refused]
        if self._cluster_mode:
            extra += ["cluster-enabled yes", f"cluster-port {free_port()}"]
        default_password = None
        if form.password:
            self._account = f"{form.username}:{urllib.parse.quote(password, safe='')}@"
            default_password = password
            if form.username not in ("", "default"):
                extra.append(f"user {form.username} on >{password} ~* &* +@all")
                # `command()` still connects as the default user.
                default_password = "of-the-default-user"
        # render.yaml asks for what a queue needs. Elsewhere the default stays until changed.
        self.policy = "noeviction" if row["in_render_yaml"] else row["eviction"]
        super().__init__(
            certificate,
            password=default_password,
            databases=row["databases"],
            maxclients=min(row["max_connections"] or PLENTY, PLENTY),
            policy=self.policy,
            # At this level the server logs each idle connection that it closes.
            extra=["loglevel verbose", *extra],
        )

    def start(self):
        """Start the server. In cluster mode it serves every slot by itself."""
        super().start()
        if self._cluster_mode:
            self.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(self._serves_all_slots, 10, "the cluster serves all slots")
        return self

    def command(self, word, *more):
        """Run one command over the Unix socket, even a refused one; return its answer as text."""
        return super().command(f"OWN-{word}" if word in self._refused else word, *more)

    def close_idle(self):
        """Close idle connections from now on. Until then they add up, as they do in real life."""
        self.command("CONFIG", "SET", "timeout", self.idle_timeout)

    @property
    def given_url(self):
        """The URL as a customer gets it, in the form that the row says."""
        form = self._form
        return f"{form.scheme}://{self._account}{self.host}:{self.port}{form.path}"

    def connections(self):
        """Return {id: last command} of the clients that are connected now."""
        rows = re.findall(r"^id=(\d+) .* cmd=(\S+)", self.command("CLIENT", "LIST"), re.MULTILINE)
        return dict(rows)

    def info(self, section, name):
        """Return one value of INFO, as text."""
        values = re.findall(rf"^{name}:(.*?)\r?$", self.command("INFO", section), re.MULTILINE)
        return values[0]

    def idle_closes(self):
        """Return how many connections the server closed because they were idle."""
        return self._program.output().count("Closing idle client")

    def _serves_all_slots(self):
        return "cluster_state:ok" in self.command("CLUSTER", "INFO")


def journeys(rows, left_out=NOT_LIVE_TESTED):
    """Return {name: (provider, pinned)} of the live tests. Unverified rows are also pinned."""
    found = {}
    for key in (key for key in rows if key not in left_out):
        found[key] = (key, False)
        if rows[key]["ca"] == "self_signed":
            found[f"{key}_pinned"] = (key, True)
    return found


def effective_verification(row):
    """Return the words in which a service with the row's defaults describes its connection."""
    if row["tls"] == "none":
        return "plain text, not encrypted"
    if row["cert_reqs"] == "none":
        return "encrypted, certificate not verified"
    if row["check_hostname"]:
        return "certificate and host name verified"
    return "certificate verified, pinned by REDIS_CA_CERTS"


def _is_address(host):
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
