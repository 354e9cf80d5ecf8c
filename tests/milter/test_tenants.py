import lmdb
import pytest

from mxweir.domains.match import digest
from mxweir.domains.reader import POSTGRES, RECORDS
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir.testing import Recorder
from mxweir_milter.tenants import Tenants


def write(path, *records):
    environment = lmdb.open(str(path), subdir=False, map_size=2**24, max_dbs=2)
    database = environment.open_db(RECORDS)
    with environment.begin(write=True, db=database) as transaction:
        for record in records:
            transaction.put(digest(record.domain), record.encode())
    environment.close()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def tenants(tmp_path, recorder):
    made = Tenants(tmp_path, recorder)
    made.open()
    return made


def test_nothing_is_opened_before_somebody_needs_it(tmp_path):
    write(tmp_path / POSTGRES, Record("example.org", "", True, FROM_POSTGRES, True, "acme"))
    tenants = Tenants(tmp_path, Recorder())
    tenants.tick()
    assert tenants.of("example.org") == ""
    tenants.open()
    assert tenants.of("example.org") == "acme"


def test_without_a_table_nobody_has_a_tenant(tenants):
    tenants.tick()
    assert tenants.of("example.org") == ""


def test_a_table_that_comes_later_tells_the_tenant_from_the_next_tick(tmp_path, tenants):
    write(tmp_path / POSTGRES, Record("example.org", "", True, FROM_POSTGRES, True, "acme"))
    tenants.tick()
    assert tenants.of("example.org") == "acme"
    assert tenants.of("sub.example.org") == "acme"
    assert tenants.of("example.com") == ""


def test_a_table_that_cannot_be_read_is_told_once_and_one_in_its_place_is_read(tmp_path, tenants, recorder):
    (tmp_path / POSTGRES).write_bytes(b"no table of LMDB" * 1000)
    tenants.tick()
    tenants.tick()
    assert [event.what for event in recorder.events] == ["tenants not read"]
    assert tenants.of("example.org") == ""
    write(tmp_path / "new", Record("example.org", "", True, FROM_POSTGRES, True, "acme"))
    (tmp_path / "new").rename(tmp_path / POSTGRES)
    tenants.tick()
    assert tenants.of("example.org") == "acme"
    assert len(recorder.events) == 1
