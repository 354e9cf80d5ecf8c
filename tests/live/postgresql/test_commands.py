"""`mxweir domains` with [postgres]: the table is the truth, whoever asks."""

import json
import threading

import psycopg
import pytest

from mxweir_ops.cli import main


@pytest.fixture
def mxweir(tmp_path, database, capsys):
    """Runs a command with the configuration of an empty database; its status, and what it printed."""
    config = tmp_path / "mxweir.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n[postgres]\ndsn = "{database}"\n')

    def run(*words, name="domains"):
        status = main([name, words[0], "--config", str(config), *words[1:]])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


@pytest.fixture
def ready(mxweir):
    assert mxweir("init")[0] == 0
    return mxweir


def exported(mxweir) -> set[str]:
    return set(mxweir("export")[1].splitlines())


def test_the_schema_is_made_once_and_brought_up_to_date(mxweir):
    status, _, err = mxweir("upgrade")
    assert status == 2
    assert "mxweir domains init makes it" in err
    assert mxweir("init") == (0, "applied 1: domains\nthe schema is at 1\n", "")
    assert mxweir("init") == mxweir("upgrade") == (0, "the schema is at 1\n", "")
    assert json.loads(mxweir("upgrade", "--json")[1]) == {"version": 1, "applied": []}


def test_a_domain_that_is_added_is_ours_until_it_is_removed(ready):
    status, out, err = ready("add", "Bücher.example", "--next-hop", "smtp:[192.0.2.1]", "--tenant", "one")
    assert (status, out) == (0, "1 added, 0 changed\n")
    assert "these are the first domains" in err
    assert ready("add", ".tree.example") == (0, "1 added, 0 changed\n", "")
    assert ready("check", "xn--bcher-kva.example")[1] == (
        "xn--bcher-kva.example: ours, next hop smtp:[192.0.2.1]\n"
    )
    assert ready("check", "a.b.tree.example")[1] == (
        "a.b.tree.example: ours (by tree.example and its subdomains)\n"
    )
    assert json.loads(ready("check", "bücher.example", "--json")[1])["tenant"] == "one"
    assert ready("remove", "bücher.example", "tree.example", "no.example")[:2] == (1, "2 removed\n")
    assert ready("check", "bücher.example")[0] == 1


def test_one_wrong_name_and_nothing_is_added(ready):
    status, _, err = ready("add", "a.example", "no domain")
    assert status == 2
    assert "nothing was added" in err
    assert exported(ready) == set()


def test_a_domain_that_is_switched_off_is_not_ours_and_in_no_file(ready, database):
    ready("add", "on.example", "off.example")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE mxweir.domains SET enabled = false WHERE name = 'off.example'")
    assert ready("check", "off.example")[:2] == (1, "off.example: not ours, switched off\n")
    assert exported(ready) == {"on.example"}
    found = [json.loads(line) for line in ready("export", "--json")[1].splitlines()]
    assert {record["domain"]: record["enabled"] for record in found} == {
        "on.example": True,
        "off.example": False,
    }


def test_an_import_skips_bad_lines_and_says_so(ready, tmp_path):
    file = tmp_path / "domains"
    file.write_text("a.example  smtp:[192.0.2.1]\nno domain at all\n.b.example\n# nothing\nc.d\ne.f\ng.h\n")
    status, out, err = ready("import", str(file))
    assert (status, out) == (1, "5 added, 0 removed, 5 in the table\n")
    assert err == f"{file}:2: more than a domain and a next hop; skipped\n"
    assert exported(ready) == {"a.example smtp:[192.0.2.1]", ".b.example", "c.d", "e.f", "g.h"}
    told = json.loads(ready("import", str(file), "--json")[1])
    assert told | {"bad": []} == {"added": 0, "removed": 0, "total": 5, "bad": [], "bad_lines": 1}


def test_a_file_of_mostly_bad_lines_is_some_other_file(ready, tmp_path):
    file = tmp_path / "domains"
    file.write_text("a.example\nroot:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:\n")
    status, out, err = ready("import", str(file))
    assert (status, out) == (1, "")
    assert "2 of 3 lines are bad, more than max_shrink = 20% allows; if that is meant, use --force" in err
    assert exported(ready) == set()
    assert ready("import", str(file), "--force")[0] == 1
    assert exported(ready) == {"a.example"}


def test_an_import_that_takes_away_too_much_needs_force(ready, tmp_path):
    file = tmp_path / "domains"
    file.write_text("".join(f"d{number}.example\n" for number in range(10)))
    assert ready("import", str(file))[0] == 0
    file.write_text("d1.example\n")
    status, out, err = ready("import", str(file))
    assert (status, out) == (1, "")
    assert "9 of 10 domains would go" in err
    assert len(exported(ready)) == 10
    assert ready("import", str(file), "--force")[0] == 0
    assert exported(ready) == {"d1.example"}


def test_two_hosts_that_init_at_once_both_find_it_good(mxweir, database, tmp_path):
    statuses = []
    config = tmp_path / "mxweir.toml"

    def init() -> None:
        statuses.append(main(["domains", "init", "--config", str(config)]))

    threads = [threading.Thread(target=init) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0, 0, 0, 0]


def test_without_postgresql_it_says_why_in_one_line(tmp_path, capsys):
    config = tmp_path / "mxweir.toml"
    config.write_text('[postgres]\ndsn = "host=127.0.0.1 port=1 password=hunter2"\n')
    assert main(["domains", "check", "--config", str(config), "a.example"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "Connection refused; Is the server running" in err
    assert "hunter2" not in err
    config.write_text("")
    assert main(["domains", "init", "--config", str(config)]) == 2
    assert "there is no [postgres]" in capsys.readouterr().err


def test_the_schema_is_made_by_whoever_cannot_read_the_configuration(tmp_path, database, capsys):
    words = ["--config", str(tmp_path / "none.toml"), "--dsn", database]
    assert main(["domains", "init", *words]) == 0
    assert main(["domains", "upgrade", *words]) == 0
    assert capsys.readouterr().out.endswith("the schema is at 1\n")


def test_what_a_view_maps_is_not_changed_here(tmp_path, database, capsys):
    config = tmp_path / "mxweir.toml"
    config.write_text(f'[postgres]\ndsn = "{database}"\nview = "customers.relay_domains"\n')
    assert main(["domains", "add", "--config", str(config), "a.example"]) == 2
    assert "change them behind it" in capsys.readouterr().err
