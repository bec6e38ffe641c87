"""Make ``docs/images/demo.svg``, the picture in the README: what ``make demo`` prints.

    python -m docs.make_picture [--posts N]

Runs the demo for real, in a scratch folder that is removed afterwards, and keeps what it prints.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console

from docs.examples.demo import Demo, fetch, publish, select

PATH = Path(__file__).parent / "images" / "demo.svg"
# The table of the demo fits; anything wider would be shown in smaller letters.
COLUMNS = 80
POSTS = 600


def record(root: Path, posts: int) -> Console:
    """Run the demo in ``root``; the console it spoke to."""
    console = Console(record=True, width=COLUMNS)
    demo = Demo(root, console)
    trees = publish(demo, posts)
    with demo.serving(root / "repo") as url:
        fetch(demo, url, trees)
        select(demo, url, trees)
    demo.table()
    return console


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--posts", type=int, default=POSTS, help="posts of the first year")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        console = record(Path(scratch).resolve(), args.posts)
    PATH.parent.mkdir(exist_ok=True)
    # A fixed id, so that two pictures differ only where the runs do.
    console.save_svg(str(PATH), title="make demo", unique_id="demo")


if __name__ == "__main__":
    main()
