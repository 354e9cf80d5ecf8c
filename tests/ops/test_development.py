from pathlib import Path

import pytest

from mxweir.config import Config, load
from mxweir_ops import development
from mxweir_ops.development import ADDRESSES, SPAMD, Development
from mxweir_ops.lab.process import MissingError


class Spamd:
    """Stands in for the server: there, or missing."""

    missing = False

    def __init__(self, directory: Path, port: int):
        pass

    def __enter__(self) -> "Spamd":
        if self.missing:
            raise MissingError("spamd is not installed")
        return self

    def __exit__(self, *error: object) -> None:
        pass


class NoSpamd(Spamd):
    missing = True


@pytest.fixture(autouse=True)
def spamd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(development, "Spamd", Spamd)


def started(directory: Path) -> tuple[Config, str]:
    """The configuration of a run, and what was told."""
    with Development(directory) as run:
        config = load(run.config_file)
        return config, "\n".join(run.told(config))


def test_a_first_run_makes_a_configuration_without_mistakes_on_the_documented_ports(tmp_path: Path) -> None:
    config, told = started(tmp_path / "new")
    assert config.policyd.listen == (ADDRESSES.policy,)
    assert [str(SPAMD)] == [str(engine.address[0]) for engine in config.milter.engine]
    for port in range(10040, 10045):
        assert f"127.0.0.1:{port}" in told
    assert config.domains.file.read_text().splitlines()[1] == "example.org"
    assert config.state_dir.is_dir()


def test_the_main_cf_lines_to_try_it_are_told(tmp_path: Path) -> None:
    _, told = started(tmp_path)
    assert "smtpd_relay_restrictions = " in told
    assert "    defer_unauth_destination" in told
    assert "smtpd_milters = { inet:127.0.0.1:10041," in told


def test_without_spamd_the_milter_has_no_engine_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(development, "Spamd", NoSpamd)
    config, told = started(tmp_path)
    assert config.milter.engine == ()
    assert "no spamd  spamd is not installed: mail passes unscanned, and is marked so" in told


def test_spamd_is_used_as_soon_as_it_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(development, "Spamd", NoSpamd)
    started(tmp_path)
    monkeypatch.setattr(development, "Spamd", Spamd)
    config, _ = started(tmp_path)
    assert len(config.milter.engine) == 1


def test_what_somebody_has_edited_is_kept(tmp_path: Path) -> None:
    started(tmp_path)
    for name in ("mxweir.toml", "domains"):
        with (tmp_path / name).open("a") as file:
            file.write("# mine\n")
    started(tmp_path)
    assert all((tmp_path / name).read_text().endswith("# mine\n") for name in ("mxweir.toml", "domains"))


def test_a_directory_with_a_quote_and_a_backslash_in_its_name_is_served(tmp_path: Path) -> None:
    odd = tmp_path / 'a "b" \\c'
    assert started(odd)[0].state_dir == odd / "state"
