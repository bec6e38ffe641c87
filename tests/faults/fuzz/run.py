"""Fuzz one target with atheris for some time; exit code 0 if nothing was found.

    python -m tests.faults.fuzz.run TARGET --seconds N --found FOLDER [--corpus FOLDER]

A finding is written to FOLDER as libFuzzer names it.  Memory and the time of one input are bounded
by libFuzzer, so a reader that takes too much of either is a finding too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

from tests.faults.fuzz.reshape import Form

MEMORY_MB = 700
# Of the wall, on a machine that others use too.
SECONDS_AN_INPUT = 25
LONGEST_INPUT = 4096
VECTORS = Path(__file__).parents[1] / "vectors"


def mutator_of(form: Form | None) -> Callable[[bytes, int, int], bytes] | None:
    """Every other mutation is one of the document rather than of its bytes."""
    if form is None:
        return None

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        if seed % 2:
            data = form.reshape(data, seed)
            if len(data) <= max_size:
                return data
        mutated: bytes = atheris.Mutate(data, max_size)
        return mutated

    return mutate


def main() -> None:
    """Run; never returns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--corpus", type=Path)
    args = parser.parse_args()
    with atheris.instrument_imports(include=["manifests", "syncclient", "server"]):
        from tests.faults.fuzz.targets import TARGETS, attempt  # noqa: PLC0415 (instrumented)
    target = TARGETS[args.target]
    with tempfile.TemporaryDirectory() as scratch:
        corpus = args.corpus or Path(scratch)
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        flags = (
            f"-max_total_time={args.seconds}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-timeout={SECONDS_AN_INPUT}",
            f"-max_len={LONGEST_INPUT}",
            f"-artifact_prefix={args.found}/",
            "-print_final_stats=1",
        )
        folders = [str(corpus)]
        vectors = VECTORS / args.target
        if vectors.is_dir():
            folders.append(str(vectors))
        atheris.Setup(
            [sys.argv[0], *flags, *folders],
            lambda data: attempt(target, data),
            custom_mutator=mutator_of(target.form),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
