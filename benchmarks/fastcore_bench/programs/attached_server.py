"""channels.py on fastcore within another loop: asyncio's or uvloop's serves the channels.

python -m fastcore run attached_server.py --host uvloop
"""

from __future__ import annotations

import argparse
import importlib

import channels
from serving import announce

from fastcore import aio


async def serve(options: argparse.Namespace) -> None:
    """Serve until standard input closes."""
    server = channels.make_server(options)
    with aio.attach() as attachment:
        announce(options, server.socket.getsockname()[1])
        await attachment.wait()


def main() -> None:
    """Read the arguments and serve on the loop that is asked for."""
    arguments = channels.make_parser()
    arguments.add_argument("--host", choices=("asyncio", "uvloop"), default="asyncio")
    options = arguments.parse_args()
    importlib.import_module(options.host).run(serve(options))


if __name__ == "__main__":
    main()
