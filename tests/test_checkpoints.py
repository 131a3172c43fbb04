"""Checkpoints on disk: exact resume after kill -9, atomic writes, and which one is packed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_base
from tiny_base import expert

from expert_cli.errors import ManifestError, UsageError
from expert_cli.training import checkpoints, data, select
from expert_cli.training.checkpoints import Checkpoint
from expert_cli.training.data import Cursor

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
torch.set_num_threads(1)

from expert_cli.training import sft  # noqa: E402

RUNNER = """
import sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch, tiny_base
from expert_cli.training import data, sft
torch.set_num_threads(1)
folder, out, pause, dropout = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[4]), float(sys.argv[5])
manifest = tiny_base.expert(steps=12, checkpoint_every=3, batch_tokens=128, dropout=dropout)
base = tiny_base.describe(folder)
corpus = data.read(tiny_base.task, base, manifest.training, folder / "tokenizer.json")
for step in sft.Trainer(manifest, base, folder, corpus, device="cpu").run(out):
    sys.stdout.write(f"{step.step} {step.loss!r}\\n"); sys.stdout.flush()
    time.sleep(pause)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tiny_base.make(path)
    return path


def runner(folder: Path, out: Path, *, pause: float = 0.0, dropout: float = 0.0) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        RUNNER,
        str(folder),
        str(out),
        str(Path(__file__).parent),
        str(pause),
        str(dropout),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def weights(out: Path, step: int) -> str:
    return Checkpoint(step, out / f"step-{step}").adapter_sha256


@pytest.mark.parametrize(("dropout", "killed_after"), [(0.0, 5), (0.2, 7)])
def test_resume_after_sigkill_is_exact(folder: Path, tmp_path: Path, dropout: float, killed_after: int) -> None:
    whole, _ = runner(folder, tmp_path / "whole", dropout=dropout).communicate()
    losses = dict(line.split() for line in whole.splitlines())
    assert len(losses) == 12
    victim = runner(folder, tmp_path / "cut", pause=0.05, dropout=dropout)
    assert victim.stdout is not None
    for line in victim.stdout:
        if line.startswith(f"{killed_after} "):
            os.kill(victim.pid, signal.SIGKILL)
            break
    assert victim.wait() == -signal.SIGKILL
    victim.stdout.close()
    assert not (tmp_path / "cut" / "step-12").exists()
    rest, _ = runner(folder, tmp_path / "cut", dropout=dropout).communicate()
    resumed = dict(line.split() for line in rest.splitlines())
    saved = killed_after - killed_after % 3
    assert list(resumed) == [str(step) for step in range(saved + 1, 13)]
    assert resumed == {step: losses[step] for step in resumed}
    assert [weights(tmp_path / "cut", step) for step in (3, 6, 9, 12)] == [
        weights(tmp_path / "whole", step) for step in (3, 6, 9, 12)
    ]


def test_same_seed_same_bytes_other_seed_others(folder: Path, tmp_path: Path) -> None:
    digests = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        list(trainer(folder, seed=seed, steps=3, data={"count": 12}).run(tmp_path / name))
        files = ("adapter_model.safetensors", "adapter_config.json")
        digests[name] = [hashlib.sha256((tmp_path / name / "step-3" / file).read_bytes()).hexdigest() for file in files]
    assert digests["a"] == digests["b"]
    assert digests["a"][0] != digests["c"][0]


def trainer(folder: Path, **changes: Any) -> sft.Trainer:
    manifest = expert(**changes)
    base = tiny_base.describe(folder)
    corpus = data.read(tiny_base.task, base, manifest.training, folder / "tokenizer.json")
    return sft.Trainer(manifest, base, folder, corpus, device="cpu")


