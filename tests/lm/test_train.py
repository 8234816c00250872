from __future__ import annotations

import json
import os
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from spiritlm_core.errors import CheckpointError, TrainingError
from spiritlm_core.fit.job import FitJob
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lm.config import LmCompute, OptimizerConfig
from spiritlm_core.lm.model.network import load_pretrained
from spiritlm_core.lm.train.checkpoint import read_state
from spiritlm_core.lm.train.data import Batch, TokenRangeError
from spiritlm_core.lm.train.objective import Objective
from spiritlm_core.lm.train.optimizer import build_optimizer, learning_rate, optimise
from spiritlm_core.lm.train.step import StepLosses, Validation
from spiritlm_core.tokens.config import SequencesConfig
from spiritlm_core.tokens.hf import load_vocabulary
from tests.lm.training import assert_same_weights, losses, run, started
from tests.support.small_model import tiny_config
from tests.support.watching import PATIENCE, wait_for


def test_loss_falls_and_the_run_is_reported(job: FitJob) -> None:
    summary, told = run(replace(job, config=tiny_config(steps=40)))
    found = [loss for _, loss, _ in losses(job.out)]
    assert sum(found[-5:]) < 0.8 * sum(found[:5])
    assert summary["steps"] == len(found) == 40
    assert told[-1][0] == 1.0
    assert "step 40/40" in told[-1][1]
    rows = pq.read_table(job.out / "metrics.parquet").to_pylist()
    assert all(row["tokens_per_second"] > 0 and row["gradient_norm"] > 0 for row in rows)
    streams = [
        [row[f"loss_{name}"] for row in rows if row[f"loss_{name}"]] for name in ("text", "speech", "interleaved")
    ]
    assert all(len(values) > 5 for values in streams)


def test_killed_and_resumed_run_equals_an_undisturbed_one_bit_for_bit(job: FitJob, parquet: Path) -> None:
    """SIGKILL between checkpoints, more than one epoch, random state and optimiser included."""
    long = replace(job, config=tiny_config(steps=160))
    undisturbed = replace(long, work=job.work.parent / "other", out=job.work.parent / "expected")
    run(undisturbed)
    process = started(long, parquet)
    wait_for(
        lambda: [path for path in job.work.glob("checkpoints/step-*/state.json") if "00000004" not in str(path)],
        process,
    )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not job.out.exists()
    state = read_state(max((job.work / "checkpoints").glob("step-*/state.json")).parent)
    assert 8 <= state.step < 160
    run(long)
    assert losses(job.out) == losses(undisturbed.out)
    epochs = max(
        cursor[0] for cursor in read_state(job.work / "checkpoints" / "step-00000160").data["streams"].values()
    )
    assert epochs >= 1
    assert_same_weights(job.out, undisturbed.out)


