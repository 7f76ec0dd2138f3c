"""What the host of a Redis URL tells."""

import ipaddress

PRIVATE_NETWORKS = [
    ipaddress.ip_network(block)
    for block in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1", "fc00::/7")
]


def is_private(host: str) -> bool:
    """By name and address only: nothing is looked up."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host[0].isalpha()  # 134744072 and 0x08080808 are addresses
        return name and ("." not in host or host.endswith((".internal", ".local", ".flycast")))
    return any(address in network for network in PRIVATE_NETWORKS)
