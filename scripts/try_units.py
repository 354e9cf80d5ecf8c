"""Try the units under a running systemd: ask the daemons without pause while they are restarted and killed.

Run it as root on a host to spare (a virtual machine, or systemd-nspawn), where mxweir is installed and was
started as README.md says, with the installed Python:

    /usr/local/lib/mxweir/bin/python scripts/try_units.py

A line a step: how many questions were answered, how long the slowest waited, and what was lost. Status 0 when
nothing was lost but what a killed or frozen daemon had in hand. It takes two minutes. What `make test` shows
of the units without systemd is in tests/systemd and tests/live/test_confined.py.
"""

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mxweir.config import load
from mxweir.config.sections import Config
from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.mta import Mta

CONFIG = Path("/etc/mxweir/mxweir.toml")
SERVICES = ("mxweir-policyd", "mxweir-milter")
PATIENCE = 60.0
"""Seconds until a question counts as lost: Postfix would have gone on without the answer."""


class Asking:
    """Clients that ask over a new connection each time, as smtpd processes that have just started."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopping = threading.Event()
        self.answered: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.slowest = 0.0

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Ask until the block ends."""
        clients = [threading.Thread(target=self._ask, args=(each,)) for each in (self._policy, self._milter)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self._stopping.set()
            for client in clients:
                client.join()

    def _ask(self, question: Callable[[], str]) -> None:
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                self.answered[question()] += 1
            except (OSError, EOFError) as error:
                self.lost[f"{question.__name__.strip('_')}: {type(error).__name__} {error}"] += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)
            time.sleep(0.005)

    def _policy(self) -> str:
        with PolicyClient(self._config.policyd.listen[0], PATIENCE) as client:
            return "policy: " + client.ask(policy_context="limits", instance=str(time.time())).split()[0]

    def _milter(self) -> str:
        with Mta(self._config.milter.listen, PATIENCE) as session:
            session.negotiate()
            session.greet()
            session.deliver()
            return "milter: answered"


def systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl; its status is for the caller to judge."""
    argv = ["/usr/bin/systemctl", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 - our own words


def pid(service: str) -> int:
    """The main process; 0 while there is none."""
    return int(systemctl("show", "--value", "--property=MainPID", service).stdout)


def restart() -> None:
    """Three times, as upgrades do."""
    for _ in range(3):
        _must(systemctl("restart", *SERVICES))
        time.sleep(2.0)


def reload() -> None:
    """The same processes go on."""
    before = [pid(service) for service in SERVICES]
    _must(systemctl("reload", *SERVICES))
    if before != [pid(service) for service in SERVICES]:
        raise RuntimeError("a reload has started another process")


def reload_a_mistake() -> None:
    """It fails, and the same processes go on."""
    text, before = CONFIG.read_text(), [pid(service) for service in SERVICES]
    CONFIG.write_text(f"nonsense = 1\n{text}")
    try:
        if not systemctl("reload", *SERVICES).returncode:
            raise RuntimeError("a file with a mistake was taken")
    finally:
        CONFIG.write_text(text)
    if before != [pid(service) for service in SERVICES]:
        raise RuntimeError("a file with a mistake has ended a process")


def kill() -> None:
    """Crashes; the sockets stay, and systemd starts the daemons again."""
    _end(signal.SIGKILL, 15.0)


def freeze() -> None:
    """Daemons that hang; the watchdog ends them."""
    _end(signal.SIGSTOP, 60.0)


def _end(number: signal.Signals, seconds: float) -> None:
    before = {service: pid(service) for service in SERVICES}
    for service in SERVICES:
        systemctl("kill", "--kill-whom=main", f"--signal={number.name}", service)
    end = time.monotonic() + seconds
    while any(_is(service, before[service]) for service in SERVICES):
        if time.monotonic() > end:
            raise RuntimeError(f"not started again within {seconds:g} s")
        time.sleep(0.2)


def _is(service: str, before: int) -> bool:
    """Whether it is still the former process, or none that is ready."""
    return pid(service) in {0, before} or systemctl("is-active", service).returncode != 0


def _must(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise RuntimeError(done.stderr.strip())


STEPS = ((restart, 0), (reload, 0), (reload_a_mistake, 0), (kill, 2), (freeze, 2))
"""What is done, and how many questions may be lost by it: what the two daemons had in hand."""


def main() -> int:
    """All steps; the exit status."""
    config, bad = load(CONFIG), False
    for step, may_lose in STEPS:
        asking, wrong = Asking(config), ""
        with asking.going_on():
            time.sleep(1.0)
            try:
                step()
            except RuntimeError as error:
                wrong = f"; {error}"
            time.sleep(1.0)
        ok = not wrong and asking.lost.total() <= may_lose
        bad |= not ok
        print(
            f"{'good' if ok else 'bad '}  {step.__name__}: {dict(asking.answered)},"
            f" slowest {asking.slowest:.1f} s, lost {dict(asking.lost)}{wrong}",
            flush=True,
        )
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
