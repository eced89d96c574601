"""Delays every packet between two interfaces of one network namespace: a long line between two hosts.

    delay-link.py LEFT RIGHT MILLISECONDS BYTES-PER-SECOND

Packets are taken from and given to the interfaces as they are, offload headers included, so that two hosts see one
Ethernet with the delay and rate that is asked for (each way). The queue holds one delay's worth of packets and a
quarter of a second more; beyond that packets are dropped, as a router does. The kernel's own netem is not everywhere.
"""

import collections
import select
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING, SO_RCVBUFFORCE = 263, 15, 23, 33
ETH_P_ALL = 3
LARGEST = 65536 + 64


def attach(name):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    end.bind((name, ETH_P_ALL))
    end.setblocking(False)
    return end


class Line:
    """One direction."""

    def __init__(self, source, target, delay, rate):
        self.source, self.target, self.delay, self.rate = source, target, delay, rate
        self.waiting = collections.deque()
        self.free_at = 0.0  # when the line has sent all it was given

    def take(self):
        now = time.monotonic()
        for _ in range(64):
            try:
                packet = self.source.recv(LARGEST)
            except BlockingIOError:
                return
            begin = max(now, self.free_at)
            if begin - now > 0.25:
                continue
            self.free_at = begin + len(packet) / self.rate
            self.waiting.append((self.free_at + self.delay, packet))

    def give(self):
        now = time.monotonic()
        while self.waiting and self.waiting[0][0] <= now:
            try:
                self.target.send(self.waiting.popleft()[1])
            except OSError:
                pass  # the interface went away or its queue is full: a lost packet


def main():
    left, right = attach(sys.argv[1]), attach(sys.argv[2])
    delay, rate = float(sys.argv[3]) / 1000, float(sys.argv[4])
    lines = [Line(left, right, delay, rate), Line(right, left, delay, rate)]
    poller = select.epoll()
    for line in lines:
        poller.register(line.source.fileno(), select.EPOLLIN)
    print("ready", flush=True)
    while True:
        due = min((line.waiting[0][0] for line in lines if line.waiting), default=None)
        poller.poll(-1 if due is None else max(0.0, due - time.monotonic()))
        for line in lines:
            line.take()
            line.give()


main()
