"""What the keeper of Postfix's tables goes by."""

from contextlib import closing
from pathlib import Path

from mxweir.domains.match import digest
from mxweir.domains.reader import HERE
from mxweir.domains.record import FROM_COMMAND, FROM_POSTGRES, Record
from mxweir_policyd.postfix.source import Tables
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.replica import Replica


def given(directory: Path) -> None:
    with closing(Replica(directory)) as replica:
        replica.add([Record("given.example")], FROM_COMMAND)


def test_beside_a_replica_nothing_is_taken_out_while_the_table_of_this_host_is_away(tmp_path: Path) -> None:
    record = Record("followed.example", origins=FROM_POSTGRES)
    with closing(Mirror(tmp_path)) as mirror:
        mirror.begin(("here/1", "3", 0.0))
        mirror.fill([(digest(record.domain), record.encode())])
        mirror.update(filled=True)
    with closing(Tables(tmp_path, postgres=True)) as tables:
        assert tables.whole(), "nothing was given on this host yet"
        given(tmp_path)
        assert tables.changed() is None
        assert tables.whole()
        (tmp_path / HERE).unlink()
        assert tables.changed() is None
        assert not tables.whole()
        given(tmp_path)
        assert tables.changed() is None
        assert tables.whole()
