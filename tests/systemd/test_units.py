"""The shipped units, checked by systemd's own program and against the code they start."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mxweir import service
from mxweir.config.sections import Milter, Policyd
from mxweir.units import parse_duration

SHIPPED = Path(__file__).parents[2] / "systemd"
PROGRAM = "/usr/local/bin/mxweir"
SERVICES = ("mxweir-policyd.service", "mxweir-milter.service")
SOCKETS = ("mxweir-policyd.socket", "mxweir-maps.socket", "mxweir-milter.socket")


def systemd(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of systemd's programs, which work without a running systemd."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def read(unit: str) -> dict[str, dict[str, list[str]]]:
    """A unit as section → key → every value given; the files use no continuation lines."""
    sections: dict[str, dict[str, list[str]]] = {}
    current: dict[str, list[str]] = {}
    for line in (SHIPPED / unit).read_text().splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            current.setdefault(key, []).append(value)
    return sections


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The shipped units with a program that exists here, which is all that `make install` changes too."""
    for unit in (*SERVICES, *SOCKETS):
        text = (SHIPPED / unit).read_text()
        (tmp_path / unit).write_text(text.replace(PROGRAM, "/bin/true"))
    return tmp_path


@pytest.mark.parametrize("unit", [*SERVICES, *SOCKETS])
def test_systemd_finds_nothing_to_complain_about_in_a_unit(units: Path, unit: str) -> None:
    verdict = systemd("systemd-analyze", "verify", str(units / unit))
    # It also complains about units of other packages that this machine happens to have.
    said = [line for line in verdict.stderr.splitlines() if not line.startswith("/lib/systemd/system/")]
    assert (verdict.returncode, verdict.stdout, said) == (0, "", [])


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_exposed_to_at_most_2_0(units: Path, unit: str) -> None:
    verdict = systemd("systemd-analyze", "security", "--offline=true", "--no-pager", str(units / unit))
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", verdict.stdout)
    assert exposure, verdict.stdout + verdict.stderr
    assert float(exposure[1]) <= 2.0, verdict.stdout


@pytest.mark.parametrize(("unit", "settings"), [*zip(SERVICES, (Policyd(), Milter()), strict=True)])
def test_a_service_has_time_to_drain_before_it_is_killed(unit: str, settings: Policyd | Milter) -> None:
    (stop,) = read(unit)["Service"]["TimeoutStopSec"]
    assert parse_duration(stop) > settings.drain


def test_a_stop_is_told_to_the_policy_daemon_and_not_to_the_processes_that_it_has_started() -> None:
    assert read("mxweir-policyd.service")["Service"]["KillMode"] == ["mixed"]


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_may_give_way_to_others_though_not_take_resources(unit: str) -> None:
    *before, last = read(unit)["Service"]["SystemCallFilter"]
    assert any(each.startswith("~") and "@resources" in each for each in before)
    assert "sched_setscheduler" in last.split()


@pytest.mark.parametrize("unit", SERVICES)
def test_every_command_of_a_service_names_the_installed_program_or_kill(unit: str) -> None:
    commands = read(unit)["Service"]["ExecStart"] + read(unit)["Service"]["ExecReload"]
    assert {command.split()[0] for command in commands} == {PROGRAM, "/bin/kill"}


def test_the_sockets_listen_where_the_default_configuration_does() -> None:
    paths = [read(unit)["Socket"]["ListenStream"][0] for unit in SOCKETS]
    addresses = (Policyd().listen[0], Policyd().maps[0], Milter().listen)
    assert [f"unix:{path}" for path in paths] == [str(address) for address in addresses]


def test_the_milter_may_open_as_many_files_as_its_sessions_need() -> None:
    (files,) = read("mxweir-milter.service")["Service"]["LimitNOFILE"]
    assert int(files) >= 2 * Milter().max_sessions


@pytest.mark.parametrize("unit", SOCKETS)
def test_a_socket_takes_as_many_waiting_connections_as_one_of_our_own(unit: str) -> None:
    assert read(unit)["Socket"]["Backlog"] == [str(service.BACKLOG)]


@pytest.mark.parametrize("unit", SOCKETS)
def test_a_socket_is_for_our_user_and_for_postfix_and_for_nobody_else(unit: str) -> None:
    socket = read(unit)["Socket"]
    assert (socket["SocketUser"], socket["SocketGroup"], socket["SocketMode"]) == (
        ["mxweir"],
        ["postfix"],
        ["0660"],
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user takes root")
def test_the_user_and_the_directory_in_the_chroot_are_made_as_the_units_need_them(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\npostfix:x:4321:\n")
    (tmp_path / "var/spool/postfix").mkdir(parents=True)

    made = systemd("systemd-sysusers", f"--root={tmp_path}", str(SHIPPED / "sysusers.conf"))
    assert made.returncode == 0, made.stderr
    user = next(line for line in (etc / "passwd").read_text().splitlines() if line.startswith("mxweir:"))
    made = systemd("systemd-tmpfiles", "--create", f"--root={tmp_path}", str(SHIPPED / "tmpfiles.conf"))
    assert made.returncode == 0, made.stderr

    directory = (tmp_path / "var/spool/postfix/mxweir").stat()
    assert (directory.st_uid, directory.st_gid) == (int(user.split(":")[2]), 4321)
    assert directory.st_mode & 0o7777 == 0o2750
