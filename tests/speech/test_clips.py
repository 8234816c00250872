import numpy as np
import pytest
import torch

from spiritlm_core.cores import all_cores
from spiritlm_core.fit.clips import perplexity, train_clips
from spiritlm_core.fit.schedule import learning_rate_scale
from spiritlm_core.lake.view import TableView
from tests.speech.synthetic import row, table


def view(names: list[str]) -> list[dict[str, object]]:
    return [row(name, np.full(16_000, 0.001 * i, np.float32)) for i, name in enumerate(names)]


def test_choice_of_clips_depends_on_neither_shards_nor_order() -> None:
    rows = view([f"u{i}" for i in range(10)])
    one = train_clips(TableView.of(table(*rows)), 4.5 / 60, 0)
    other = train_clips(TableView.of(*(table(r) for r in rows[::-1])), 4.5 / 60, 0)
    assert [c.key for c in one] == [c.key for c in other]
    assert all(np.array_equal(a.waveform, b.waveform) for a, b in zip(one, other, strict=True))
    assert len(one) == 5
    third = train_clips(TableView.of(table(*rows)), 4.5 / 60, 1)
    assert [c.key for c in third] != [c.key for c in one]
    assert len(train_clips(TableView.of(table(*rows)), 100, 0)) == 10


def test_voices_are_those_of_people_where_there_are_enough() -> None:
    names = [f"u{i}" for i in range(8)]
    rows = [{**row, "origin": "synthetic" if i < 6 else "recorded"} for i, row in enumerate(view(names))]

    def chosen(seconds: float, minutes: float = 100, **settings: bool) -> set[str]:
        timed = table(*({**row, "duration": seconds} for row in rows))
        return {clip.key for clip in train_clips(TableView.of(timed), minutes, 0, **settings)}

    assert chosen(30.0) == {"u6", "u7"}
    assert chosen(29.0) == chosen(30.0, synthetic=True) == set(names)
    few = chosen(30.0, 2.0, synthetic=True, people_first=True)
    assert len(few) == 4
    assert {"u6", "u7"} < few
    assert len(chosen(30.0, 1.0, synthetic=True, people_first=True) & {"u6", "u7"}) == 1
    assert chosen(30.0, synthetic=True, people_first=True) == set(names)


def test_perplexity() -> None:
    assert perplexity(np.repeat(np.arange(8), 5), 20) == pytest.approx(8)
    assert perplexity(np.zeros(5, int), 20) == pytest.approx(1)
    assert perplexity(np.zeros(0, int), 20) == 0


def test_learning_rate_rises_then_falls() -> None:
    scale = [learning_rate_scale(step, 100) for step in range(100)]
    assert max(scale) == scale[9] == 1.0
    assert scale[0] == pytest.approx(0.1)
    assert 0 < scale[-1] < 0.02
    assert learning_rate_scale(0, 1) == 1.0


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with all_cores():
        assert torch.get_num_threads() == 1  # the tests are held to one core
    assert torch.get_num_threads() == before
