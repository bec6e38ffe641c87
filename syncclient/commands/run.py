"""What the verbs that change a tree have in common: open, survey, guard, carry out, report."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from manifests.errors import ExitCode
from manifests.model import Descriptor
from syncclient.commands.options import deletion_limits
from syncclient.commands.telling import plan_summary, tell_plan, tell_report
from syncclient.display import Display
from syncclient.events import Listener
from syncclient.hatch import workers_worth
from syncclient.look import Look, Wish
from syncclient.output import Output
from syncclient.selection import Selection
from syncclient.session import Session

# More files than anybody has doubts about.
_MANY = 10**6


def run_async(body: Callable[[Listener], Coroutine[Any, Any, ExitCode]], out: Output) -> ExitCode:
    """Run a verb's body with a display; SIGTERM ends it like Ctrl-C."""
    display = Display(out, terminal=sys.stderr.isatty())

    async def main() -> ExitCode:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):
            if task is not None:
                loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await body(display)
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    try:
        return asyncio.run(main())
    finally:
        display.close()


async def wish_of(args: argparse.Namespace, descriptor: Descriptor, session: Session) -> Wish:
    """What a verb's flags ask for; a query is answered for that, from the cache or a host."""
    share, count = deletion_limits(args.max_delete)
    selection = session.config.selection
    if selection.query:
        # The tag index takes a while to load.
        from syncclient.searching import resolve  # noqa: PLC0415

        selection = await resolve(session, descriptor, selection)
    return Wish(
        descriptor=descriptor,
        selection=selection,
        delete=getattr(args, "delete", False),
        max_delete_share=share,
        max_delete_files=count,
        quick=args.quick,
        refetch=args.yes,
        locals=tuple(Path(folder) for folder in session.transport.locals),
    )


def workers_likely(selection: Selection, jobs: int) -> int:
    """The worker processes that a clone will take, before anything is known of the release.

    Nobody clones a dataset of a few files often, and processes that were not needed cost little.
    """
    return workers_worth(_MANY if selection.ids is None else len(selection.ids), 0, jobs)


def workers_needed(wish: Wish, jobs: int, since: str) -> int:
    """The worker processes that an upgrade will take, as far as its release tells.

    What is new is what lies above the layer of the release that is here, ``since``.
    """
    layers = list(wish.descriptor.layers)
    known = [number for number, layer in enumerate(layers, 1) if layer.name == since]
    chosen = wish.selection.variants_of(wish.descriptor.variants)
    refs = [
        layer.manifests[name]
        for layer in layers[max(known, default=0) :]
        for name in chosen
        if name in layer.manifests
    ]
    files = sum(ref.entries for ref in refs)
    if wish.selection.ids is not None:
        return workers_worth(min(files, len(wish.selection.ids)), 0, jobs)
    return workers_worth(files, sum(ref.file_bytes for ref in refs), jobs)


Between = Callable[[Look], Awaitable[None]]


async def bring_about(
    session: Session,
    wish: Wish,
    out: Output,
    *,
    dry_run: bool,
    between: Between | None = None,
) -> ExitCode:
    """Survey, tell, guard, carry out; the summary is kept in ``out``.

    ``between`` is called when the survey is done.  What is wished becomes the tree's own setting
    when the guards have let it pass.
    """
    async with Look(session, wish) as look:
        await look.look()
        if between is not None:
            await between(look)
        await tell_plan(session, look, out)
        if dry_run:
            out.summary(**plan_summary(look))
            return ExitCode.COMPLETE
        look.check_guards()
        await session.keep(replace(session.config, release=wish.descriptor.release))
        try:
            report = await look.carry_out()
        finally:
            out.summary(**look.report.summary())
        tell_report(report, look, out)
        return report.exit_code
