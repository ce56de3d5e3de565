"""``ping`` for containers, on machines without it. It does not need permission to open raw sockets.

It looks up the name. An address of this machine, such as a pod's, always answers. Other addresses are not contacted.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
import time


def main() -> int:
    """Run the command. Return 0 if the host answers, 1 if its name is unknown, and 2 otherwise."""
    parser = argparse.ArgumentParser(prog="ping")
    parser.add_argument("-c", dest="count", type=int, default=0, help="number of packets; endless by default")
    parser.add_argument("-i", dest="interval", type=float, default=1.0, help="seconds between packets")
    parser.add_argument("-w", "-W", dest="timeout", type=float, help="ignored")
    parser.add_argument("-4", "-q", dest="ignored", action="store_true", help="ignored")
    parser.add_argument("host")
    options = parser.parse_args()
    try:
        address = socket.gethostbyname(options.host)
    except OSError:
        print(f"ping: bad address '{options.host}'", file=sys.stderr)
        return 1
    if not ipaddress.ip_address(address).is_loopback:
        print(f"ping: the laptop AKS can only ping pods, and {address} is not one", file=sys.stderr)
        return 2
    print(f"PING {options.host} ({address}): 56 data bytes", flush=True)
    sent = 0
    while True:
        print(f"64 bytes from {address}: seq={sent}", flush=True)
        sent += 1
        if sent == options.count:
            break
        time.sleep(options.interval)
    print(f"\n--- {options.host} ping statistics ---")
    print(f"{sent} packets transmitted, {sent} packets received, 0% packet loss")
    return 0


if __name__ == "__main__":
    sys.exit(main())
