"""The folder discovery on a real folder: what is written there is what the router gets."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from heliostat_extproc.discovery.folder import FolderDiscovery
from heliostat_extproc.discovery.snapshot import Snapshot

DEADLINE_SECONDS = 10.0


def manifest(name: str, model: str | None = None, address: str = "10.0.0.1:8000") -> str:
    return (
        "apiVersion: heliostat.dev/v1alpha1\n"
        "kind: InferencePool\n"
        f"metadata: {{name: {name}}}\n"
        "spec:\n"
        f"  model: {{name: {model or name}}}\n"
        f"  endpoints: [{{address: '{address}'}}]\n"
    )


def keys(snapshot: Snapshot) -> list[str]:
    return [pool.key for pool in snapshot.pools]


def addresses(snapshot: Snapshot) -> list[str]:
    return [endpoint.address for pool in snapshot.pools for endpoint in pool.endpoints]


class Watch:
    """Reads snapshots until one is as expected, within a deadline."""

    def __init__(self, snapshots: AsyncIterator[Snapshot]) -> None:
        self._snapshots = snapshots
        self.seen: list[Snapshot] = []

    async def until(self, expected: Callable[[Snapshot], bool]) -> Snapshot:
        async with asyncio.timeout(DEADLINE_SECONDS):
            async for snapshot in self._snapshots:
                self.seen.append(snapshot)
                if expected(snapshot):
                    return snapshot
        raise AssertionError("the watch ended")


@asynccontextmanager
async def watching(folder: Path, resync_seconds: float = 60.0) -> AsyncIterator[Watch]:
    """Watch with a resync so late that only the file system's own notices count."""
    discovery = FolderDiscovery(folder, resync_seconds=resync_seconds)
    async with aclosing(discovery.watch()) as snapshots:
        yield Watch(snapshots)


async def test_the_first_snapshot_holds_the_whole_folder(tmp_path: Path) -> None:
    """All manifests are read before anything is told; other and hidden files are left alone."""
    (tmp_path / "b.yaml").write_text(manifest("b"))
    (tmp_path / "a.yml").write_text(manifest("a") + "---\n" + manifest("a2"))
    (tmp_path / "notes.txt").write_text("{")
    (tmp_path / ".b.yaml.swp").write_text("{")
    (tmp_path / ".hidden.yaml").write_text("{")
    (tmp_path / "folder.yaml").mkdir()
    async with watching(tmp_path) as watch:
        first = await watch.until(lambda _: True)
    assert keys(first) == ["a", "a2", "b"]
    assert first.problems == ()


async def test_an_empty_folder_is_a_whole_truth_too(tmp_path: Path) -> None:
    """A folder without manifests gives a snapshot without pools."""
    async with watching(tmp_path) as watch:
        assert await watch.until(lambda _: True) == Snapshot()


async def test_files_may_come_change_and_go(tmp_path: Path) -> None:
    """Adding, changing and removing a file add, change and remove its pools."""
    async with watching(tmp_path) as watch:
        await watch.until(lambda s: keys(s) == [])
        (tmp_path / "a.yaml").write_text(manifest("a"))
        await watch.until(lambda s: keys(s) == ["a"])
        (tmp_path / "a.yaml").write_text(manifest("a", address="10.0.0.2:8000"))
        await watch.until(lambda s: addresses(s) == ["10.0.0.2:8000"])
        (tmp_path / "a.yaml").unlink()
        await watch.until(lambda s: s == Snapshot())


async def test_a_bad_file_keeps_its_last_good_version(tmp_path: Path) -> None:
    """While a file is wrong its pools stay as they were, and the problem says where it is."""
    file = tmp_path / "a.yaml"
    file.write_text(manifest("a"))
    async with watching(tmp_path) as watch:
        await watch.until(lambda s: keys(s) == ["a"])
        file.write_text(manifest("a", address="10.0.0.256:8000"))
        bad = await watch.until(lambda s: bool(s.problems) and "a.yaml:6:" in s.problems[0])
        assert addresses(bad) == ["10.0.0.1:8000"]
        assert str(bad.problems[0]).startswith("a.yaml:6: spec.endpoints[0].address: ")
        file.write_text(manifest("a", address="10.0.0.3:8000"))
        mended = await watch.until(lambda s: not s.problems)
        assert addresses(mended) == ["10.0.0.3:8000"]
    assert all(keys(snapshot) == ["a"] for snapshot in watch.seen)


async def test_a_bad_file_without_a_good_version_serves_nothing(tmp_path: Path) -> None:
    """A file that was never right adds no pool; the others are served."""
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "b.yaml").write_text(manifest("b"))
    os.mkfifo(tmp_path / "c.yaml")
    async with watching(tmp_path) as watch:
        first = await watch.until(lambda _: True)
    assert keys(first) == ["b"]
    assert [str(problem) for problem in first.problems] == [
        "a.yaml: not UTF-8: byte 0 is 0xff",
        "c.yaml: not a regular file",
    ]


async def test_a_file_may_be_renamed_into_place(tmp_path: Path) -> None:
    """What editors and careful tools do, write aside and rename, shows only whole versions."""
    (tmp_path / "a.yaml").write_text(manifest("a"))
    async with watching(tmp_path) as watch:
        await watch.until(lambda s: keys(s) == ["a"])
        for octet in (2, 3, 4):
            aside = tmp_path / ".a.yaml.new"
            aside.write_text(manifest("a", address=f"10.0.0.{octet}:8000"))
            aside.rename(tmp_path / "a.yaml")
        await watch.until(lambda s: addresses(s) == ["10.0.0.4:8000"])
    assert all(not snapshot.problems and keys(snapshot) == ["a"] for snapshot in watch.seen)


