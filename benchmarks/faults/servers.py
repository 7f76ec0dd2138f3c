"""The servers of a stack: Redis, a mail server that counts, a TCP forwarder, PostgreSQL."""

import asyncio
import base64
import contextlib
import glob
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

from harness.processes import Failed, Program, free_port, run
from harness.redis_server import RedisServer

from .ending import wait_until

# All messages, one a line: those in queues, and those given out but not acknowledged.
MESSAGES = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local values = {}
  if redis.call('TYPE', key).ok == 'list' then values = redis.call('LRANGE', key, 0, -1) end
  if key:sub(-7) == 'unacked' then values = redis.call('HVALS', key) end
  for _, value in ipairs(values) do found[#found + 1] = value end
end
return table.concat(found, '\\n')
"""
FILL = "for i = 1, ARGV[1] do redis.call('SET', 'filler' .. i, string.rep('x', 1024)) end"
EMPTY = "for _, key in ipairs(redis.call('KEYS', 'filler*')) do redis.call('DEL', key) end"
QUEUES = "for _, key in ipairs(redis.call('KEYS', '*_kombu.binding.celery')) do return key end"


class Redis(RedisServer):
    """A redis-server with TLS that can be frozen, restarted with its data, and made a replica.

    `authority` is the CA of its certificate; `hosts` are its names, loopback by default.
    """

    def __init__(self, authority, password, *, hosts=(), extra=(), binary=None):
        self._data = Path(tempfile.mkdtemp(prefix="faults-redis-"))
        own = [f"dir {self._data}", "rdbcompression no", "enable-protected-configs local"]
        replication = [
            "tls-replication yes",
            f"tls-ca-cert-file {authority.pem}",
            f"masterauth {password}",
        ]
        super().__init__(
            authority.issue(*hosts),
            password=password,
            extra=[*own, *replication, *extra],
            binary=binary,
        )

    def freeze(self):
        """SIGSTOP: it holds all connections and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self):
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def set(self, name, value):
        """CONFIG SET."""
        self.command("CONFIG", "SET", name, value)

    def stop(self, keep=False):
        """End it; with `keep`, the next start() finds the data again."""
        if self._program is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        if keep:
            # Nobody writes between the two.
            self.command("CLIENT", "PAUSE", 5000, "WRITE")
            self.command("SAVE")
        super().stop()
        if not keep:
            (self._data / "dump.rdb").unlink(missing_ok=True)

    def start_slowly(self, seconds):
        """Restart it with its data, but load that for some seconds: every command is -LOADING."""
        count = 1000  # of 1 KiB each, after which it looks for clients
        self.command("EVAL", FILL, 0, count)
        self.stop(keep=True)
        before = list(self._extra)
        self._extra += [
            f"key-load-delay {int(seconds * 1e6 / count)}",
            "loading-process-events-interval-bytes 1024",
        ]
        self.start()
        self._extra = before

    def remove_filler(self):
        """Remove what start_slowly() has put in."""
        self.command("EVAL", EMPTY, 0)

    def loading(self):
        """Say whether it still loads its data."""
        return "loading:1" in self.command("INFO", "persistence")

    def messages(self):
        """[(task, first argument)] of all messages that are queued or not yet acknowledged."""
        found = []
        for line in self.command("EVAL", MESSAGES, 0).splitlines():
            with contextlib.suppress(ValueError, LookupError, TypeError):
                message = json.loads(line)
                if isinstance(message, list):  # given out: the message, exchange, routing key
                    message = message[0]
                arguments = json.loads(base64.b64decode(message["body"]))[0]
                found.append((message["headers"]["task"], arguments[0] if arguments else None))
        return found

    def queue(self):
        """The key of the queue: it follows from the name of the binding beside it."""
        return self.command("EVAL", QUEUES, 0).replace("_kombu.binding.", "")

    def close(self):
        """End it and remove all its files."""
        if self._program is not None:
            self._program.kill()
            self._program = None
            shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._data, ignore_errors=True)

    def _ready(self):
        try:
            return super()._ready() or self.loading()
        except (OSError, Failed):
            return False


