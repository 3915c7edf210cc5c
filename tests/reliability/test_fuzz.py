"""Bytes read as calls of the API: those that fuzzing has kept, and some at random.

``make fuzz SECONDS=300`` looks for more, with Atheris.
"""

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz
from fuzz import machine

CORPUS = sorted((Path(fuzz.__file__).parent / "corpus").iterdir())


pytestmark = [
    # Some hostile values leave coroutines and tasks behind that nobody has awaited.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.thread_unsafe(reason="garbage of one run would act in the middle of another"),
]


@pytest.fixture(autouse=True, scope="module")
def leave_no_garbage() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.mark.parametrize("kept", CORPUS, ids=lambda path: path.name)
def test_what_fuzzing_has_kept_does_nothing_wrong(kept: Path):
    machine.run(kept.read_bytes())


def test_the_kept_inputs_reach_every_operation_and_deliver():
    done = [machine.run(kept.read_bytes()) for kept in CORPUS]

    operations = {operation.__name__ for operation in machine.OPERATIONS_BY_BYTE}
    assert operations == {name for each in done for name in each.trail}
    assert sum(each.calls for each in done) > len(CORPUS)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(st.binary(min_size=20, max_size=800))
def test_no_sequence_of_calls_makes_the_hub_do_anything_wrong(data: bytes):
    machine.run(data)