def test_sigterm_saves_before_leaving(job: FitJob) -> None:
    rare = job.compute.model_copy(update={"checkpoint_every": 1000, "log_every": 1})
    before = signal.getsignal(signal.SIGTERM)

    def terminate(fraction: float, message: str) -> None:
        if message.startswith("step 3/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError, match="asked to stop; step 4 is saved in .*step-00000004"):
        replace(job, compute=rare).run(terminate)
    assert signal.getsignal(signal.SIGTERM) == before
    run(job)
    undisturbed = replace(job, work=job.work.parent / "other", out=job.work.parent / "expected")
    run(undisturbed)
    assert losses(job.out) == losses(undisturbed.out)


def test_divergence_stops_with_the_last_good_checkpoint_intact(job: FitJob) -> None:
    run(job)
    good = job.work / "checkpoints" / "step-00000012"
    wild = OptimizerConfig(learning_rate=1.0, schedule="constant", warmup_steps=0, clip_norm=1e38)
    longer = replace(job, config=tiny_config(steps=200, optimizer=wild))
    with pytest.raises(TrainingError, match="diverged.*last good checkpoint is .*step-0"), poisoned_after(20):
        run(longer)
    state = read_state(longer.work / "checkpoints" / "step-00000020")
    assert good.exists() or state.step == 20
    saved = torch.load(next((longer.work / "checkpoints" / "step-00000020").glob("random-0.pt")), weights_only=True)
    assert set(saved) >= {"cpu"}
    assert all(row["loss"] == row["loss"] for row in state.rows)


class poisoned_after:  # noqa: N801 - reads as a sentence
    """Makes the forward pass give NaN after so many calls, as an overflow does."""

    def __init__(self, step: int) -> None:
        self.left = step - 12

    def __enter__(self) -> None:
        self.real = Objective.forward

        def loss_or_nan(objective: Objective, batch: Batch, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
            self.left -= objective.training
            loss, nats = self.real(objective, batch, scale)
            return (loss, nats) if self.left >= 0 else (loss * float("nan"), nats * float("nan"))

        Objective.forward = loss_or_nan  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        Objective.forward = self.real  # type: ignore[method-assign]


def test_an_explicit_checkpoint_that_cannot_be_loaded_is_an_error(job: FitJob) -> None:
    with pytest.raises(CheckpointError, match="nowhere.*not a complete checkpoint"):
        run(replace(job, resume_from=job.work / "nowhere"))
    run(job)
    good = job.work / "checkpoints" / "step-00000012"
    other = replace(job, work=job.work.parent / "other", resume_from=good)
    wider = tiny_config().lm.architecture.model_copy(update={"hidden_size": 64})
    with pytest.raises(CheckpointError, match="cannot be loaded into this model"):
        run(replace(other, config=tiny_config(architecture=wider)))
    for shard in good.glob("*.distcp"):
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        run(other)


def test_another_vocabulary_is_refused(job: FitJob) -> None:
    run(job)
    config = tiny_config()
    sizes = SequencesConfig(hubert=61, pitch=8, style=3)  # as many ids, with other meanings
    changed = config.model_copy(update={"tokens": config.tokens.model_copy(update={"sequences": sizes})})
    with pytest.raises(CheckpointError, match="vocabulary"):
        run(replace(job, config=changed))


def test_ids_beyond_the_vocabulary_are_refused(job: FitJob, monkeypatch: pytest.MonkeyPatch) -> None:
    import spiritlm_core.lm.train.source as module

    def spoilt(*arguments: Any, **options: Any) -> Any:
        for pack, state in real(*arguments, **options):
            pack.input_ids[3] = 9999
            yield pack, state

    real = module.training_batches
    monkeypatch.setattr(module, "training_batches", spoilt)
    with pytest.raises(TokenRangeError, match="token id 9999"):
        run(job)


def test_a_corpus_from_another_tokenizer_is_refused(job: FitJob, parquet: Path) -> None:
    """As large as the right one, so that every id is in range."""
    from tests.lm import corpora

    other = corpora.tokenizer([line.upper() for line in corpora.sentences(200)], job.work.parent / "other-tokenizer")
    process = started(replace(job, models={"tokenizer": other}), parquet)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert b"made with another tokenizer: the text of u00000" in told
    assert b"Traceback" not in told


def test_old_checkpoints_go_and_half_written_ones_do_not_count(job: FitJob) -> None:
    run(job)
    folder = job.work / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000008", "step-00000012"]
    (folder / "step-00000012" / "state.json").unlink()
    (folder / "step-00000099").mkdir()
    undisturbed = losses(job.out)
    again = replace(job, out=job.out.parent / "again")
    run(again)
    assert losses(again.out) == undisturbed


@pytest.mark.parametrize(
    ("weights", "more"), [({"text": 0.25, "speech": 2.0}, {"new_rows_learning_rate": 3e-2}), ({}, {"kind": "muon"})]
)
def test_two_ranks_learn_what_one_does(
    job: FitJob, parquet: Path, weights: dict[str, float], more: dict[str, Any]
) -> None:
    """FSDP over two processes: same sequences in every step, loss over all tokens, so the same curve up to rounding."""
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=3, **more)
    job = replace(job, config=tiny_config(stream_weights=weights, optimizer=optimizer))
    run(job)
    two = replace(job, work=job.work.parent / "work2", out=job.out.parent / "out2")
    process = started(two, parquet, ranks=2)
    out, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told.decode()[-3000:]
    assert json.loads(out.decode().splitlines()[-1])["steps"] == 12
    one, both = losses(job.out), losses(two.out)
    assert [row[0] for row in both] == [row[0] for row in one]
    torch.testing.assert_close([row[1] for row in both], [row[1] for row in one], rtol=1e-6, atol=1e-6)
    assert json.loads((two.out / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    # a checkpoint of two ranks goes on with one
    shorter = replace(two, out=job.out.parent / "out3", resume_from=two.work / "checkpoints" / "step-00000008")
    run(replace(shorter, work=job.work.parent / "work3"))
    torch.testing.assert_close(losses(shorter.out), both, rtol=1e-5, atol=1e-5)


def test_training_ends_where_the_held_out_loss_falls_no_more(job: FitJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once or interrupted, with the model of the last step or the best one; the report says so."""
    real, looks = Validation.losses, {2: 1.0, 4: 0.5, 6: 2.0, 8: 3.0}  # it seems to get worse after step 4

    def worse(validation: Validation) -> StepLosses:
        found = real(validation)
        return StepLosses(found.sums * looks[validation._run.state.step], found.counts)

    monkeypatch.setattr(Validation, "losses", worse)
    config = tiny_config(steps=24, validate_every=2, patience=2, export="best")
    job = replace(job, config=config)
    summary, told = run(job)
    end = "after 8 of 24 steps: the held-out loss was lowest at step 4"
    assert (summary["steps"], summary["validation_step"], summary["ended_early"]) == (8, 4, end)
    assert told[-1] == (1.0, f"training ended {end}")
    record = json.loads((job.out / "training.json").read_text())
    assert (record["steps"], record["ended_early"], len(losses(job.out))) == (8, end, 8)

    again = replace(job, work=job.work / "again", out=job.out / "again")
    with pytest.raises(TrainingError, match="step 7 is saved"):
        stopped_at(again, 6)
    for _ in range(2):  # the second time as if killed while it wrote the model: nothing is trained further
        run(again)
        assert losses(again.out) == losses(job.out)
        assert_same_weights(again.out, job.out)
    there = replace(job, config=tiny_config(steps=4), resume_from=job.work / "checkpoints" / "step-00000004")
    run(replace(there, work=job.work / "there", out=job.out / "there"))
    assert_same_weights(job.out, job.out / "there")


def stopped_at(job: FitJob, step: int) -> None:
    """Run a job that is asked to stop behind a step."""

    def ask(_: float, message: str) -> None:
        if message.startswith(f"step {step}/"):
            job.work.joinpath("stop").touch()

    replace(job, compute=job.compute.model_copy(update={"log_every": 1})).run(ask)


def test_new_rows_may_have_a_learning_rate_of_their_own(published: Path) -> None:
    """Of two runs with one rate each: text rows and all else as in one of them, new rows as in the other."""
    vocabulary = load_vocabulary(published)
    moved = {}
    for name, rates in {"slow": (1e-3, None), "fast": (4e-3, None), "both": (1e-3, 4e-3)}.items():
        config = OptimizerConfig(learning_rate=rates[0], new_rows_learning_rate=rates[1])
        model = load_pretrained(published)
        optimizer = build_optimizer(model, config)
        ids = torch.tensor([[5, 9, vocabulary.speech_marker, vocabulary.unit_id("Hu", 3), vocabulary.unit_id("Pi", 1)]])
        model(input_ids=ids, labels=ids).loss.backward()
        optimise(optimizer, model, vocabulary.text_size, config)
        moved[name] = {key: value.detach().clone() for key, value in model.state_dict().items()}
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    text = vocabulary.text_size
    for key, both in moved["both"].items():
        slow, fast = moved["slow"][key], moved["fast"][key]
        if key not in tables:
            assert torch.equal(both, slow), key
            continue
        assert torch.equal(both[:text], slow[:text])
        torch.testing.assert_close(both[text:], fast[text:], rtol=1e-6, atol=1e-8)
        assert not torch.allclose(both[text:], slow[text:], rtol=1e-3)


def test_accumulation_does_not_change_the_step(job: FitJob) -> None:
    run(job)
    small = replace(job, work=job.work.parent / "w1", out=job.out.parent / "o1", compute=LmCompute(micro_batch=1))
    run(small)
    torch.testing.assert_close(losses(small.out), losses(job.out), rtol=1e-5, atol=1e-5)


def test_bf16_on_a_cpu_learns_as_float32_does(job: FitJob) -> None:
    """Up to the rounding of products to 8 bits; `auto` is float32 on a CPU without bf16 tiles."""
    found = {}
    for precision in ("auto", "fp32", "bf16"):
        compute = job.compute.model_copy(update={"use_gpu": False})
        mine = replace(job, compute=compute, config=tiny_config(precision=precision), out=job.out / precision)
        run(replace(mine, work=job.work / precision))
        found[precision] = [loss for _, loss, _ in losses(mine.out)]
    assert found["auto"] == found["fp32"] != found["bf16"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.02)


@pytest.mark.parametrize(("tiles", "expected"), [(True, [True, True, False]), (False, [False, True, False])])
def test_auto_is_bf16_on_a_cpu_with_tiles(tiles: bool, expected: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spiritlm_core.fit.ranks.has_amx", lambda: tiles)
    assert [Ranks.current(False, precision).bf16 for precision in ("auto", "bf16", "fp32")] == expected


def test_activation_checkpointing_and_bf16_run(job: FitJob) -> None:
    config = tiny_config(steps=3, precision="bf16")
    for kind in ("selective", "full"):
        compute = job.compute.model_copy(update={"activation_checkpointing": kind})
        run(replace(job, config=config, compute=compute, work=job.work.parent / kind))
    assert len(losses(job.out)) == 3
    record = json.loads((job.out / "config.json").read_text())
    assert record["architectures"] == ["LlamaForCausalLM"]
    assert (record.get("dtype") or record.get("torch_dtype")) == "bfloat16"


def test_asynchronous_checkpoints_hold_what_synchronous_ones_do(job: FitJob) -> None:
    """Each is a copy of its step: training goes on while it is written."""
    run(job)
    background = job.compute.model_copy(update={"async_checkpoints": True, "keep_checkpoints": 9})
    other = replace(job, compute=background, work=job.work.parent / "w", out=job.out.parent / "o")
    run(other)
    shorter = replace(job, out=job.out.parent / "o3", work=job.work.parent / "w3")
    run(replace(shorter, resume_from=other.work / "checkpoints" / "step-00000004"))
    assert losses(shorter.out) == losses(other.out) == losses(job.out)
    assert_same_weights(shorter.out, job.out)


@pytest.mark.parametrize("background", [False, True])
def test_a_checkpoint_that_cannot_be_written_is_one_clear_error(job: FitJob, background: bool) -> None:
    """What a full disk does; the last good checkpoint stays, and half of the new one does not."""
    job = replace(job, compute=job.compute.model_copy(update={"async_checkpoints": background}))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(fraction: float, message: str) -> None:
        if message.startswith("step 8/"):  # from here on no file may grow beyond this
            while not (job.work / "checkpoints" / "step-00000004" / ".metadata").exists():  # which is written last
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    try:
        with pytest.raises(CheckpointError, match="step-00000008: the checkpoint cannot be written.*step-00000004"):
            job.run(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (job.work / "checkpoints").iterdir()] == ["step-00000004"]
    run(job)
    assert len(losses(job.out)) == 12


def test_the_best_checkpoint_is_kept_and_can_become_the_model(job: FitJob, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looks = Validation.losses, iter((1.0, 0.5, 2.0, 3.0, 4.0, 5.0))  # it seems to get worse after step 8

    def worse(validation: Validation) -> StepLosses:
        found = real(validation)
        return StepLosses(found.sums * next(looks), found.counts)

    monkeypatch.setattr(Validation, "losses", worse)
    config = tiny_config(steps=24, validate_every=4, export="best")
    summary, _ = run(replace(job, config=config))
    rows = pq.read_table(job.out / "metrics.parquet").to_pylist()
    held_out = {row["step"]: row["validation_loss"] for row in rows if row["validation_loss"] is not None}
    assert list(held_out) == [4, 8, 12, 16, 20, 24]
    best = min(held_out, key=lambda step: held_out[step])
    assert best == 8
    assert (summary["validation_step"], summary["validation_loss"]) == (best, held_out[best])
    kept = {path.name for path in (job.work / "checkpoints").iterdir()}
    assert kept == {f"step-{best:08d}", "step-00000020", "step-00000024"}
    there = replace(job, config=tiny_config(steps=8), resume_from=job.work / "checkpoints" / "step-00000008")
    there = replace(there, work=job.work.parent / "w", out=job.out.parent / "o")
    summary, _ = run(there)  # nothing is left to do but to write the model
    assert_same_weights(job.out, there.out)
    assert summary["validation_step"] is None


def test_a_first_phase_trains_new_tokens_alone(job: FitJob) -> None:
    from safetensors.torch import load_file

    base = job.work.parent / "base"
    fresh_text_model(base, job.models["tokenizer"])
    first = replace(job, models={**job.models, "base": base}, config=tiny_config(steps=4, new_tokens_first=4))
    run(first)
    before, after = load_file(base / "model.safetensors"), load_file(job.out / "model.safetensors")
    rows = len(before["model.embed_tokens.weight"])
    table = after.pop("model.embed_tokens.weight")
    assert torch.equal(table[:rows], before.pop("model.embed_tokens.weight"))
    assert not torch.equal(table[rows:], run_one_step_fewer(first)[rows:])
    assert all(torch.equal(after[name], before[name]) for name in before if name != "lm_head.weight")
    both = replace(first, config=tiny_config(steps=8, new_tokens_first=4), work=job.work.parent / "w")
    run(both)
    later = load_file(job.out / "model.safetensors")
    assert not torch.equal(later["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"])


def run_one_step_fewer(job: FitJob) -> torch.Tensor:
    from safetensors.torch import load_file

    fewer = replace(job, config=tiny_config(steps=3, new_tokens_first=4), work=job.work.parent / "3", out=job.out / "3")
    run(fewer)
    return load_file(fewer.out / "model.safetensors")["model.embed_tokens.weight"]


def fresh_text_model(out: Path, tokenizer: Path) -> None:
    """An untrained model of the text tokens alone."""
    from spiritlm_core.lm.model.network import build_model
    from spiritlm_core.tokens.text import TextTokenizer
    from spiritlm_core.tokens.vocabulary import Vocabulary

    config = tiny_config(vocabulary_multiple=1).lm
    size = TextTokenizer.load(tokenizer).size
    build_model(config, Vocabulary(size - 3, hubert=1, pitch=0, style=0), context_length=128).save_pretrained(out)


def test_a_file_asks_a_run_to_save_and_stop(job: FitJob) -> None:
    """For workers that no signal reaches."""

    def ask(fraction: float, message: str) -> None:
        if message.startswith("step 4/"):
            (job.work / "stop").touch()

    with pytest.raises(TrainingError, match="asked to stop; step 5 is saved"):
        job.run(ask)
    assert read_state(job.work / "checkpoints" / "step-00000005").step == 5


def test_tensorboard_has_the_curves(job: FitJob) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(job)
    events = EventAccumulator(str(job.out / "tensorboard"))
    events.Reload()
    assert {"loss/all", "loss/speech", "validation/loss", "run/data_wait", "run/memory"} <= set(
        events.Tags()["scalars"]
    )
    curve = [(event.step, event.value) for event in events.Scalars("loss/all")]
    assert [step for step, _ in curve] == list(range(1, 13))
    assert [value for _, value in curve] == pytest.approx([row[1] for row in losses(job.out)])


def test_schedules() -> None:
    peak = 1e-2
    constant = OptimizerConfig(learning_rate=peak, schedule="constant", warmup_steps=10)
    assert learning_rate(constant, 0, 100) == pytest.approx(peak / 10)
    assert learning_rate(constant, 9, 100) == learning_rate(constant, 99, 100) == pytest.approx(peak)
    cosine = constant.model_copy(update={"schedule": "cosine", "final_share": 0.1})
    values = [learning_rate(cosine, step, 100) for step in range(10, 101)]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1]) == (pytest.approx(peak), pytest.approx(0.1 * peak))
    wsd = constant.model_copy(update={"schedule": "wsd", "final_share": 0.0, "decay_share": 0.2})
    assert learning_rate(wsd, 79, 100) == pytest.approx(peak)
    assert learning_rate(wsd, 90, 100) == pytest.approx(peak / 2)
