"""A client of the daemon as a process of its own, so that it can be killed: builds the Dockerfile of a directory.

python -m support.client_process ADDRESS DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

from support.buildkit_client import Client, Offers


def main() -> None:
    address, folder = sys.argv[1], Path(sys.argv[2])
    offers = Offers(dirs={"context": folder, "dockerfile": folder})
    with Client(address) as client, client.session(offers) as session:
        client.dockerfile(session)


if __name__ == "__main__":
    main()