def test_folder_holds_what_explains_it(folder: Path, tmp_path: Path) -> None:
    made = trainer(folder)
    list(made.run(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-4", "step-8"]
    files = sorted(path.name for path in (tmp_path / "step-8").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors", "run.json", "state.pt"]
    run = json.loads((tmp_path / "step-8" / "run.json").read_text())
    assert run["manifest"] == made.manifest.as_dict()
    assert run["identity"]["base"] == tiny_base.describe(folder).digest
    assert run["identity"]["data"] == made.corpus.digest
    assert (run["step"], run["seed"], run["examples"], run["threads"]) == (8, 1, 40, 1)
    assert run["versions"].keys() == {"expert-cli", "python", "torch", "transformers", "peft", "numpy"}
    config = (tmp_path / "step-8" / "adapter_config.json").read_text()
    assert json.loads(config)["base_model_name_or_path"] == "tiny"
    assert json.loads(config)["target_modules"] == sorted(tiny_base.TARGETS)
    assert str(folder) not in config + json.dumps(run)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.01}, "training"),
        ({"data": {"count": 39}}, "data"),
        ({"r": 2}, "adapter"),
        ({"steps": 9}, "training"),
    ],
)
def test_resume_of_another_run_is_refused(folder: Path, tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    list(trainer(folder).run(tmp_path))
    before = weights(tmp_path, 8)
    with pytest.raises(UsageError, match=rf"trained with another {named};.*--no-resume"):
        list(trainer(folder, **changes).run(tmp_path))
    assert weights(tmp_path, 8) == before
    list(trainer(folder, **changes).run(tmp_path, resume=False))
    assert weights(tmp_path, 8) != before


@pytest.mark.parametrize(
    "changes", [{"evaluation": {"limit": 9}}, {"checkpoint_every": 2}, {"packaging_checkpoint": 4}]
)
def test_what_does_not_decide_the_weights_may_change(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    list(trainer(folder).run(tmp_path))
    assert list(trainer(folder, **changes).run(tmp_path)) == []


def test_write_is_all_or_nothing(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        (partial / "run.json").write_text("{}")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.write(tmp_path, 5, fail)
    assert checkpoints.found(tmp_path) == []
    checkpoints.write(tmp_path, 5, lambda partial: (partial / "run.json").write_text("{}"))
    assert [path.name for path in tmp_path.iterdir()] == ["step-5"]


def test_found_reads_names_as_numbers_and_ignores_others(tmp_path: Path) -> None:
    for name in ("step-10", "step-9", "step-0", "step-x", "step-1.partial", ".partial-step-3", "steps"):
        (tmp_path / name).mkdir()
    assert [checkpoint.step for checkpoint in checkpoints.found(tmp_path)] == [9, 10]
    assert checkpoints.found(tmp_path / "none") == []


def test_one_trainer_at_a_time(tmp_path: Path) -> None:
    with (
        checkpoints.held(tmp_path),
        pytest.raises(UsageError, match="being trained by another process"),
        checkpoints.held(tmp_path),
    ):
        pass
    with checkpoints.held(tmp_path):
        pass


# Data order


def test_order_is_a_function_of_seed_and_epoch() -> None:
    lengths = [5 + number * 13 % 90 for number in range(200)]
    one = data.order(lengths, 256, seed=1, epoch=0)
    assert one == data.order(lengths, 256, seed=1, epoch=0)
    assert one != data.order(lengths, 256, seed=1, epoch=1)
    assert one != data.order(lengths, 256, seed=2, epoch=0)
    assert sorted(row for batch in one for row in batch) == list(range(200))
    for batch in one:
        assert len(batch) * data.padded(max(lengths[row] for row in batch)) <= 256
    assert sum(len(batch) * data.padded(max(lengths[row] for row in batch)) for batch in one) < 1.1 * sum(
        map(data.padded, lengths)
    )


def test_a_row_longer_than_the_budget_stands_alone() -> None:
    assert sorted(map(sorted, data.order([100, 4, 5], 64, seed=0, epoch=0))) == [[0], [1, 2]]


def test_walk_goes_on_from_any_cursor(folder: Path) -> None:
    made = trainer(folder)
    steps = data.walk(made.corpus, 256, seed=1, cursor=Cursor())
    path = [next(steps) for _ in range(40)]
    assert max(cursor.epoch for _, cursor in path) > 1
    for at in (0, 7, 25):
        batch, cursor = next(data.walk(made.corpus, 256, seed=1, cursor=path[at][1]))
        assert (batch.tokens == path[at + 1][0].tokens).all() and cursor == path[at + 1][1]


def test_digest_follows_the_data(folder: Path) -> None:
    base = tiny_base.describe(folder)
    sources: list[dict[str, Any]] = [{}, {"count": 39}, {"prefix": "x"}, {"augment": 2}, {"count": 40}]
    digests = [
        data.read(tiny_base.task, base, expert(data=source).training, folder / "tokenizer.json").digest
        for source in sources
    ]
    assert len(set(digests)) == 4 and digests[0] == digests[4]


def test_long_examples_are_left_out_and_counted(folder: Path) -> None:
    base = tiny_base.describe(folder)
    corpus = data.read(tiny_base.task, base, expert(max_tokens=30).training, folder / "tokenizer.json")
    assert corpus.too_long == 16 and corpus.examples == 24
    assert max(len(example.tokens) for copy in corpus.copies for example in copy) <= 30


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"max_tokens": 3}, "no example of at most 3 tokens among 40"),
        ({"data": {"count": 0}}, "among 0"),
        ({"data": {"augment": 0}}, "augment: 0"),
        ({"data": {"augment": True}}, "augment: True"),
    ],
)
def test_data_that_cannot_be_used(folder: Path, changes: dict[str, Any], fault: str) -> None:
    base = tiny_base.describe(folder)
    with pytest.raises(ManifestError, match=fault):
        data.read(tiny_base.task, base, expert(**changes).training, folder / "tokenizer.json")


