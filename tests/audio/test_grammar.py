"""Grammars that make sentences to be spoken."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.speak.draw import Choice, Draw
from spiritlm_core.intake.speak.grammar import parse_grammar


def _said(text: str, count: int = 300, language: str = "en") -> Counter[tuple[str, str | None]]:
    grammar = parse_grammar(text, "grammar", language)
    return Counter(grammar.sentence(Draw(str(number))) for number in range(count))


@pytest.mark.parametrize(
    ("rules", "sentences"),
    [
        ("public <a> = press (one | two) [now];", {"press one", "press two", "press one now", "press two now"}),
        (
            '#JSGF V1.0 UTF-8 en;\ngrammar x;\n// no\npublic <a> = "it\'s (so)" /* no */ | <b>; <b> = c;',
            {"it's (so)", "c"},
        ),
        ("public <a> = x*2-3; public <b> = y+;", {"x x", "x x x", *(" ".join("y" * n) for n in range(1, 5))}),
        ("public <a> = <20..22> | <ordinal 3..3>;", {"twenty", "twenty one", "twenty two", "third"}),
        ("public <a> = <year 1999..1999> | <digits 105..105>;", {"nineteen ninety nine", "one zero five"}),
        ("public <a> = a*0-1 b;", {"b", "a b"}),
    ],
)
def test_what_a_grammar_says(rules: str, sentences: set[str]) -> None:
    assert {text for text, _ in _said(rules)} == sentences


def test_weights_and_labels() -> None:
    said = _said("public <a> = /3/ <b> {often} | /1/ no {seldom} | maybe; <b> = yes {inner} | yes;", 1000)
    assert set(said) == {("yes", "inner"), ("yes", "often"), ("no", "seldom"), ("maybe", None)}
    assert 520 < said["yes", "inner"] + said["yes", "often"] < 680


def test_numbers_are_said_in_the_language() -> None:
    assert set(_said("public <a> = <21..21>;", 1, "fr")) == {("vingt et un", None)}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("public <a> =\n <b>;", "line 2: there is no rule <b>, only a"),
        ("public <a> = x <a>;", "rule <a> leads to itself without an end"),
        ("<a> = b;", "no rule is public"),
        ("public <a> = ;", "an alternative is empty"),
        ("public <a> = (b;", "here should be '\\)', not ';'"),
        ("public <a> = b", "here should be ';', not 'the end'"),
        ("public <a> = b;\npublic <a> = c;", "line 2: there are two rules <a>"),
        ("public <a> = /0/ b;", "/0/ is no weight"),
        ("public <a> = <5..1>;", "5 is greater than 1"),
        ("public <a> = b }", "cannot be understood: '}'"),
    ],
)
def test_what_is_wrong_with_a_grammar_is_said(rules: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        parse_grammar(rules, "grammar", "en").sentence(Draw("x"))


def test_the_grammar_that_comes_with_the_package() -> None:
    from spiritlm_core.intake.sources.speak import SpeakSource

    drafts = list(SpeakSource(utterances=600).drafts())
    labels = Counter(draft.label for draft in drafts)
    assert {"digits", "numbers", "dates", "times", "money", "letters", "phonetic", "phrases", "months"} <= labels.keys()
    assert None not in labels
    assert len({draft.text for draft in drafts}) > 300


@given(st.dictionaries(st.text(max_size=5), st.floats(0.5, 5), min_size=1, max_size=8), st.text(max_size=5))
def test_an_option_that_is_new_takes_from_the_others_and_moves_none(weights: dict[str, float], new: str) -> None:
    before = Choice({name: (name, weight) for name, weight in weights.items()})
    after = Choice({name: (name, weight) for name, weight in {**weights, new: weights.get(new, 1.0)}.items()})
    for number in range(40):
        first, second = before.pick(Draw(str(number))), after.pick(Draw(str(number)))
        assert second in (first, new)
