"""Pre-training a tiny base: tokenizer, training, resuming, and files that every reader takes."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_base
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer

from expert_cli import manifest as manifests
from expert_cli import paths
from expert_cli.cli import main
from expert_cli.errors import ManifestError, UsageError
from expert_cli.training import base, pretrain, recipe
from experts.sql.pointers import MARKS, TOKENS

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = ["<pad>", "<s>", "<q>", "<sql>", "<e>"]
RECIPE: dict[str, Any] = {
    "format": 1, "kind": "pretraining", "id": "tiny", "task": "sums", "surface": "names", "licence": "Apache-2.0",
    "template": {"start": "<s>", "system": ["", ""], "user": ["<q>", ""], "assistant": ["<sql>", "<e>"]},
    "end": ["<e>"],
    "tokenizer": {"vocabulary": 288, "examples": 20, "special": SPECIAL, "numbered": {"c": 3}},
    "model": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 16, "context": 128, "rope_theta": 10000.0},
    "data": {"count": 40},
    "sources": [{"name": "sums", "licence": "none", "use": "all"}],
    "training": {"batch_tokens": 512, "max_tokens": 64, "learning_rate": 0.01, "embedding_learning_rate": 0.01,
                 "warmup_steps": 2, "final": 0.1, "weight_decay": 0.0, "minutes": 0.5, "seed": 3,
                 "checkpoint_minutes": 0.1},
}  # fmt: skip


def changed(**values: Any) -> dict[str, Any]:
    """The recipe with fields of it or of its training replaced."""
    made = copy.deepcopy(RECIPE)
    for key, value in values.items():
        next(part for part in (made["training"], made["tokenizer"], made) if key in part)[key] = value
    return made


def ticking() -> Callable[[], float]:
    """A clock by which every step takes one second, so that the budget of 30 seconds is 30 steps."""
    ticks = itertools.count()
    return lambda: float(next(ticks))


def begun(folder: Path, plan: dict[str, Any] = RECIPE) -> pretrain.Run:
    run = pretrain.Run(plan, tiny_base.task, folder, 1)
    run.prepare()
    return run


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to the end and its base in ``base``."""
    folder = tmp_path_factory.mktemp("run")
    run = begun(folder)
    base.write(run.train(clock=ticking()), run.tokenizer, RECIPE, folder / "log.jsonl", folder / "base")
    return folder


def notes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_budget_is_used_and_the_loss_falls(trained: Path) -> None:
    log = notes(trained)
    assert (log[0]["event"], log[0]["kept"]) == ("data", 40)
    assert [note["step"] for note in log[1:]] == [20, 30]
    assert log[-1]["used"] == 30
    assert log[-1]["loss"] < log[1]["loss"] < 5.0
    assert state(trained)["step"] == 30


class Interrupted(Exception):
    pass


def test_a_resumed_run_ends_as_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise Interrupted(line)

    with pytest.raises(Interrupted, match="step 20"):
        begun(tmp_path).train(stop, ticking())
    assert 0 < state(tmp_path)["step"] < 20
    begun(tmp_path).train(clock=ticking())
    for name, tensor in state(trained)["model"].items():
        assert torch.equal(tensor, state(tmp_path)["model"][name]), name


def test_a_finished_run_is_not_trained_again(trained: Path) -> None:
    before = state(trained)["model"]
    model = begun(trained).train(clock=ticking())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("change", [{"data": {"count": 41}}, {"vocabulary": 300}, {"seed": 4}, {"surface": "pointers"}])
def test_another_recipe_needs_another_folder(trained: Path, change: dict[str, Any]) -> None:
    with pytest.raises(
        UsageError, match=f"another {next(iter(change)).replace('vocabulary', 'tokenizer')}.*give another"
    ):
        begun(trained, changed(**change))
    begun(trained, changed(minutes=0.6))


def test_examples_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of 40 examples fits max_tokens = 3"):
        begun(tmp_path, changed(max_tokens=3))
    assert not (tmp_path / "data.npz").exists()


def test_base_files_agree(trained: Path) -> None:
    """The manifest is valid, its digests are the files', and both runtimes read the same weights."""
    from llama_cpp import Llama
    from transformers import AutoModelForCausalLM

    folder = trained / "base"
    manifest = manifests.load_base(folder / "base-tiny.json")
    assert {path.name for path in folder.iterdir()} == {
        *(entry.name for entry in manifest.files.values()),
        *("base-tiny.json", "card.md", "loss.svg"),
    }
    assert all((folder / entry.name).stat().st_size == entry.size for entry in manifest.files.values())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert sum(parameter.numel() for parameter in model.parameters()) == manifest.parameters
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode("<s><q>1+2<sql>", add_special_tokens=False).ids
    assert ids[0] == tokenizer.token_to_id("<s>")
    llama = Llama(str(folder / "tiny.gguf"), n_ctx=64, logits_all=True, verbose=False, n_threads=1)
    assert llama.tokenize(b"<s><q>1+2<sql>", add_bos=False, special=True) == ids
    llama.eval(ids)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(llama.scores[: len(ids)] - expected).max() < 0.02
    llama.close()


