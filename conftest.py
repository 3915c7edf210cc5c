"""Where skipping is forbidden (PAGEBUS_NO_SKIP=1), a test that lacks something fails.

A test that is marked `skipif` does not apply here, which is no lack, and stays skipped.
"""

import os
from collections.abc import Generator

import pytest

FORBIDDEN = os.environ.get("PAGEBUS_NO_SKIP") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and call.excinfo is not None:
        does_not_apply = {mark.kwargs.get("reason") for mark in item.iter_markers("skipif")}
        if str(call.excinfo.value) not in does_not_apply:
            _forbid(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.outcome == "skipped":
        _forbid(report)
    return report


def _forbid(report: pytest.TestReport | pytest.CollectReport) -> None:
    if FORBIDDEN:
        *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else (report.longrepr,)
        report.outcome = "failed"
        report.longrepr = f"PAGEBUS_NO_SKIP forbids: {reason}"
