"""A network of one's own, where packets of chosen connections can be dropped. Linux, as root."""

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
    """The calling thread, and all that it starts, gets a network of its own, with loopback only.

    It ends with the last process in it: nothing is left, whatever happens. Skips the test where
    that cannot be had.
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
    """From now on drop every packet of the connections that these processes have to the port.

    Both sides still think that they are connected, and new connections pass. Returns how many.
    """
    listing = _run("ss", "-Htnp", "state", "established", "dport", f"= :{port}")
    sources = set()
    for line in listing.splitlines():
        owners = {int(pid) for pid in re.findall(r"pid=(\d+)", line)}
        if owners & set(pids):
            sources.add(re.search(r":(\d+)\s", line).group(1))
    for source in sources:
        # Where they arrive, for a sender would be told that its own packets cannot leave.
        for ways in (("--sport", source, "--dport", port), ("--sport", port, "--dport", source)):
            _run("iptables", "-A", "INPUT", "-p", "tcp", *map(str, ways), "-j", "DROP")
    return len(sources)


def _run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
