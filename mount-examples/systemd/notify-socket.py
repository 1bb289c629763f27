#!/usr/bin/env python3
"""A stand-in for systemd's end of sd_notify(3): prints each state line that arrives until STOPPING=1 or 60 s."""
import os
import socket
import sys

path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind(path)
listener.settimeout(60)
print("listening", flush=True)
try:
    while True:
        state = listener.recv(4096).decode()
        print(state, flush=True)
        if "STOPPING=1" in state.splitlines():
            break
except TimeoutError:
    sys.exit("nothing arrived for 60 s")
finally:
    os.unlink(path)
