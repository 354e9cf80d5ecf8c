import json
from pathlib import Path
from typing import Any

import pytest

from mxweir.domains.record import FROM_FILE
from mxweir_ops.cli import main
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.relaydomains.sources.file import read_domains


class Mxweir:
    """`mxweir domains` on a table of its own."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = directory / "mxweir.toml"
        self.state = directory / "state"
        self.file = directory / "domains"
        self.config.write_text(f'state_dir = "{self.state}"\n[domains]\nfile = "{self.file}"\n')
        self._capsys = capsys

    def __call__(self, *words: str | Path, status: int = 0) -> tuple[str, str]:
        """Run one command that is to end with this status; what it writes to stdout and stderr."""
        assert main(["domains", *map(str, words), "--config", str(self.config)]) == status
        return self._capsys.readouterr()

    def json(self, *words: str | Path, status: int = 0) -> Any:
        """What it prints as JSON, having nothing else to say."""
        out, err = self(*words, "--json", status=status)
        assert err == ""
        return json.loads(out)

    def lines(self) -> list[str]:
        """All domains."""
        return self("export")[0].splitlines()

    def load_file(self) -> None:
        """What the daemon does with the domains file."""
        replica = Replica(self.state)
        replica.replace(FROM_FILE, read_domains(self.file, FROM_FILE).records, 1.0)
        replica.close()


@pytest.fixture
def domains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Mxweir:
    return Mxweir(tmp_path, capsys)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "import"


# add, remove


def test_a_dsn_that_libpq_would_not_take_is_misuse_of_the_option(
    domains: Mxweir, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        domains("init", "--dsn", "dbname=a password=se cret")
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert "argument --dsn: no connection string as libpq takes it" in error
    assert "cret" not in error


@pytest.mark.parametrize("option", [("--tenant", "acme"), ("--dsn", "dbname=mxweir")])
def test_what_is_only_for_postgresql_is_not_passed_over_where_there_is_none(
    domains: Mxweir, option: tuple[str, str]
) -> None:
    assert domains("add", "a.example", *option, status=2) == (
        "",
        "mxweir domains: the domains are not in PostgreSQL: there is no [postgres] in the configuration\n",
    )


def test_domains_are_added_and_removed(domains: Mxweir) -> None:
    assert domains("add", "Example.ORG", ".tree.example")[0] == "2 added, 2 in the table\n"
    assert domains("add", "example.org", "bücher.example") == ("1 added, 3 in the table\n", "")
    assert domains("add", "example.net", "--next-hop", "smtp:[192.0.2.25]")[0] == "1 added, 4 in the table\n"
    expected = [".tree.example", "example.net smtp:[192.0.2.25]", "example.org", "xn--bcher-kva.example"]
    assert sorted(domains.lines()) == expected
    assert domains("remove", "EXAMPLE.org", ".tree.example") == ("2 removed, 2 in the table\n", "")
    assert domains("remove", "BÜCHER.example")[0] == "1 removed, 1 in the table\n"


def test_adding_and_removing_print_json_on_demand(domains: Mxweir) -> None:
    domains("add", "example.com")
    assert domains.json("add", "example.org", "example.net") == {"added": 2, "total": 3}
    assert domains.json("remove", "example.org") == {"removed": 1, "missing": [], "total": 2}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["not a domain"], "more than a domain and a next hop"),
        (["localhost"], "'localhost' has no dot; a relay domain has at least two labels"),
        (["192.0.2.1"], "'192.0.2.1' is an address, not a domain"),
        (
            ["anna@example.org"],
            "'anna@example.org' is no domain name: '@' is no letter, digit, - or _",
        ),
        ([""], "'' is not one domain"),
        (["# example.org"], "'# example.org' is not one domain"),
        (["example.org smtp:x"], "'example.org smtp:x' is not one domain"),
        (
            ["example.org", "--next-hop", "smtp:x#y"],
            "'good.example' with next hop 'smtp:x#y' is not one domain",
        ),
        (["example.org", "--next-hop", "smtp:x y"], "more than a domain and a next hop"),
        (
            ["example.org", "--next-hop", "smtp:ü"],
            "the next hop is not printable ASCII of at most 255 characters",
        ),
    ],
)
def test_a_wrong_domain_is_misuse_and_nothing_is_added(domains: Mxweir, words: list[str], what: str) -> None:
    out, err = domains("add", "good.example", *words, status=2)
    assert (out, err) == ("", f"mxweir domains add: {what}; nothing was added\n")
    assert domains.lines() == []


def test_the_first_domains_are_added_with_a_word_on_what_that_means(domains: Mxweir) -> None:
    out, err = domains("add", "example.org")
    assert out == "1 added, 1 in the table\n"
    assert err == (
        "mxweir domains add: these are the first domains: from now on mail for all others is refused (550);"
        " if there are more, add them now\n"
    )
    assert domains("add", "example.net") == ("1 added, 2 in the table\n", "")


def test_a_domain_added_without_its_subdomains_keeps_those_that_the_file_brought(domains: Mxweir) -> None:
    domains.file.write_text(".one.example smtp:x\n")
    domains.load_file()
    domains("add", "one.example", "--next-hop", "smtp:y")
    assert domains("check", "sub.one.example")[0] == (
        "sub.one.example: ours (by one.example and its subdomains), next hop smtp:y\n"
    )
    assert domains("verify")[1] == ""


def test_removing_what_is_not_there_is_a_finding_and_the_others_go(domains: Mxweir) -> None:
    domains.file.write_text("file.example\n")
    domains.load_file()
    domains("add", "example.org", "example.net")
    out, err = domains("remove", "example.org", "missing.example", "file.example", status=1)
    assert out == "1 removed, 2 in the table\n"
    assert err.splitlines() == [
        "mxweir domains remove: missing.example: it is not in the table",
        f"mxweir domains remove: file.example: it stands in {domains.file}; remove it there",
    ]
    assert domains.lines() == ["example.net", "file.example"]


# check


@pytest.mark.parametrize(
    ("asked", "line", "by", "hop"),
    [
        ("Example.ORG.", "example.org: ours", "example.org", ""),
        ("example.net", "example.net: ours, next hop smtp:[192.0.2.25]", "example.net", "smtp:[192.0.2.25]"),
        (
            "a.b.tree.example",
            "a.b.tree.example: ours (by tree.example and its subdomains)",
            "tree.example",
            "",
        ),
        ("bücher.example", "xn--bcher-kva.example: ours", "xn--bcher-kva.example", ""),
    ],
)
def test_a_domain_of_ours_is_status_0_with_the_record_that_says_so(
    domains: Mxweir, asked: str, line: str, by: str, hop: str
) -> None:
    domains("add", "example.org", ".tree.example", "bücher.example")
    domains("add", "example.net", "--next-hop", "smtp:[192.0.2.25]")
    assert domains("check", asked) == (f"{line}\n", "")
    found = domains.json("check", asked)
    assert found == {"domain": line.split(": ", maxsplit=1)[0], "ours": True, "by": by, "next_hop": hop}


@pytest.mark.parametrize("asked", ["foreign.example", "a.example.org", "org", "", "anna@example.org"])
def test_any_other_domain_is_status_1(domains: Mxweir, asked: str) -> None:
    domains("add", "example.org")
    assert domains("check", asked, status=1) == (f"{asked}: not ours\n", "")
    assert domains.json("check", asked, status=1)["ours"] is False


def test_an_empty_table_says_that_nothing_is_known(domains: Mxweir) -> None:
    assert domains("check", "example.org", status=1)[0] == "example.org: no relay domains are known\n"


# import, export


def test_an_import_lets_the_domains_given_by_command_be_those_of_the_file(
    domains: Mxweir, source: Path
) -> None:
    domains.file.write_text("file.example\n")
    domains.load_file()
    domains("add", *(f"d{number}.example" for number in range(9)))
    source.write_text("".join(f"d{number}.example\n" for number in range(1, 9)) + ".new.example smtp:x\n")
    assert domains("import", source) == ("1 added, 1 removed, 10 in the table\n", "")
    assert domains.lines()[-2:] == ["file.example", ".new.example smtp:x"]
    assert domains.json("import", source) == {"added": 0, "removed": 0, "total": 10, "bad": []}


def test_bad_lines_are_told_by_number_with_status_1_and_the_good_ones_imported(
    domains: Mxweir, source: Path
) -> None:
    domains("add", "example.org")
    source.write_bytes(b"example.org\nrubbish!\n# fine\n\xff\n" + b"x" * 20_000 + b"\nexample.net\n")
    out, err = domains("import", source, status=1)
    assert out == "1 added, 0 removed, 2 in the table\n"
    assert err.splitlines() == [
        f"{source}:2: 'rubbish!' is no domain name: '!' is no letter, digit, - or _; skipped",
        f"{source}:4: not valid UTF-8; skipped",
        f"{source}:5: longer than 16 KiB; skipped",
    ]
    assert domains.lines() == ["example.net", "example.org"]
    found = domains.json("import", source, status=1)
    assert [line["number"] for line in found["bad"]] == [2, 4, 5]


def test_an_import_that_would_shrink_the_table_too_much_is_refused_unless_forced(
    domains: Mxweir, source: Path
) -> None:
    domains("add", *(f"d{number}.example" for number in range(10)))
    source.write_text("d0.example\nrubbish!\n")
    out, err = domains("import", source, status=1)
    assert out == ""
    told, refused = err.splitlines()
    assert told == f"{source}:2: 'rubbish!' is no domain name: '!' is no letter, digit, - or _; skipped"
    assert refused == (
        "mxweir domains import: not imported: 9 of 10 domains would go, more than max_shrink = 20% allows;"
        " if that is meant, use --force"
    )
    assert len(domains.lines()) == 10
    assert domains("import", source, "--force", status=1)[0] == "0 added, 9 removed, 1 in the table\n"
    assert domains.lines() == ["d0.example"]


@pytest.mark.parametrize(("name", "why"), [("missing", "No such file or directory"), ("", "Is a directory")])
def test_a_file_that_cannot_be_read_is_one_line_with_status_2(
    domains: Mxweir, tmp_path: Path, name: str, why: str
) -> None:
    domains("add", "example.org")
    path = tmp_path / name
    assert domains("import", path, status=2) == ("", f"mxweir domains: {path}: {why}\n")
    assert domains.lines() == ["example.org"]


def test_what_is_exported_can_be_imported_again(domains: Mxweir, source: Path) -> None:
    domains("add", "example.org", "bücher.example", "_x.example")
    domains("add", ".example.net", "--next-hop", "smtp:[192.0.2.25]")
    source.write_text(domains("export")[0])
    assert domains("import", source)[0] == "0 added, 0 removed, 4 in the table\n"
    assert domains("export")[0] == source.read_text()


def test_no_tables_for_postfix_are_made_where_no_domain_is_known(domains: Mxweir, tmp_path: Path) -> None:
    out, err = domains("export", "--postfix-lmdb", tmp_path / "postfix", status=1)
    assert out == ""
    assert "no domain is known" in err
    assert not list((tmp_path / "postfix").glob("*.lmdb"))


def test_an_export_as_json_has_an_object_a_line(domains: Mxweir) -> None:
    domains("add", ".example.org", "--next-hop", "smtp:x")
    (line,) = domains("export", "--json")[0].splitlines()
    assert json.loads(line) == {
        "domain": "example.org",
        "next_hop": "smtp:x",
        "include_subdomains": True,
        "origins": 2,
        "enabled": True,
        "tenant": "",
    }


# verify


def test_a_table_that_agrees_with_the_file_is_status_0(domains: Mxweir) -> None:
    domains.file.write_text("example.org smtp:x\n.example.net\n")
    domains.load_file()
    domains("add", "command.example")
    assert domains("verify") == (f"2 domains in {domains.file}; 3 in the table, 2 of them from it\n", "")
    assert domains.json("verify") == {
        "file": str(domains.file),
        "missing": [],
        "surplus": [],
        "other": [],
        "bad": [],
    }


def test_every_difference_between_table_and_file_is_told_with_status_1(domains: Mxweir) -> None:
    domains.file.write_text("gone.example\nhop.example smtp:x\n.below.example\nsame.example\n")
    domains.load_file()
    domains.file.write_text("new.example\nhop.example smtp:y\nbelow.example\nsame.example\nrubbish!\n")
    out, err = domains("verify", status=1)
    assert out.splitlines() == [
        "new.example: in the file, not in the table",
        "gone.example: in the table, not in the file",
        "below.example: in both, with another next hop or without its subdomains",
        "hop.example: in both, with another next hop or without its subdomains",
        f"4 domains in {domains.file}; 4 in the table, 4 of them from it",
    ]
    assert (
        err == f"{domains.file}:5: 'rubbish!' is no domain name: '!' is no letter, digit, - or _; skipped\n"
    )


def test_of_an_emptied_file_it_is_told_that_nothing_is_in_it(domains: Mxweir) -> None:
    domains.file.write_text("a.example\nb.example\n")
    domains.load_file()
    domains.file.write_text("")
    out, _ = domains("verify", status=1)
    assert out.splitlines()[-1] == f"0 domains in {domains.file}; 2 in the table, 2 of them from it"


def test_bad_lines_alone_are_a_finding(domains: Mxweir) -> None:
    domains.file.write_text("example.org\nrubbish!\n")
    domains.load_file()
    out, err = domains("verify", status=1)
    assert out == f"1 domains in {domains.file}; 1 in the table, 1 of them from it\n"
    assert (
        err == f"{domains.file}:2: 'rubbish!' is no domain name: '!' is no letter, digit, - or _; skipped\n"
    )


def test_accepting_takes_the_file_as_it_is_and_leaves_what_was_given_by_command(domains: Mxweir) -> None:
    domains.file.write_text("".join(f"d{number}.example\n" for number in range(10)))
    domains.load_file()
    domains("add", "command.example")
    domains.file.write_text("d0.example\n")
    domains("verify", status=1)
    assert domains("verify", "--accept") == (
        f"1 domains in {domains.file}; 2 in the table, 1 of them from it\n",
        "",
    )
    assert domains.lines() == ["command.example", "d0.example"]
    domains("verify")


def test_a_missing_domains_file_is_one_line_with_status_2(domains: Mxweir) -> None:
    assert domains("verify", status=2) == ("", f"mxweir domains: {domains.file}: No such file or directory\n")


# After damage


@pytest.mark.parametrize(
    ("words", "trusted"),
    [
        (["import", "{file}"], True),
        (["verify", "--accept"], True),
        (["verify"], False),
        (["add", "example.org"], False),
        (["remove", "example.net"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_table_begun_anew_after_damage_is_trusted_once_an_operator_says_that_it_is_whole(
    domains: Mxweir, words: list[str], trusted: bool
) -> None:
    domains.file.write_text("example.net\n")
    domains.load_file()
    domains("add", "example.net")
    (domains.state / "domains.unsure").touch()
    domains(*(word.format(file=domains.file) for word in words))
    out, _ = domains("check", "foreign.example", status=1)
    said = "not ours" if trusted else "the table cannot be trusted now"
    assert out == f"foreign.example: {said}\n"


# Trouble


@pytest.mark.parametrize(
    "words", [["add", "a.example"], ["remove", "a.example"], ["check", "a.example"], ["export"], ["verify"]]
)
def test_a_table_that_cannot_be_opened_is_one_line_with_status_2(domains: Mxweir, words: list[str]) -> None:
    (domains.state / "domains.lmdb").mkdir(parents=True)
    domains.file.touch()
    out, err = domains(*words, status=2)
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"mxweir domains: {domains.state}/domains.lmdb: cannot be opened: ")


# After damage


@pytest.mark.parametrize("by", ["import", "accept"])
def test_what_a_damaged_table_lacks_is_in_doubt_until_the_operator_says_that_it_is_whole(
    domains: Mxweir, source: Path, by: str
) -> None:
    domains.file.write_text("".join(f"d{number}.example\n" for number in range(100)))
    domains.load_file()
    table = domains.state / "domains.lmdb"
    table.write_bytes(table.read_bytes()[:8192])
    Replica(domains.state, mend=True).close()
    domains.load_file()
    doubt = "command.example: the table cannot be trusted now\n"
    assert domains("check", "command.example", status=1)[0] == doubt
    domains("verify")
    assert domains("check", "command.example", status=1)[0] == doubt
    if by == "accept":
        domains("verify", "--accept")
    else:
        source.write_text("other.example\n")
        domains("import", source)
    assert domains("check", "command.example", status=1)[0] == "command.example: not ours\n"


def test_after_damage_a_domain_may_be_added_for_no_other_one_is_refused(domains: Mxweir) -> None:
    domains.state.mkdir()
    (domains.state / "domains.lmdb").write_text("rubbish")
    Replica(domains.state, mend=True).close()
    assert domains("add", "example.org")[0] == "1 added, 1 in the table\n"
    assert domains("check", "other.example", status=1)[0] == (
        "other.example: the table cannot be trusted now\n"
    )