# Selection

SETTING = {"cases": {"limit": 5}, "decoding": (1, 2)}


def fake(run: Path, step: int, accuracy: float | None, *, adapter: bytes | None = None) -> Checkpoint:
    def fill(partial: Path) -> None:
        (partial / "adapter_model.safetensors").write_bytes(adapter or str(step).encode())
        (partial / "run.json").write_text(json.dumps({"loss": 0.5}))

    checkpoint = checkpoints.write(run, step, fill)
    if accuracy is not None:
        select.evaluated(checkpoint, SETTING, lambda folder: {"execution_accuracy": accuracy, "n": 5})
    return checkpoint


@pytest.mark.parametrize(
    ("accuracies", "wanted", "chosen", "reason"),
    [
        ({10: 0.2, 20: 0.6, 30: 0.4}, "best", 20, r"0\.6000, among 3 checkpoints"),
        ({10: 0.2, 20: 0.6, 30: 0.6}, "best", 20, "the earliest of 2 with it"),
        ({9: 0.5, 10: 0.5, 100: 0.5}, "best", 9, "the earliest of 3"),
        ({10: 0.2}, "best", 10, "among 1"),
        ({10: 0.2, 20: 0.6}, 10, 10, "names step 10"),
        ({10: None, 20: None}, 20, 20, "names step 20"),
    ],
)
def test_choice(
    tmp_path: Path, accuracies: dict[int, float | None], wanted: str | int, chosen: int, reason: str
) -> None:
    for step, accuracy in accuracies.items():
        fake(tmp_path, step, accuracy)
    choice = select.choose(checkpoints.found(tmp_path), wanted, SETTING)
    assert choice.checkpoint.step == chosen
    assert re.search(reason, choice.reason)


@pytest.mark.parametrize(
    ("accuracies", "wanted", "message"),
    [
        ({}, "best", "no checkpoint; train first"),
        ({10: 0.5, 20: 0.5}, 15, "names step 15, but there are 10, 20"),
        ({10: 0.5, 20: None, 30: None}, "best", r"step 20, 30 was never evaluated.*--evaluate end"),
    ],
)
def test_choice_refused(tmp_path: Path, accuracies: dict[int, float | None], wanted: str | int, message: str) -> None:
    for step, accuracy in accuracies.items():
        fake(tmp_path, step, accuracy)
    with pytest.raises(UsageError, match=message):
        select.choose(checkpoints.found(tmp_path), wanted, SETTING)


def test_evaluation_is_keyed_by_weights_and_setting(tmp_path: Path) -> None:
    calls: list[str] = []

    def evaluate(folder: Path) -> Mapping[str, Any]:
        calls.append(folder.name)
        return {"execution_accuracy": 0.25, "n": 5}

    checkpoint = fake(tmp_path, 1, None, adapter=b"one")
    assert select.evaluation(checkpoint, SETTING) is None
    for _ in range(2):
        assert select.evaluated(checkpoint, SETTING, evaluate)["execution_accuracy"] == 0.25
    assert calls == ["step-1"]
    (checkpoint.folder / "adapter_model.safetensors").write_bytes(b"two")
    assert select.evaluation(checkpoint, SETTING) is None
    assert select.evaluation(checkpoint, None) is None
    select.evaluated(checkpoint, SETTING, evaluate)
    select.evaluated(checkpoint, {"cases": {"limit": 6}}, evaluate)
    assert calls == ["step-1"] * 3


def test_partial_is_swept_by_the_next_run(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".partial-step-4").mkdir()
    (tmp_path / ".partial-step-4" / "state.pt").write_bytes(b"cut")
    list(trainer(folder).run(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-4", "step-8"]
