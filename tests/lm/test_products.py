"""Float32 products, whose precision all threads share."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread

import pytest
import torch

from spiritlm_core import cores
from spiritlm_core.cores import large_products, products_are_large


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on x86 without bf16 tiles and without a GPU."""
    monkeypatch.setattr(cores, "_medium_is_exact", lambda: True)
    yield
    assert torch.get_float32_matmul_precision() == "highest"


def refusing(*_: object) -> str:
    raise RuntimeError("you have used mix of the legacy and new APIs to set the matmul precision")


@pytest.mark.usefixtures("exact")
def test_threads_that_ask_at_once_leave_the_precision_as_it_was() -> None:
    begun, both, first_left = Event(), Event(), Event()
    within: list[str] = []

    def first() -> None:
        with large_products():
            begun.set()
            both.wait(60)
        within.append(torch.get_float32_matmul_precision())
        first_left.set()

    def second() -> None:
        begun.wait(60)
        with large_products():
            both.set()
            first_left.wait(60)

    threads = [Thread(target=first), Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert within == ["medium"], "the second still computes"
    assert torch.get_float32_matmul_precision() == "highest"
    assert not products_are_large()


@pytest.mark.usefixtures("exact")
def test_what_was_asked_last_counts() -> None:
    with large_products():
        assert products_are_large()
        with large_products(large=False):
            assert not products_are_large()
            assert torch.get_float32_matmul_precision() == "highest"
        assert products_are_large()
        assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_precision_by_the_newer_settings_of_torch_stays(monkeypatch: pytest.MonkeyPatch, on_gpu: bool) -> None:
    """Torch 2.9 and later refuse to tell the older setting then."""
    changed: list[str] = []
    monkeypatch.setattr(cores, "_medium_is_exact", lambda: not on_gpu)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", refusing)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", changed.append)
    with large_products():
        assert not products_are_large()
    assert not changed
