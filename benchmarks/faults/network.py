"""A network namespace of Linux for a server, in which packets can be dropped. Needs root."""

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.processes import Failed
from harness.redis_server import find_server

_numbers = itertools.count(os.getpid() % 60 * 4)


class Namespace:
    """A namespace with one link to the machine; `address` is the one inside."""

    def __init__(self):
        number = next(_numbers) % 250
        self._name = f"faults-{os.getpid()}-{number}"
        self._link = f"faults{number}"
        self._outside, self.address = f"10.199.{number}.1", f"10.199.{number}.2"
        self._folder = Path(tempfile.mkdtemp(prefix="faults-namespace-"))

    def start(self):
        """Make the namespace. Raises Failed where that is not allowed."""
        peer = f"{self._link}i"
        self._ip("netns", "add", self._name)
        self._ip("link", "add", self._link, "type", "veth", "peer", "name", peer)
        self._ip("link", "set", peer, "netns", self._name)
        self._ip("addr", "add", f"{self._outside}/30", "dev", self._link)
        self._ip("link", "set", self._link, "up")
        self._ip("-n", self._name, "addr", "add", f"{self.address}/30", "dev", peer)
        self._ip("-n", self._name, "link", "set", peer, "up")
        return self

    def redis_binary(self):
        """Write a program that runs redis-server inside the namespace."""
        path = self._folder / "redis-server"
        path.write_text(f'#!/bin/sh\nexec ip netns exec {self._name} {find_server()} "$@"\n')
        path.chmod(0o755)
        return str(path)

    def drop(self, port):
        """From now on drop every packet to and from this port of the machine."""
        for chain, option in (("INPUT", "--sport"), ("OUTPUT", "--dport")):
            rule = ["-A", chain, "-p", "tcp", option, str(port), "-j", "DROP"]
            self._ip("netns", "exec", self._name, "iptables", "-w", *rule)

    def close(self):
        """Remove the namespace with its link and rules."""
        subprocess.run(["ip", "netns", "del", self._name], capture_output=True)
        subprocess.run(["ip", "link", "del", self._link], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    @staticmethod
    def _ip(*arguments):
        try:
            done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        except OSError as error:
            raise Failed(f"no network namespace can be made: {error}") from None
        if done.returncode:
            raise Failed(f"ip {' '.join(arguments)}: {done.stderr.strip()} (it needs root)")
