"""A private network, where packets of chosen connections can be dropped. Linux, as root."""

import contextlib
import ctypes
import os
import re
import shutil
import subprocess

import pytest

CLONE_NEWNET = 0x40000000
OWN = "/proc/thread-self/ns/net"


@contextlib.contextmanager
def private_network():
    """Give the calling thread, and all that it starts, a network of its own, with loopback only.

    The network ends with the last process in it, so nothing is left, whatever happens. The test is
    skipped where the system allows no such network.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("NOT TESTED: a private network needs root")
    for program in ("ip", "ss", "iptables"):
        if not shutil.which(program):
            pytest.skip(f"NOT TESTED: a private network needs {program}")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open(OWN, os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"NOT TESTED: no private network: {os.strerror(ctypes.get_errno())}")
        try:
            _run("ip", "link", "set", "lo", "up")
            if subprocess.run(["iptables", "-S"], capture_output=True).returncode:
                pytest.skip("NOT TESTED: iptables does not work in a private network")
            yield
        finally:
            if libc.setns(before, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the thread cannot leave its private network")
    finally:
        os.close(before)


def drop_connections(pids, port):
    """Drop every packet, from now on, of the connections that these processes have to the port.

    Both sides still think that they are connected, and new connections work. Returns the number of
    connections.
    """
    listing = _run("ss", "-Htnp", "state", "established", "dport", f"= :{port}")
    sources = set()
    for line in listing.splitlines():
        owners = {int(pid) for pid in re.findall(r"pid=(\d+)", line)}
        if owners & set(pids):
            sources.add(re.findall(r":(\d+)\s", line)[0])
    for source in sources:
        # The rule is for arriving packets, because a sender is told when its own cannot leave.
        for ways in (("--sport", source, "--dport", port), ("--sport", port, "--dport", source)):
            _run("iptables", "-A", "INPUT", "-p", "tcp", *map(str, ways), "-j", "DROP")
    return len(sources)


def _run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
