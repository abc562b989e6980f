"""A window whose idle handler drives the loop.

The toolkit's main loop is in charge.  Every few milliseconds its `after` timer
calls `tick`, which lets the loop handle what is ready and returns at once
(`timeout=0, count=1`), so that neither loop ever holds the other up.
"""

import argparse
import socket
import tkinter

from fastcore import asyncore


class Feed(asyncore.dispatcher):
    """Sends one numbered line whenever the socket takes it, then closes."""

    def __init__(self, sock, count):
        super().__init__(sock)
        self.numbers = iter(range(1, count + 1))

    def readable(self):
        return False

    def handle_write(self):
        number = next(self.numbers, None)
        if number is None:
            self.close()
        else:
            self.send(b"line %d\n" % number)


class Reader(asyncore.dispatcher):
    """Passes each complete line to `show`, and says when there are no more."""

    def __init__(self, sock, show, finished):
        super().__init__(sock)
        self.show = show
        self.finished = finished
        self.partial = b""

    def writable(self):
        return False

    def handle_read(self):
        *lines, self.partial = (self.partial + self.recv(4096)).split(b"\n")
        for line in lines:
            self.show(line.decode())

    def handle_close(self):
        self.close()
        self.finished()


class Window:
    """A list of received lines above a button."""

    def __init__(self, interval):
        self.root = tkinter.Tk()
        self.root.title("lines from the network")
        self.lines = tkinter.Listbox(self.root, width=40, height=12)
        self.lines.pack(fill="both", expand=True)
        tkinter.Button(self.root, text="Close", command=self.root.destroy).pack()
        self.interval = interval
        self.ticks = 0
        self.root.after(self.interval, self.tick)

    def tick(self):
        """Give the loop a turn, and ask for the next one."""
        self.ticks += 1
        self.root.after(self.interval, self.tick)
        asyncore.loop(timeout=0, count=1)

    def show(self, line):
        """Add a line to the list."""
        self.lines.insert("end", line)


def main():
    """Show what arrives on a socket while the window stays usable."""
    parser = argparse.ArgumentParser(description="A window that drives the loop when idle.")
    parser.add_argument("--lines", type=int, default=10, help="how many lines to send")
    parser.add_argument("--interval", type=int, default=10, help="milliseconds between turns")
    parser.add_argument("--close", action="store_true", help="close when all lines are there")
    options = parser.parse_args()
    window = Window(options.interval)

    def finished():
        window.root.update_idletasks()
        print(f"the window shows {window.lines.size()} lines", flush=True)
        if options.close:
            window.root.destroy()

    near, far = socket.socketpair()
    Feed(far, options.lines)
    Reader(near, window.show, finished)
    window.root.mainloop()
    asyncore.close_all()


if __name__ == "__main__":
    main()