async def test_a_file_cut_short_keeps_its_pools(tmp_path: Path) -> None:
    """A file emptied before it is written again loses nothing, however long that takes."""
    file = tmp_path / "a.yaml"
    file.write_text(manifest("a"))
    async with watching(tmp_path) as watch:
        await watch.until(lambda s: keys(s) == ["a"])
        file.write_text("")
        emptied = await watch.until(lambda s: bool(s.problems))
        assert keys(emptied) == ["a"]
        file.write_text(manifest("a", address="10.0.0.2:8000"))
        await watch.until(lambda s: not s.problems and addresses(s) == ["10.0.0.2:8000"])


def project(folder: Path, version: str, files: dict[str, str]) -> None:
    """Change a folder as the kubelet changes a mounted ConfigMap: one link is swapped."""
    data = folder / f"..{version}"
    data.mkdir()
    for name, text in files.items():
        (data / name).write_text(text)
    link = folder / "..data_tmp"
    link.symlink_to(data.name)
    before = (folder / "..data").resolve()
    link.rename(folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    for entry in folder.glob("*.yaml"):
        if entry.name not in files:
            entry.unlink()
    if before.name.startswith("..") and before.name != "..data":
        shutil.rmtree(before)


async def test_a_config_map_is_followed(tmp_path: Path) -> None:
    """The swap of a ConfigMap's link brings all its files' new versions."""
    project(tmp_path, "1", {"a.yaml": manifest("a"), "b.yaml": manifest("b")})
    async with watching(tmp_path) as watch:
        await watch.until(lambda s: keys(s) == ["a", "b"])
        project(tmp_path, "2", {"a.yaml": manifest("a", address="10.0.0.2:8000")})
        after = await watch.until(lambda s: keys(s) == ["a"] and not s.problems)
        assert addresses(after) == ["10.0.0.2:8000"]


async def test_a_folder_may_come_later(tmp_path: Path) -> None:
    """Before the folder exists nothing is told; then everything in it is."""
    folder = tmp_path / "pools"
    async with watching(folder) as watch:
        first = asyncio.ensure_future(watch.until(lambda _: True))
        await asyncio.wait([first], timeout=0.3)
        assert not first.done()
        aside = tmp_path / "aside"
        aside.mkdir()
        (aside / "a.yaml").write_text(manifest("a"))
        aside.rename(folder)
        assert keys(await first) == ["a"]


async def test_a_folder_that_vanishes_keeps_its_pools_until_it_is_back(tmp_path: Path) -> None:
    """A folder that cannot be read is a problem, not an order to remove all; its return counts."""
    folder = tmp_path / "pools"
    folder.mkdir()
    (folder / "a.yaml").write_text(manifest("a"))
    async with watching(folder) as watch:
        await watch.until(lambda s: keys(s) == ["a"])
        folder.rename(tmp_path / "gone")
        gone = await watch.until(lambda s: bool(s.problems))
        assert keys(gone) == ["a"]
        assert "the folder cannot be read: No such file or directory" in str(gone.problems[0])
        folder.mkdir()
        (folder / "b.yaml").write_text(manifest("b"))
        await watch.until(lambda s: keys(s) == ["b"] and not s.problems)
        (folder / "c.yaml").write_text(manifest("c"))
        await watch.until(lambda s: keys(s) == ["b", "c"])


async def test_a_folder_removed_and_made_again_at_once_is_followed(tmp_path: Path) -> None:
    """The watch moves to the new folder, even one that got the old one's inode."""
    folder = tmp_path / "pools"
    folder.mkdir()
    (folder / "a.yaml").write_text(manifest("a"))
    async with watching(folder) as watch:
        await watch.until(lambda s: keys(s) == ["a"])
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "b.yaml").write_text(manifest("b"))
        await watch.until(lambda s: keys(s) == ["b"])
        (folder / "c.yaml").write_text(manifest("c"))
        await watch.until(lambda s: keys(s) == ["b", "c"])


async def test_a_path_that_leads_elsewhere_is_followed_at_the_resync(tmp_path: Path) -> None:
    """Where nothing tells of a change, the next look finds it and the watch moves there."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(manifest(name))
    link = tmp_path / "pools"
    link.symlink_to("one")
    async with watching(link, resync_seconds=0.1) as watch:
        await watch.until(lambda s: keys(s) == ["one"])
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").rename(link)
        await watch.until(lambda s: keys(s) == ["two"])


async def test_what_changes_nothing_is_not_told(tmp_path: Path) -> None:
    """Writing the same again, or a comment, gives no snapshot."""
    file = tmp_path / "a.yaml"
    file.write_text(manifest("a"))
    async with watching(tmp_path, resync_seconds=0.05) as watch:
        await watch.until(lambda s: keys(s) == ["a"])
        waiting = asyncio.ensure_future(watch.until(lambda _: True))
        aside = tmp_path / ".aside"
        aside.write_text("# a comment\n" + manifest("a"))
        aside.rename(file)
        await asyncio.wait([waiting], timeout=0.5)
        assert not waiting.done()
        (tmp_path / "b.yaml").write_text(manifest("b"))
        assert keys(await waiting) == ["a", "b"]


async def test_a_watch_that_is_cancelled_ends_at_once(tmp_path: Path) -> None:
    """Cancelling whoever reads the snapshots leaves no task behind."""
    before = asyncio.all_tasks()
    started = asyncio.Event()

    async def follow() -> None:
        async with aclosing(FolderDiscovery(tmp_path).watch()) as snapshots:
            async for _ in snapshots:
                started.set()

    task = asyncio.ensure_future(follow())
    async with asyncio.timeout(DEADLINE_SECONDS):
        await started.wait()
        task.cancel()
        await asyncio.wait([task])
    assert asyncio.all_tasks() == before
