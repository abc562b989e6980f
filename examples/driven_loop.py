"""A program with work of its own that lets the loop have a turn now and then.

`loop(timeout, count=1)` waits at most `timeout` seconds, handles what is
ready, and returns, so that a program that already has a main loop keeps it.
Here the main loop looks for prime numbers while two ends of a socket pair
play a number back and forth.
"""

import argparse
import socket

from fastcore import asyncore


class Player(asyncore.dispatcher):
    """Answers each number with the next one, until `last` has been reached."""

    def __init__(self, sock, name, last):
        super().__init__(sock)
        self.name = name
        self.last = last
        self.turns = 0
        self.unsent = b""
        self.partial = b""

    def serve(self):
        """Play the first ball."""
        self.unsent = b"1\n"

    def writable(self):
        return bool(self.unsent)

    def handle_write(self):
        self.unsent = self.unsent[self.send(self.unsent) :]

    def handle_read(self):
        *lines, self.partial = (self.partial + self.recv(1024)).split(b"\n")
        for line in lines:
            self.turns += 1
            number = int(line)
            if number == self.last:
                self.close()
            else:
                self.unsent += b"%d\n" % (number + 1)

    def handle_close(self):
        self.close()


def primes():
    """All prime numbers, one at a time: the work the program would do anyway."""
    found = []
    candidate = 2
    while True:
        if all(candidate % prime for prime in found):
            found.append(candidate)
            yield candidate
        candidate += 1


def main():
    """Alternate between our own work and one turn of the loop."""
    parser = argparse.ArgumentParser(description="Drive the loop from a loop of one's own.")
    parser.add_argument("--turns", type=int, default=200, help="how far the players count")
    options = parser.parse_args()
    if options.turns < 1:
        parser.error("--turns must be at least 1")
    left, right = socket.socketpair()
    players = Player(left, "left", options.turns), Player(right, "right", options.turns)
    players[0].serve()
    work = primes()
    steps = 0
    while asyncore.socket_map:
        prime = next(work)
        steps += 1
        asyncore.loop(timeout=0.05, count=1)
    for player in players:
        print(f"{player.name}: {player.turns} turns")
    print(f"meanwhile: {steps} primes, the largest {prime}")


if __name__ == "__main__":
    main()
