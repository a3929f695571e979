"""The way between regions: a program that carries IP packets, late, sometimes not at all.

It stands where `tc netem` would, which many kernels are built without. Each region's network
namespace has a TUN device whose packets come here; a packet leaves on the device of the region that
it is for, after the delay of that direction, unless the direction is cut or the packet is lost.
What TCP makes of that (retransmission, time-outs, half-open connections) is the kernel's own.

Run as `python -m heliostat_federation.wan PREFIX COUNT [--seed N]`. It prints a line when the
devices PREFIX0, PREFIX1, ... are there. Lines on its standard input set directions, as `Way` in
JSON, and are answered one by one; it ends with its standard input.
"""

import argparse
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import asdict, dataclass

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PACKET_BYTES = 65536
_LONGEST_QUEUE = 20_000
"""Packets under way in one direction; what comes beyond is dropped, as a router's buffer does."""
_READS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Way:
    """One direction between two regions, by their numbers."""

    source: int
    target: int
    delay_seconds: float
    loss_ratio: float = 0.0
    is_cut: bool = False

    def to_json(self) -> str:
        """One line for the program."""
        return json.dumps(asdict(self))


@dataclass(slots=True)
class _Queue:
    """The packets under way in one direction, in order."""

    way: Way
    length: int = 0
    last_due_at: float = 0.0


class Wan:
    """The devices, and what is under way between them."""

    def __init__(self, prefix: str, count: int, seed: int) -> None:
        self._devices = [_open_device(f"{prefix}{number}") for number in range(count)]
        self._random = random.Random(seed)
        self._under_way: list[tuple[float, int, _Queue, bytes]] = []
        self._queues = {
            (source, target): _Queue(Way(source, target, 0.0))
            for source in range(count)
            for target in range(count)
        }
        self._sequence = 0
        self._commands = open(0, "rb", buffering=0)  # noqa: SIM115 - for as long as this runs

    def run(self) -> None:
        """Carry packets until standard input ends."""
        commands = self._commands.fileno()
        waiting = {device: number for number, device in enumerate(self._devices)}
        while True:
            ready, _, _ = select.select([commands, *waiting], [], [], self._wait_seconds())
            for file in ready:
                if file == commands:
                    if not self._obey():
                        return
                else:
                    self._take(waiting[file])
            self._deliver()

    def _wait_seconds(self) -> float | None:
        if not self._under_way:
            return None
        return max(0.0, self._under_way[0][0] - time.monotonic())

    def _obey(self) -> bool:
        """Take one line of standard input, which is not buffered; False at its end."""
        line = self._commands.readline()
        if not line:
            return False
        way = Way(**json.loads(line))
        self._queues[way.source, way.target].way = way
        sys.stdout.write("ok\n")
        sys.stdout.flush()
        return True

    def _take(self, source: int) -> None:
        now = time.monotonic()
        for _ in range(_READS_AT_ONCE):
            try:
                packet = os.read(self._devices[source], _PACKET_BYTES)
            except BlockingIOError:
                return
            self._send(source, packet, now)

    def _send(self, source: int, packet: bytes, now: float) -> None:
        if packet[0] >> 4 != 4:
            return
        target = packet[19] - 1  # the last byte of the receiver's address: `address_of`
        queue = self._queues.get((source, target))
        if queue is None or queue.way.is_cut or queue.length >= _LONGEST_QUEUE:
            return
        if self._random.random() < queue.way.loss_ratio:
            return
        queue.last_due_at = max(queue.last_due_at, now + queue.way.delay_seconds)
        queue.length += 1
        self._sequence += 1
        heapq.heappush(self._under_way, (queue.last_due_at, self._sequence, queue, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, _, queue, packet = heapq.heappop(self._under_way)
            queue.length -= 1
            if queue.way.is_cut:
                continue
            try:
                os.write(self._devices[queue.way.target], packet)
            except OSError:
                continue  # the region's device is down: nobody is there


def _open_device(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def main() -> None:
    """Parse the command line and carry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix")
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wan = Wan(options.prefix, options.count, options.seed)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    wan.run()


if __name__ == "__main__":
    main()
