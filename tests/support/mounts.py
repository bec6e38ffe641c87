"""Small disks of their own: for what happens when one is full, broken, read-only or cut off power.

A :class:`Disk` is ext4 in an image on a loop device.  Its power can fail: what the kernel has not
written to the image by then is gone, as after pulling the plug (the ioctl that xfstests uses).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.needs import path_of

# linux/ext4.h: EXT4_IOC_SHUTDOWN is _IOR('X', 125, __u32); 2 is EXT4_GOING_FLAGS_NOLOGFLUSH.
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)
_STEPS = (2**26, 2**20, 2**12, 1)


def _run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    name, *rest = map(str, words)
    command = [path_of(name), *rest]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _detach(folder: Path) -> None:
    subprocess.run([path_of("umount"), "--lazy", str(folder)], check=True)


@contextmanager
def tmpfs(folder: Path, *, size_bytes: int, options: str = "") -> Iterator[Path]:
    """Mount a file system of that size until the end of the context.

    Skips the test, and says why, where this user may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = ",".join(filter(None, [f"size={size_bytes}", options]))
    if _run("mount", "-t", "tmpfs", "-o", chosen, "tmpfs", folder).returncode != 0:
        pytest.skip(f"a small disk can only be mounted by root (user {os.geteuid()})")
    try:
        yield folder
    finally:
        _detach(folder)


@dataclass(kw_only=True)
class Disk:
    """An image of ext4, where it is mounted, with which options; made by :func:`ext4`."""

    image: Path
    folder: Path
    options: str
    # What stands for the machine's boot: another one after each power failure.
    boot: str = field(default_factory=lambda: str(uuid.uuid4()))

    def mount(self, extra: str = "") -> None:
        """Mount it, with more options if need be; OSError where that cannot be."""
        options = ",".join(filter(None, ["loop", self.options, extra]))
        done = _run("mount", "-t", "ext4", "-o", options, self.image, self.folder)
        if done.returncode != 0:
            raise OSError(errno.EIO, done.stderr, str(self.folder))

    def unmount(self) -> None:
        """Unmount it, when nobody uses it any more, and wait until the image is let go of."""
        while _run("umount", self.folder).returncode != 0 and os.path.ismount(self.folder):
            os.sched_yield()
        while _run("losetup", "-j", self.image).stdout:
            os.sched_yield()

    def commit_names(self) -> None:
        """Have the journal written, as happens by itself every five seconds.

        Names, sizes and times are on the disk then; bytes of files need not be.
        """
        path = self.folder / ".journal"
        with path.open("wb") as file:
            os.fsync(file.fileno())
        path.unlink()

    def lose_power(self) -> None:
        """Cut the power: from now on nothing is written, and every access is an I/O error."""
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(fd)

    def start_again(self) -> None:
        """Mount what the image holds, in a new boot of the machine; nobody may use it."""
        self.unmount()
        self.boot = str(uuid.uuid4())
        self.mount()


@contextmanager
def ext4(
    folder: Path, *, size_bytes: int, options: str = "", flags: tuple[str, ...] = ()
) -> Iterator[Disk]:
    """An ext4 file system until the end of the context; ``flags`` are those of mkfs.

    Skips the test, and says why, where there are no loop devices for this user.
    """
    image = folder.with_name(folder.name + ".img")
    folder.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(size_bytes)
    disk = Disk(image=image, folder=folder, options=options)
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    # Blocks as those of large disks: in smaller ones SQLite's shared memory has holes, which a
    # full disk turns into SIGBUS.
    common = ("-q", "-F", "-m", "0", "-b", "4096", "-E", lazy)
    made = _run("mkfs.ext4", *common, *flags, image)
    try:
        assert made.returncode == 0, made.stderr
        disk.mount()
    except OSError as error:
        pytest.skip(f"ext4 on a loop device can only be mounted by root: {error.strerror}")
    try:
        yield disk
    finally:
        with suppress(FileNotFoundError):
            _detach(folder)


@contextmanager
def small_disk(folder: Path, *, size_bytes: int) -> Iterator[Path]:
    """A real small file system: ext4 on a loop device, or tmpfs where that cannot be."""
    with ExitStack() as stack:
        try:
            stack.enter_context(ext4(folder, size_bytes=size_bytes))
        except (pytest.skip.Exception, FileNotFoundError):
            stack.enter_context(tmpfs(folder, size_bytes=size_bytes))
        yield folder


def fill(folder: Path, name: str = "filler") -> Path:
    """Take all room of the file system of ``folder``, by a file that is returned."""
    path = folder / name
    with path.open("wb") as file:
        for step in _STEPS:
            with suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
    return path


def in_boot(disk: Disk, *words: str) -> list[str]:
    """A command line that runs another one in the disk's boot of the machine, by the same pid."""
    boot = disk.image.with_suffix(".boot")
    boot.write_text(disk.boot + "\n")
    script = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(boot), *words]


@contextmanager
def bound(source: Path, place: Path) -> Iterator[None]:
    """Show a file at the place of another until the end of the context; skips as above."""
    if _run("mount", "--bind", source, place).returncode != 0:
        pytest.skip(f"files can only be mounted by root (user {os.geteuid()})")
    try:
        yield
    finally:
        _detach(place)
