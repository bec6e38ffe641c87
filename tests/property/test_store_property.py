"""Whatever user and client do to a few names in turn, no byte of the user's is ever lost."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.digest import digest_bytes
from manifests.paths import PRIVATE_FOLDER
from syncclient.store import Store
from syncclient.tree import FileStat

FOLDER = ("original", "0001")
NAMES = ("1.jpg", "11.png")
MTIME_NS = 1_600_000_000 * 10**9

# What happens, to which name.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["place", "place over", "place over stale", "remove", "remove stale", "write", "make"]
        ),
        st.sampled_from(NAMES),
    ),
    max_size=12,
)


class Tree:
    """A tree under a store, and what the user would miss."""

    def __init__(self, root: Path, store: Store) -> None:
        self.folder = root.joinpath(*FOLDER)
        self.trash = root / PRIVATE_FOLDER / "trash"
        self.store = store
        self.users: set[bytes] = set()
        self.stale: dict[str, FileStat] = {}
        self.serial = 0

    def stat(self, name: str) -> FileStat | None:
        path = self.folder / name
        if not path.is_file():
            return None
        info = path.stat()
        return FileStat(info.st_size, info.st_mtime_ns, info.st_ino)

    def fresh(self, who: str) -> bytes:
        self.serial += 1
        return f"{who} {self.serial}".encode()

    def step(self, action: str, name: str) -> None:
        path, now = self.folder / name, self.stat(name)
        if action == "write" and not path.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(data := self.fresh("user"))
            self.users.add(data)
        elif action == "make" and not path.exists():
            path.mkdir(parents=True)
            (path / "inside").write_bytes(data := self.fresh("user"))
            self.users.add(data)
        elif action.startswith("place"):
            replaces = {"place": None, "place over": now}.get(action, self.stale.get(name))
            self.place(name, replaces)
        elif action.startswith("remove"):
            expected = self.stale.get(name) if action == "remove stale" else now
            if expected is not None:
                gone = self.store.remove_expected(FOLDER, name, expected)
                assert gone == (expected == now)
        if now is not None:
            self.stale[name] = now

    def place(self, name: str, replaces: FileStat | None) -> None:
        data, path = self.fresh("release"), self.folder / name
        if replaces is not None and replaces == self.stat(name):
            # The plan says that this very file is ours.
            self.users.discard(path.read_bytes())
        there = path.exists()
        aside = self.store.place_bytes(FOLDER, name, data, digest_bytes(data), MTIME_NS, replaces)
        assert path.read_bytes() == data
        if aside is not None:
            assert there
            assert Path(aside.moved_to).exists()

    def everything(self) -> set[bytes]:
        found = [*self.folder.rglob("*"), *self.trash.rglob("*")]
        return {path.read_bytes() for path in found if path.is_file()}


@settings(max_examples=60)
@given(STEPS)
def test_nothing_of_the_users_is_lost(steps: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as scratch, Store(Path(scratch), "run") as store:
        tree = Tree(Path(scratch), store)
        for action, name in steps:
            if action == "write" and (old := tree.folder / name).is_file():
                # The user's own doing: what he writes over is not ours to keep.
                tree.users.discard(old.read_bytes())
            tree.step(action, name)
            assert tree.users <= tree.everything()
        staging = Path(scratch) / PRIVATE_FOLDER / "staging"
        assert [path for path in staging.rglob("*") if not path.is_dir()] == []