class _Listener:
    """A server on a loopback port that asyncio runs in a thread of its own."""

    def __init__(self):
        self.port = free_port()
        self._loop = None

    def start(self):
        """Listen, from now on."""
        listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self._thread.start()
        if not listening.wait(10):
            raise Failed(f"port {self.port} could not be taken")
        return self

    def stop(self):
        """Refuse connections and drop those there are; start() takes the same port again."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop = None

    def _run(self, listening):
        asyncio.set_event_loop(self._loop)
        start = asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**20)
        server = self._loop.run_until_complete(start)
        listening.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader, writer):
        try:
            await self.talk(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


class MailServer(_Listener):
    """An SMTP server that keeps whom each mail was for and when it was taken: [(address, time)].

    Addresses that begin with "refused" are answered with 550. `hold`: seconds that it takes for
    each mail, saying so every 5 s. `hang_up`: it takes the mail and leaves without an answer.
    """

    def __init__(self):
        super().__init__()
        self.taken = []
        self.hold = 0
        self.hang_up = False
        self.busy = 0  # with so many mails at the moment

    async def talk(self, reader, writer):
        recipients = []
        await self._say(writer, "220 mail.example")
        while line := (await reader.readline()).decode(errors="replace").strip():
            verb = line.split(":")[0].upper()
            if verb == "RCPT TO":
                address = line.partition("<")[2].partition(">")[0]
                if address.startswith("refused"):
                    await self._say(writer, "550 no such user")
                    continue
                recipients.append(address)
            if verb == "DATA":
                await self._say(writer, "354 go on")
                await reader.readuntil(b"\r\n.\r\n")
                if not await self._take(reader, writer):
                    return
                self.taken += [(address, time.time()) for address in recipients]
                recipients = []
                if self.hang_up:
                    return
            await self._say(writer, "221 bye" if verb == "QUIT" else "250 ok")
            if verb == "QUIT":
                return

    async def _take(self, reader, writer):
        """Take as long as told; false if the client does not wait."""
        end = time.time() + self.hold
        self.busy += 1
        try:
            while time.time() < end:
                await self._say(writer, "250-wait")
                await asyncio.sleep(min(5, max(0, end - time.time())))
                if reader.at_eof():
                    return False
        finally:
            self.busy -= 1
        return True

    @staticmethod
    async def _say(writer, text):
        writer.write(f"{text}\r\n".encode())
        await writer.drain()


class Forwarder(_Listener):
    """What a provider's address is: it leads to a server, and after a failover to another.

    `target` is the port of new connections; those there are stay where they are.
    """

    def __init__(self, target):
        super().__init__()
        self.target = target

    async def talk(self, reader, writer):
        there = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            ways = (self._pump(reader, there[1]), self._pump(there[0], writer))
            await asyncio.gather(*ways)
        finally:
            there[1].close()

    @staticmethod
    async def _pump(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


class Postgres:
    """A PostgreSQL server on loopback; its files belong to the user postgres where we are root."""

    def __init__(self):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not found:
            raise Failed("no PostgreSQL in /usr/lib/postgresql")
        self._bin = Path(found[-1])
        self._as_user = []
        self._folder = Path(tempfile.mkdtemp(prefix="faults-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self.port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        self._program = None
        command = [self._bin / "initdb", "--auth=trust", "--username=postgres", "--no-sync"]
        done = run(
            [*self._as_user, *map(str, command), "-D", str(self._folder / "data")],
            cwd=self._folder,
            env={"PATH": os.defpath, "LANG": "C"},
            seconds=120,
        )
        if done.returncode:
            raise Failed(f"initdb failed:\n{done.stdout}{done.stderr}")

    def start(self):
        """Start it and wait until it listens."""
        command = [self._bin / "postgres", "-D", self._folder / "data", "-p", self.port]
        command += ["-c", "listen_addresses=127.0.0.1", "-k", self._folder, "-c", "fsync=off"]
        self._program = Program(
            "postgres",
            [*self._as_user, *map(str, command)],
            cwd=self._folder,
            env={"PATH": os.defpath, "LANG": "C"},
            log=self._folder / "log",
        )
        self._program.wait_for("ready to accept connections", 30)

    def stop(self):
        """End it at once, with all connections, as a crash does; its data stays."""
        if self._program is not None:
            self._program.kill()
            self._program = None

    def close(self):
        """End it and remove its files."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def wait_for_replica(server, seconds=20):
    """Wait until `server`, a Redis that was made a replica, has its master's data."""
    return wait_until(
        lambda: "master_link_status:up" in server.command("INFO", "replication"),
        seconds,
        "the replica is in step",
    )
