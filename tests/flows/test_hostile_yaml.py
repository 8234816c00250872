"""Recipes, templates and values that were not written in good faith, or by hand on a bad day."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.recipes import find_finetune_recipe, find_recipe
from spiritlm_core.config_files import MOST_CHARACTERS, load_config, read_yaml
from spiritlm_core.errors import RecipeError
from spiritlm_core.finetune.template import find_template
from spiritlm_core.lm.__main__ import read_job
from spiritlm_core.recipe import Recipe
from spiritlm_core.speech.__main__ import read_job as read_fit

START = "name: mine\nsources: [{kind: folder, path: clips}]\n"


def bomb(levels: int, width: int = 10) -> str:
    """A list of lists of … of words, each level `width` times the one before, in a line per level."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def merges(levels: int) -> str:
    """The same with merge keys, which PyYAML writes out one after the other."""
    lines = ["m0: &m0 {x: 1}", *(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, levels))]
    return "\n".join(lines) + "\n"


HOSTILE = {
    "alias bomb": (bomb(10), r"line \d+: more than 50 levels or 20000 entries"),
    "alias bomb of merge keys": (merges(9), r"line \d+: more than 50 levels or 20000 entries"),
    "list that holds itself": ("x: &x [*x]\n", r"line 3: more than 50 levels"),
    "mapping that holds itself": ("x: &x\n  y: *x\n", r"line 4: more than 50 levels"),
    "deep list": ("x: " + "[" * 5000 + "\n", r"line 3: more than 50 levels"),
    "deep mapping": ("x: " + "{a: " * 5000 + "\n", r"line 3: more than 50 levels"),
    "deep block": ("x:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, 100)), r"line 5\d: more than 50 levels"),
    "5000 digits": ("lm: {steps: " + "9" * 5000 + "}\n", r"is not YAML: line 3: '9+'?… cannot be read as int"),
    "400 digits": ("lm: {steps: " + "9" * 400 + "}\n", r"line 3: lm\.steps: .*(2\^53|got a huge number)"),
    "number beyond JSON": ("lm: {seed: 9007199254740992}\n", r"line 3: lm\.seed: is beyond"),
    "9999-99-99": ("description: 9999-99-99\n", r"is not YAML: line 3: '9999-99-99' cannot be read as timestamp"),
    "31 February": ("language: 2024-02-31\n", r"is not YAML: line 3: '2024-02-31' cannot be read as timestamp"),
    "no boolean": ("language: !!bool maybe\n", r"is not YAML: line 3: 'maybe' cannot be read as bool"),
    "no number": ('language: !!int ""\n', r"is not YAML: line 3: '' cannot be read as int"),
    "no time": ("language: !!timestamp soon\n", r"is not YAML: line 3: 'soon' cannot be read as timestamp"),
    "Python call": ("language: !!python/object/apply:os.getcwd []\n", r"is not YAML: line 3: could not determine"),
    "Python name": ("language: !!python/name:os.system\n", r"is not YAML: line 3: could not determine"),
    "given twice": ("language: en\nlanguage: fr\n", r"line 4: language is given twice"),
    "given twice, nested": ("lm:\n  steps: 1\n  steps: 2\n", r"line 5: lm\.steps is given twice"),
    "tab": ("lm:\n\tsteps: 1\n", r"is not YAML: line 4: .*'\\t'"),
    "NaN": ("lm: {optimizer: {learning_rate: .nan}}\n", r"line 3: lm\.optimizer\.learning_rate: .*finite"),
    "infinity": ("audio: {max_pause: .inf}\n", r"line 3: audio\.max_pause: .*finite"),
    "infinity by its digits": ("audio: {max_pause: 1.0e+999}\n", r"line 3: audio\.max_pause: .*finite"),
    "half a character": ('description: "\\ud800"\n', r"line 3: description: .*surrogate"),
    "control character": ("description: \x01\n", r"mine\.yaml is not YAML: unacceptable character"),
    "two documents": ("---\nname: other\n", r"is not YAML: line 3: expected a single document"),
    "unknown alias": ("language: *nobody\n", r"is not YAML: line 3: found undefined alias"),
    "mapping as key": ("? {a: b}\n: c\n", r"is not YAML: line 3: .*unhashable key"),
    "long value": ("language: " + "x" * 5000 + "\n", r"line 3: language: .*\(got 'x{79}…\)$"),
    "many unknown keys": ("".join(f"k{n}: 1\n" for n in range(500)), r"k0: unknown key(.|\n)*and 480 more$"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_wrong_in_a_recipe_is_one_error_with_file_and_line(what: str) -> None:
    text, message = HOSTILE[what]
    began = time.process_time()
    with pytest.raises(RecipeError, match=message) as caught:
        load_config(Recipe, START + text, "mine.yaml")
    assert "mine.yaml" in str(caught.value)
    assert len(str(caught.value)) < 3000
    assert time.process_time() - began < 20


def test_anchors_and_merge_keys_are_fine_where_they_are_few() -> None:
    text = "units:\n  pitch: &fit {max_minutes: 3, seed: 1}\n  style: {<<: *fit, seed: 2}\n"
    units = load_config(Recipe, START + text, "mine.yaml").units
    assert (units.pitch.max_minutes, units.style.max_minutes, units.style.seed) == (3, 3, 2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 3000, "more than 50 levels"),
        ("9" * 5000, "cannot be read as int"),
        ("9999-99-99", "cannot be read as timestamp"),
        ("&x [*x]", "more than 50 levels"),
        ("{steps: 1, steps: 2}", "given twice"),
        ("!!python/name:os.system", "could not determine"),
        ("1" + " " * MOST_CHARACTERS, "more than 262144 characters"),
    ],
)
def test_a_value_given_with_set_is_read_as_carefully(value: str, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"--set lm={re.escape(value[:3])}.*{message}"):
        load_config(Recipe, START, "mine.yaml", [f"lm={value}"])


@pytest.mark.parametrize("read", [find_recipe, find_finetune_recipe, find_template, read_job, read_fit])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb(10).encode(), r"line \d+: more than"),
        (("x: " + "[" * 5000).encode(), "line 1: more than 50 levels"),
        ("name: mine\n".encode("utf-16"), "it is not UTF-8"),
        (b"name: \xff\n", "it is not UTF-8"),
        (b"x: y\n" * MOST_CHARACTERS, "more than 262144 characters"),
        (b"\xef\xbb\xbf{", "is not YAML"),
        (b"[1, 2]", "mapping of keys to values"),
        (b"", "mapping of keys to values"),
    ],
)
def test_every_file_is_read_by_the_same_rules(read, content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=rf"file\.yaml.*{message}"):
        read(file if read in (read_job, read_fit) else str(file))


def test_a_folder_or_a_device_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name in ("folder", "zero"):
        with pytest.raises(RecipeError, match=f"{name}.yaml cannot be read: it is not a file"):
            find_recipe(str(tmp_path / f"{name}.yaml"))


def test_a_mark_at_the_beginning_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + START.encode())
    assert find_recipe(str(tmp_path / "bom.yaml")).name == "mine"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "9" * 5000, "9007199254740992"])
def test_a_recipe_given_as_json_is_held_to_the_same_bounds(value: str) -> None:
    body = '{"name": "mine", "sources": [{"kind": "folder", "path": "x"}], "lm": {"steps": %s}}'
    with pytest.raises(ValidationError, match=r"lm\.steps|Invalid JSON"):
        Recipe.model_validate_json(body % value)


def test_read_yaml_gives_values_and_lines() -> None:
    read = read_yaml("a: 1\nb:\n  - {c: d}\n", "x")
    assert read.body == {"a": 1, "b": [{"c": "d"}]}
    assert read.lines == {("a",): 1, ("b",): 2, ("b", "0"): 3, ("b", "0", "c"): 3}
