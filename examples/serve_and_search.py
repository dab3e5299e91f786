"""Index and search a folder of videos through a Triton server, which this script starts and stops.

    hero-export triton BUNDLE --out REPOSITORY
    python -m hero_sdk.serve --setup
    python examples/serve_and_search.py REPOSITORY VIDEOS "the robot takes the red gem"

An application does not start its server; it connects to the address of one that runs, and does the rest as here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from search_folder import index_and_search, print_moments

import hero_sdk
from hero_sdk.serve import running_server


def main() -> None:
    """Read the command line, serve and search."""
    parser = argparse.ArgumentParser(description="Index a folder of videos and search it, through a Triton server.")
    parser.add_argument("repository", type=Path, help="what `hero-export triton` wrote")
    parser.add_argument("videos", type=Path, help="folder with videos, at any depth")
    parser.add_argument("sentence", help="what happens in the moment")
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpus"), help="folder of the corpus (default: %(default)s)"
    )
    chosen = parser.parse_args()
    with running_server(chosen.repository) as server, hero_sdk.connect(server.grpc_url) as hero:
        print_moments(index_and_search(hero, chosen.videos, chosen.corpus, chosen.sentence))


if __name__ == "__main__":
    main()