def test_card_and_curve(trained: Path) -> None:
    card = (trained / "base" / "card.md").read_text()
    assert "| training examples | 40 |" in card
    assert "| steps | 30 |" in card
    assert "| sums | none | all |" in card
    assert (trained / "base" / "loss.svg").read_text().startswith("<svg")


def test_curve_of_one_point() -> None:
    assert "polyline" in base.curve([{"step": 1, "tokens": 10, "loss": 0.0}])


def test_special_tokens_follow_the_learnt_ones(trained: Path) -> None:
    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    expected = [*SPECIAL, "<c0>", "<c1>", "<c2>"]
    assert [tokenizer.id_to_token(size - 8 + place) for place in range(8)] == expected
    for text in ("héllo  wörld 日本\n\t'quoted' 123", "a<c1>b<c9>"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_batches_are_a_function_of_the_seed() -> None:
    data = [pretrain.Encoded(np.arange(length, dtype=np.int32), 1) for length in range(2, 90)]

    def first(seed: int) -> list[list[int]]:
        return [[len(item.ids) for item in batch] for batch in itertools.islice(pretrain.batches(data, 256, seed), 60)]

    assert first(1) == first(1) != first(2)
    epoch = [length for batch in first(1) for length in batch][: len(data)]
    assert sorted(epoch) == list(range(2, 90)), "an epoch holds every example once"
    assert all(-(-max(batch) // 32) * 32 * len(batch) <= 256 for batch in first(1) if len(batch) > 1)


def test_the_loss_is_on_the_completion_alone() -> None:
    items = [pretrain.Encoded(np.array([5, 6, 7, 8]), 2), pretrain.Encoded(np.array([9, 4, 3]), 1)]
    ids, places, targets = pretrain.pad(items, torch.device("cpu"))
    assert ids.shape == (2, 32)
    assert targets.tolist() == [7, 8, 4, 3]
    assert ids.flatten()[places].tolist() == [6, 7, 9, 4]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"kind": "base"}, "pretraining"),
        ({"licence": 1}, "licence: 1 is not a text"),
        ({"minutes": "62"}, "training.minutes: '62' is not a number"),
        ({"seed": True}, "training.seed: True is not a whole number"),
        ({"tokenizer": []}, "tokenizer: [] is not an object"),
        ({"special": ["<pad>", "<s>"]}, "tokenizer.special: '<e>' is missing"),
    ],
)
def test_faulty_recipes(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(changed(**change)))
    with pytest.raises(ManifestError) as caught:
        recipe.read(path)
    assert fault in str(caught.value)


def test_faults_of_a_recipe_come_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"format": 1, "kind": "pretraining", "model": {}}')
    with pytest.raises(ManifestError) as caught:
        recipe.read(path)
    assert {"id: missing", "training: missing", "model.head_dim: missing"} <= set(caught.value.faults)


def test_the_shipped_recipe_is_valid_and_names_every_pointer() -> None:
    shipped = recipe.read(ROOT / "manifests" / "pretrain-nano.json")
    assert set(TOKENS) <= set(pretrain.specials(shipped["tokenizer"]))


def test_command_makes_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From questions about the sample shop to the files of a base that the manifest reader takes."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "shop.sqlite").write_bytes((paths.packaged("sample") / "shop.sqlite").read_bytes())
    (tmp_path / "train.json").write_text(json.dumps([{"db_id": "shop"}]))
    monkeypatch.setenv("EXPERT_DATA", str(tmp_path))
    source = {"synthetic": 30, "databases": "", "of": ["train.json"]}
    plan = changed(data={"sources": [source]}, special=[*SPECIAL, *MARKS], max_tokens=2000, batch_tokens=2000)
    plan |= {"task": "sql", "surface": "pointers"}
    plan["tokenizer"] |= {"vocabulary": 450, "numbered": {"t": 16, "c": 96, "v": 12}}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(plan))
    command = ["pretrain", str(path), "--out", str(tmp_path / "out"), "--minutes", "0.005", "--threads", "1"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert manifests.load_base(Path(done.stdout.strip()) / "base-tiny.json").surface == "pointers"


def test_command_refuses_a_faulty_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text("{")
    done = CliRunner().invoke(main, ["pretrain", str(path), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, ManifestError)
    assert not (tmp_path / "out").exists()
