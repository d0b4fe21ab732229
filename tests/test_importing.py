"""compress.registry.importing: the garbage collector rests while large packages load, and is as it was afterwards."""

import gc
import sys
from types import ModuleType

import pytest
import zoo

from compress.model.build import load_config
from compress.registry import importing
from compress.registry.importing import MANY, uncollected


@pytest.fixture
def collector():
    """On, as in any process."""
    before = gc.isenabled()
    gc.enable()
    yield
    gc.enable() if before else gc.disable()


def test_it_rests_inside_and_works_on_afterwards(collector):
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()  # the inner one does not end the outer one's
    assert gc.isenabled()


def test_it_works_on_after_an_error(collector):
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off(collector):
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()


def test_reading_a_config_rests_it(collector, tmp_path, monkeypatch):
    from transformers import AutoConfig

    seen, read = [], AutoConfig.from_pretrained

    def watched(*args, **options):
        seen.append(gc.isenabled())
        return read(*args, **options)

    monkeypatch.setattr(AutoConfig, "from_pretrained", watched)
    load_config(zoo.save("llama", tmp_path / "model"))
    assert seen == [False]
    assert gc.isenabled()


@pytest.fixture
def frozen(monkeypatch):
    """How often all there was got frozen."""
    calls = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(1))
    return calls


def load(count, monkeypatch):
    for i in range(count):
        monkeypatch.setitem(sys.modules, f"loaded_{i}", ModuleType(f"loaded_{i}"))


@pytest.mark.parametrize(
    ("own", "freeze", "count", "times"),
    [(True, True, MANY, 1), (True, True, MANY - 1, 0), (True, False, MANY, 0), (False, True, MANY, 0)],
)
def test_what_many_modules_brought_is_frozen_in_a_process_of_our_own(
    own, freeze, count, times, collector, frozen, monkeypatch
):
    monkeypatch.setattr(importing, "_own", own)
    with uncollected(freeze=freeze):
        load(count, monkeypatch)
    assert len(frozen) == times


def test_only_the_command_owns_its_process(frozen, monkeypatch):
    monkeypatch.setattr(importing, "_own", False)
    importing.leave()
    assert not frozen
    importing.own_process()
    importing.leave()
    assert frozen
