"""Phone labels of real speech, and what happens to clips that cannot have any."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from spiritlm_core.evaluate.clips import Clip
from spiritlm_core.evaluate.units.labels import (
    SILENCE,
    Labels,
    Phone,
    agreement,
    align_phones,
    classes_of,
    phones_of_units,
    unit_centres,
    words_of,
)
from spiritlm_core.speech.grid import unit_count
from tests.evaluate.clips import real_clips


def test_real_speech_gets_phones_that_cover_it():
    clips = real_clips(2)
    labels = align_phones(clips)
    assert len(labels.phones) + sum(labels.skipped.values()) == len(clips)
    assert len(labels.phones) >= 2
    for clip in clips:
        phones = labels.phones.get(clip.key, [])
        assert all(a.end == b.start for a, b in pairwise(phones))
        if phones:
            assert phones[-1].end / 100 == pytest.approx(clip.seconds, abs=0.1)
    assert SILENCE in classes_of(labels)


def test_labels_do_not_depend_on_other_clips():
    clips = real_clips(2)
    together, backwards = align_phones(clips), align_phones(clips[::-1])
    assert together.phones == backwards.phones


def test_silence_is_quieter_than_speech():
    clips = real_clips(2)
    labels = align_phones(clips)
    loud = {True: [], False: []}
    for clip in clips:
        for phone in labels.phones.get(clip.key, []):
            piece = clip.waveform[160 * phone.start : 160 * phone.end]
            loud[phone.name == SILENCE].append(np.mean(piece**2))
    assert np.median(loud[True]) < 0.1 * np.median(loud[False])


def test_units_rigged_to_see_the_phones_of_real_speech_are_perfect_and_random_ones_are_not():
    clips = real_clips(4)
    labels = align_phones(clips)
    classes = classes_of(labels)
    keys = [clip.key for clip in clips if clip.key in labels.phones]
    seen = [phones_of_units(labels.phones[c.key], len(c.waveform), classes) for c in clips if c.key in keys]
    names = np.random.default_rng(0).permutation(len(classes) + 1)
    rigged = agreement([names[phones] for phones in seen], seen, samples=100)
    assert rigged["pnmi"] == pytest.approx(1.0)
    rng = np.random.default_rng(1)
    random = agreement([rng.integers(0, 20, len(phones)) for phones in seen], seen, samples=100)
    assert random["pnmi"] - random["pnmi_chance"] == pytest.approx(0, abs=0.05)
    assert random["pnmi"] < 0.3 < rigged["pnmi"] - rigged["pnmi_chance"]


def _clip(text, language="en", seconds=1.0):
    return Clip("clip", "s", language, text, np.zeros(int(16_000 * seconds), np.float32))


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (_clip("bonjour", language="fr"), "no pronunciation dictionary for language fr"),
        (_clip(None), "no transcript"),
        (_clip("  "), "no transcript"),
        (_clip("h\u00e9las"), "letters beyond a to z"),
        (_clip("frobnicatorium"), "not in the dictionary"),
        (_clip("yes", seconds=0.05), "too short"),
        (_clip("this is a whole sentence that nobody could ever say in so short a time", seconds=0.3), "not aligned"),
    ],
)
def test_clips_without_labels_are_counted_with_the_reason(clip, reason):
    labels = align_phones([clip])
    assert labels.phones == {}
    ((said, count),) = labels.skipped.items()
    assert reason in said
    assert count == 1
    assert labels.why_none == said


def test_words():
    assert words_of("It\u2019s \u201cfine\u201d \u2014 well-made, O'BRIEN!") == [
        "it's",
        "fine",
        "well",
        "made",
        "o'brien",
    ]
    assert words_of("c\u2019est l'\u00e9t\u00e9") == []
    spelled = words_of("Press 1, or #; $5 & 25 %")
    assert " ".join(spelled) == "press one or pound five dollars and twenty five percent"
    assert Labels().why_none == "no clips"


@pytest.mark.parametrize("samples", [0, 1279, 1280, 16_000, 160_000, 1_600_000, 1_600_100, 1_616_000])
def test_every_unit_has_a_centre(samples):
    pieces = [min(1_600_000, samples - start) for start in range(0, samples, 1_600_000)]
    centres = unit_centres(samples)
    assert len(centres) == sum(map(unit_count, pieces))
    assert (np.diff(centres) >= 4).all()
    assert (centres < samples / 160).all()


def test_the_phone_at_the_centre_of_a_unit_counts():
    # unit 0 sees samples 0 to 720: its centre is at 22.5 ms; the next ones follow every 40 ms
    phones = [Phone("A", 0, 3), Phone("B", 3, 6), Phone("A", 10, 11)]
    found = phones_of_units(phones, 16_000, {"A": 0, "B": 1})
    assert found[:4].tolist() == [0, -1, 0, -1]
    assert phones_of_units([Phone("B", 2, 7)], 16_000, {"A": 0, "B": 1})[:3].tolist() == [1, 1, -1]
