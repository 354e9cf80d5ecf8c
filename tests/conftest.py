"""What holds for every test: under CI nothing is skipped, so that a green run is a whole one.

Two processes run the tests side by side (`make test`): most of their time they wait for servers.
"""

import os
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from mxweir_ops.lab.place import SHARE

# How long an example takes says how busy the machine is, and nothing else. Under CI Hypothesis draws the
# same examples each time.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Give each of the processes ports of its own."""
    if worker := getattr(config, "workerinput", None):
        number = worker["workerid"].removeprefix("gw")
        os.environ[SHARE] = f"{number}/{worker['workercount']}"


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _refuse_skip(report: Report) -> Report:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test into a failure where CI is set."""
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file."""
    return _refuse_skip((yield))
