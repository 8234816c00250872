from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from flows.graphs.speech_lm import speech_lm
from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.fit.clips import train_clips
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import Plan
from spiritlm_core.plan.graph import plan_graph
from spiritlm_core.quality.voices import Voices, certainty, described, grouped, load_embedder, sides
from spiritlm_core.recipe import Recipe
from tests.audio.files import sound
from tests.evaluate.clips import real_clips
from tests.plan.lakes import compute, compute_stage, planned, tiny


def voices(*counts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors near as many directions as there are `counts`, shuffled, and which each is near to."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((64, len(counts))))[0].T
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    vectors = directions[labels] + 0.03 * rng.standard_normal((len(labels), 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_recordings_of_a_voice_are_grouped_whatever_their_order_is() -> None:
    vectors, labels = voices(1, 5, 9)
    names = [f"{number:012d}" for number in range(15)]
    found = grouped(vectors, names, 0.75)
    assert [len(places) for _, places in found] == [9, 5, 1]
    assert all(len(set(labels[places])) == 1 for _, places in found)
    turned = grouped(vectors[::-1], names[::-1], 0.75)
    assert [name for name, _ in turned] == [name for name, _ in found]


def test_a_voice_has_the_same_name_whoever_else_speaks() -> None:
    vectors, labels = voices(4, 5, 9)
    names = np.array([f"{number:012d}" for number in range(18)])
    everybody = {name for name, _ in grouped(vectors, names, 0.75)}
    some = {name for name, _ in grouped(vectors[labels > 0], names[labels > 0], 0.75)}
    assert some < everybody
    assert grouped(vectors[:0], [], 0.75) == []
    assert grouped(vectors[:1], names[:1], 0.75)[0][0] == f"voice-{names[0]}"


def test_how_sure_it_is_follows_from_the_cosines() -> None:
    vectors, labels = voices(1, 4, 6)
    groups = grouped(vectors, [str(number) for number in range(11)], 0.75)
    rows = described(groups, vectors, [2.0] * 11)
    assert [(row["recordings"], row["seconds"]) for row in rows] == [(6, 12.0), (4, 8.0), (1, 2.0)]
    for row, (_, places) in zip(rows, groups, strict=True):
        pairs = [vectors[a] @ vectors[b] for a, b in combinations(places, 2)]
        assert row["similarity"] == pytest.approx(np.mean(pairs) if pairs else 1.0, abs=1e-5)
        others = {name: (vectors[places] @ vectors[theirs].T).mean() for name, theirs in groups if name != row["voice"]}
        assert row["nearest"] == max(others, key=lambda name: others[name])
    sure = certainty(groups, vectors)
    assert sure["alone"] == 1
    assert sure["silhouette"] > 0.7
    alike = vectors[labels == 2]
    assert certainty(grouped(alike, "abcdef", 0.75), alike) == {"silhouette": None, "alone": 0}


def test_a_voice_is_known_again_and_another_is_not_taken_for_it() -> None:
    vectors, labels = voices(4, 5, 9)
    centres = np.stack([vectors[labels == label][1:].mean(axis=0) for label in (0, 1)])
    places, cosines, margins = Voices(("a", "b"), centres, 0.75, ("a", "b")).nearest(vectors)
    assert [*places[labels < 2]] == [*labels[labels < 2]]
    assert (margins[labels < 2] > 0.5).all()
    assert (cosines[labels == 2] < 0.5).all()
    assert [*Voices((), np.zeros((0, 64), np.float32), 0.75, ()).nearest(vectors[:2])[0]] == [-1, -1]


def test_a_single_recording_is_held_out_with_the_voice_that_it_is_likest() -> None:
    centres = np.array([[1, 0, 0], [0, 1, 0], [0.4, 0.6, 0.2], [0, 0, 1]], np.float32)
    assert sides("abcd", centres, np.array([3, 2, 1, 5])) == ("a", "b", "b", "d")
    assert sides("abcd", centres, np.ones(4, int)) == ("a", "b", "c", "d")
    assert sides("", centres[:0], np.ones(0, int)) == ()


@pytest.fixture(scope="module")
def speaker_encoder() -> str:
    from spiritlm_core.evaluate.config import SPEAKER_ENCODER
    from spiritlm_core.references.reference import resolve

    try:
        return f"file://{resolve(SPEAKER_ENCODER).path}"
    except ModelReferenceError as error:
        pytest.skip(str(error))


def recorded(folder: Path, speakers: set[str]) -> None:
    """Short recordings of people, whose names nobody says."""
    for clip in real_clips(5):
        if clip.speaker in speakers:
            sound(folder / f"{clip.key}.wav", clip.waveform).with_suffix(".txt").write_text("good morning")


def guesses(recipe: Recipe, lake: Lake) -> dict[str, dict[str, object]]:
    """File → its row of the table `speakers`, whose columns stand for those of `audio`."""
    plan = planned(recipe, lake, "speakers").stages["speakers"]
    columns = ["source_uri", "speaker_guess", "guess_new", "speaker", "split", "audio", "reject_reason"]
    rows = lake.view(lake.read_snapshot("speakers", plan.fingerprint)).read(columns).to_pylist()
    assert all(row["audio"] for row in rows)
    return {Path(str(row["source_uri"])).stem: row for row in rows}


def test_new_recordings_rename_nobody_and_a_new_voice_is_not_held_out(tmp_path: Path, speaker_encoder: str) -> None:
    lake, clips = Lake(tmp_path / "lake"), tmp_path / "clips"
    recorded(clips, {"1088"})
    how = f"speakers={{use: [split, style], encoder: '{speaker_encoder}', similarity: 0.7}}"
    recipe = tiny(clips, how, "audio.held_out_share=0.999")
    compute(recipe, lake, "speakers")
    before = guesses(recipe, lake)
    assert len({row["speaker_guess"] for row in before.values()}) == 1
    assert {row["split"] for row in before.values()} == {"held_out"}
    assert all(row["speaker"] == row["speaker_guess"] and not row["guess_new"] for row in before.values())

    recorded(clips, {"6848"})
    computed = planned(recipe, lake, "speakers")
    assert computed.stages["voices"].is_complete(lake), "voices that were told apart are kept"
    compute(recipe, lake, "speakers")
    after = guesses(recipe, lake)
    assert {name: after[name] for name in before} == before
    added = [after[name] for name in after.keys() - before.keys()]
    assert all(row["guess_new"] and row["split"] == "train" for row in added)
    held_out = next(iter(before.values()))["speaker_guess"]
    assert all(f"like one that is held out: {held_out}" in str(row["reject_reason"]) for row in added)
    assert {row["speaker_guess"] for row in added}.isdisjoint(row["speaker_guess"] for row in before.values())

    for stage in planned_anew(recipe, lake).values():
        compute_stage(stage, lake)
    anew = guesses_of(lake, planned_anew(recipe, lake)["speakers"].fingerprint)
    assert len(set(anew.values())) == 2


def test_what_is_fitted_hears_no_voice_that_is_held_out(tmp_path: Path, speaker_encoder: str) -> None:
    lake, clips = Lake(tmp_path / "lake"), tmp_path / "clips"
    recorded(clips, {"1088", "6848"})
    use = f"speakers={{use: [split], encoder: '{speaker_encoder}', similarity: 0.7}}"
    for salt in "abcdefgh":  # one that holds out one of two voices
        recipe = tiny(clips, use, "audio.held_out_share=0.5", f"audio.split_salt={salt}")
        compute(recipe, lake, "speakers")
        rows = guesses(recipe, lake)
        if len({row["split"] for row in rows.values()}) == 2:
            break
    by_voice = {row["speaker_guess"]: row["split"] for row in rows.values()}
    assert sorted(by_voice.values()) == ["held_out", "train"]
    assert all(by_voice[row["speaker_guess"]] == row["split"] and row["speaker"] is None for row in rows.values())
    fit = planned(recipe, lake, "quantizer").stages["hubert"]
    trained = {clip.key for clip in train_clips(fit.tables(lake)["audio"], 10, 0)}
    columns = ["utterance_id", "split"]
    audio = fit.tables(lake)["audio"].read(columns).to_pylist()
    assert trained == {row["utterance_id"] for row in audio if row["split"] == "train"}


def planned_anew(recipe: Recipe, lake: Lake) -> Mapping[str, Plan]:
    return plan_graph(speech_lm(recipe), lake, "speakers", refit=True).stages


def guesses_of(lake: Lake, fingerprint: str) -> dict[str, str]:
    rows = lake.view(lake.read_snapshot("speakers", fingerprint)).read(["utterance_id", "speaker_guess"]).to_pylist()
    return {row["utterance_id"]: row["speaker_guess"] for row in rows}


def test_who_is_named_is_not_guessed(tmp_path: Path, speaker_encoder: str) -> None:
    recorded(tmp_path / "clips", {"1088"})
    how = f"speakers={{use: [split, style], encoder: '{speaker_encoder}'}}"
    source = f"sources=[{{kind: folder, path: {tmp_path / 'clips'}, speaker: Ann}}]"
    recipe, lake = tiny(tmp_path, how, source), Lake(tmp_path / "lake")
    compute(recipe, lake, "speakers")
    assert {row["speaker"] for row in guesses(recipe, lake).values()} == {"Ann"}
    assert {row["speaker_guess"] for row in guesses(recipe, lake).values()} == {None}
    ref = lake.read_ref("tiny", "voices")
    artifact = lake.read_artifact("voices", ref.target)
    assert artifact.summary == {"recordings": 0, "voices": 0, "silhouette": None, "alone": 0}
    assert json.loads((lake.artifact_folder(artifact) / "voices.json").read_text())["each"] == []


def test_guesses_that_are_not_used_move_no_key(tmp_path: Path) -> None:
    sound(tmp_path / "clips" / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(24_000))
    encoder = tmp_path / "encoder.pt"
    encoder.write_bytes(b"weights")
    without = planned(tiny(tmp_path / "clips"), Lake(tmp_path / "lake"), "sequences").stages
    looked = speech_lm(tiny(tmp_path / "clips", f"speakers.encoder=file://{encoder}"))
    used = speech_lm(tiny(tmp_path / "clips", f"speakers={{encoder: 'file://{encoder}', use: [split]}}"))
    assert {"dvectors", "voices", "speakers"} <= looked.nodes.keys()
    assert not any("speakers" in {node.name for node in looked.made_from(name)} for name in without)
    assert "speakers" in {node.name for node in used.made_from("quantizer")}
    assert [node.name for node in used.nodes["units"].tables] == ["audio"], "only style units ask who speaks"
    assert {"dvectors", "speakers"}.isdisjoint(without)


def test_sentences_of_voices_that_may_be_held_out_are_not_spoken_again(tmp_path: Path) -> None:
    spoken = "{kind: speak, voices: [{engine: espeak}], texts: [{kind: transcripts}]}"
    spoken = f"sources=[{{kind: folder, path: {tmp_path}}}, {spoken}]"
    with pytest.raises(RecipeError, match=r"(?s)speakers.use: split.*transcripts"):
        tiny(tmp_path, spoken, "speakers={use: [split]}")


def test_an_x_vector_model_of_transformers_tells_voices_apart_too(tmp_path: Path) -> None:
    import torch
    from transformers import WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    narrow = {"conv_dim": [16] * 7, "tdnn_dim": [16, 16, 16, 16, 32], "xvector_output_dim": 24}
    WavLMForXVector(WavLMConfig(**shape, **narrow, num_conv_pos_embedding_groups=2)).save_pretrained(tmp_path / "model")
    embed = load_embedder(tmp_path / "model")
    waveform = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    vector = embed(waveform)
    assert vector.shape == (24,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert embed(0.1 * waveform) == pytest.approx(vector, abs=1e-3), "loudness says nothing of who speaks"
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelReferenceError, match="none"):
        load_embedder(tmp_path / "none")
