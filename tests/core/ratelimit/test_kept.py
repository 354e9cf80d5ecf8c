import asyncio

from mxweir.config import loads
from mxweir.events import Notice, Trouble
from mxweir.facts import Folder
from mxweir.ratelimit.kept import Kept
from mxweir.ratelimit.limits import Limits
from mxweir.testing import Recorder, question

NOW = 1_800_000_000.0
FOLDER = Folder()


def limits() -> Limits:
    return Limits(loads('[[limit]]\nname = "n"\nkey = "sender"\nrate = "3/day"').limit, FOLDER)


def kept(path, counted):
    told = Recorder()
    return Kept(path, lambda: counted, lambda: NOW, told), told


def used(counted) -> int:
    return sum(1 for _, rows in counted.rows(NOW) for _ in rows)


def test_what_one_process_saved_the_next_one_goes_on_with(tmp_path):
    before, after = limits(), limits()
    before.decide(question(), NOW)
    kept(tmp_path / "n.state", before)[0].save()
    loading, told = kept(tmp_path / "n.state", after)
    loading.load()
    assert used(after) == 1
    assert told.events == [Notice("counters loaded", {"count": 1})]


def test_where_there_are_no_limits_nothing_is_read_or_written(tmp_path):
    path = tmp_path / "n.state"
    path.write_text("of somebody else")
    keeping, told = kept(path, None)
    keeping.load()
    keeping.save()
    assert path.read_text() == "of somebody else"
    assert told.events == []


def test_a_damaged_file_is_put_aside_and_a_full_disk_is_told(tmp_path):
    path = tmp_path / "n.state"
    path.write_text("nonsense")
    keeping, told = kept(path, limits())
    keeping.load()
    assert [file.name for file in tmp_path.iterdir()] == ["n.broken"]
    elsewhere, told_later = kept(tmp_path / "nowhere" / "n.state", limits())
    elsewhere.save()
    told.events += told_later.events
    assert [event.what for event in told.events if isinstance(event, Trouble)] == [
        "counters not loaded",
        "counters not saved",
    ]


def test_the_limits_in_force_are_saved_whichever_they_are_by_then(tmp_path):
    in_force: list[Limits | None] = [None]
    path = tmp_path / "n.state"
    keeping = Kept(path, lambda: in_force[0], lambda: NOW, Recorder())

    async def saved() -> None:
        saving = asyncio.create_task(keeping.save_often(0.0))
        await asyncio.sleep(0)
        in_force[0] = limits()
        async with asyncio.timeout(20):
            while not path.exists():  # noqa: ASYNC110 - a file is waited for
                await asyncio.sleep(0)
        saving.cancel()

    asyncio.run(saved())
