"""The trainer against PEFT and transformers on the same bytes, and what carries loss."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tiny_base
from tiny_base import TARGETS, expert

from expert_cli.errors import BaseModelError, UsageError
from expert_cli.manifest import BaseManifest, ExpertManifest
from expert_cli.training import data

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from expert_cli.training import layers, sft  # noqa: E402

# PEFT asks transformers by a name that the latter has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tiny_base.make(path)
    return path


@pytest.fixture
def base(folder: Path) -> BaseManifest:
    return tiny_base.describe(folder)


def trainer(manifest: ExpertManifest, base: BaseManifest, folder: Path, precision: str = "f32") -> sft.Trainer:
    corpus = data.read(tiny_base.task, base, manifest.training, folder / "tokenizer.json")
    return sft.Trainer(manifest, base, folder, corpus, precision=precision, device="cpu")


def first_batch(made: sft.Trainer) -> data.Batch:
    walk = data.walk(made.corpus, made.manifest.training.batch_tokens, seed=1, cursor=data.Cursor())
    return next(walk)[0]


def stock(folder: Path, adapter: Path) -> torch.nn.Module:
    """transformers' own layers under PEFT's own adapter."""
    model = transformers.Qwen3ForCausalLM.from_pretrained(str(folder), attn_implementation="eager")
    return peft.PeftModel.from_pretrained(model, str(adapter), is_trainable=True)


def stock_loss(model: torch.nn.Module, batch: data.Batch) -> torch.Tensor:
    """Each row alone, without padding; the mean over all completion tokens."""
    tokens = torch.from_numpy(batch.tokens)
    losses = []
    for row in range(len(tokens)):
        at = [int(flat) % tokens.shape[1] for flat in batch.at if int(flat) // tokens.shape[1] == row]
        logits = model(input_ids=tokens[row : row + 1, : at[-1] + 2]).logits[0, at]
        losses.append(torch.nn.functional.cross_entropy(logits, tokens[row, [p + 1 for p in at]], reduction="none"))
    return torch.cat(losses).mean()


def named(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("changes", [{}, {"type": "lora"}, {"target_modules": ["q_proj", "down_proj"]}])
def test_trainer_and_peft_agree(base: BaseManifest, folder: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    made = trainer(expert(steps=3, checkpoint_every=3, **changes), base, folder)
    *_, last = made.run(tmp_path)
    batch = first_batch(made)
    peer = stock(folder, last.checkpoint.folder)
    ours, theirs = made.loss(batch), stock_loss(peer, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    ours.backward()
    theirs.backward()
    mine, other = named(made.model), named(peer)
    assert mine.keys() == other.keys()
    assert any("magnitude" in name for name in mine) == (made.manifest.adapter.type == "dora")
    for name in mine:
        torch.testing.assert_close(mine[name], other[name], rtol=1e-3, atol=1e-6, msg=name)


def test_bf16_is_near_f32(base: BaseManifest, folder: Path) -> None:
    wide, narrow = (trainer(expert(), base, folder, precision) for precision in ("f32", "bf16"))
    batch = first_batch(wide)
    torch.testing.assert_close(narrow.loss(batch), wide.loss(batch), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_loss_falls(base: BaseManifest, folder: Path, tmp_path: Path, precision: str) -> None:
    made = trainer(expert(steps=40, checkpoint_every=40), base, folder, precision)
    losses = [step.loss for step in made.run(tmp_path)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5]), losses


def test_prompt_carries_no_loss(base: BaseManifest, folder: Path) -> None:
    """Only the completion is a target: what the prompt's tokens would be predicted as does not matter."""
    made = trainer(expert(), base, folder)
    example = made.corpus.copies[0][0]
    batch = data.collate([example])
    assert batch.targets.tolist() == example.tokens[example.prompt :].tolist()
    hidden = made.model.get_base_model().model(input_ids=torch.from_numpy(batch.tokens)).last_hidden_state[0]
    logits = made.model.get_base_model().lm_head(hidden)
    labels = torch.full((len(hidden),), -100)
    labels[batch.at] = torch.from_numpy(batch.targets)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(made.loss(batch), expected)
    assert (labels[: example.prompt - 1] == -100).all()


def test_vocabulary_is_projected_at_the_completion_alone(base: BaseManifest, folder: Path) -> None:
    made = trainer(expert(), base, folder)
    batch = first_batch(made)
    seen: list[int] = []
    made.model.get_base_model().lm_head.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    made.loss(batch)
    assert seen == [len(batch.targets)] and seen[0] < batch.tokens.size / 4


def test_padding_changes_nothing(base: BaseManifest, folder: Path) -> None:
    made = trainer(expert(), base, folder)
    long = max(made.corpus.copies[0], key=lambda example: len(example.tokens))
    short = min(made.corpus.copies[0], key=lambda example: len(example.tokens))
    alone = [made.loss(data.collate([example])) * (len(example.tokens) - example.prompt) for example in (long, short)]
    both = data.collate([long, short])
    torch.testing.assert_close(made.loss(both) * len(both.at), sum(alone), rtol=1e-5, atol=1e-5)


def test_only_the_adapter_learns(base: BaseManifest, folder: Path, tmp_path: Path) -> None:
    made = trainer(expert(steps=2), base, folder)
    frozen = {name: p.clone() for name, p in made.model.named_parameters() if not p.requires_grad}
    moving = {name: p.clone() for name, p in made.model.named_parameters() if p.requires_grad}
    list(made.run(tmp_path))
    after = dict(made.model.named_parameters())
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)
    assert all(not torch.equal(moving[name], after[name]) for name in moving)
    assert len(moving) == 2 * 3 * len(TARGETS)


def test_stop_writes_a_checkpoint(base: BaseManifest, folder: Path, tmp_path: Path) -> None:
    made = trainer(expert(steps=8, checkpoint_every=8), base, folder)
    steps = list(made.run(tmp_path, stop=lambda: made.step == 3))
    assert [step.step for step in steps] == [1, 2, 3]
    assert steps[-1].checkpoint is not None and steps[-1].checkpoint.folder.name == "step-3"


def test_loss_that_is_not_finite_ends_the_run(base: BaseManifest, folder: Path, tmp_path: Path) -> None:
    made = trainer(expert(), base, folder)
    for parameter in made.trained:
        parameter.data.fill_(float("nan"))
    with pytest.raises(UsageError, match=r"lower training\.learning_rate"):
        list(made.run(tmp_path))
    assert not list(tmp_path.glob("step-*"))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.775, 0.55]),
        ("cosine", [0.5, 1.0, 1.0, 0.868, 0.55]),
    ],
)
def test_schedule(schedule: str, expected: list[float]) -> None:
    training = expert(schedule=schedule, steps=10, warmup=0.2, learning_rate=1.0).training
    rates = [sft.schedule(step, training) for step in (0, 1, 2, 4, 6)]
    assert rates == pytest.approx(expected, abs=1e-3)


def test_missing_target_is_refused(base: BaseManifest, folder: Path) -> None:
    with pytest.raises(BaseModelError, match=r"no module w_proj.*target_modules"):
        trainer(expert(target_modules=["q_proj", "w_proj"]), base, folder)


def test_folder_without_model_is_refused(base: BaseManifest, folder: Path, tmp_path: Path) -> None:
    made = trainer(expert(), base, folder)
    with pytest.raises(BaseModelError, match=r"no config\.json"):
        sft.Trainer(expert(), base, tmp_path, made.corpus)


@pytest.mark.parametrize("shape", [(2, 8, 4, 2, 16), (1, 33, 6, 3, 8), (3, 5, 2, 2, 4)])
def test_attention_equals_sdpa(shape: tuple[int, ...]) -> None:
    rows, length, heads, groups, size = shape
    torch.manual_seed(0)
    kinds = (heads, groups, groups)
    mine, theirs = ([torch.randn(rows, n, length, size) for n in kinds] for _ in range(2))
    for one, other in zip(mine, theirs, strict=True):
        other.data.copy_(one)
        one.requires_grad_()
        other.requires_grad_()
    ours, _ = layers.causal_attention(torch.nn.Module(), *mine, None, scaling=0.3)
    stock = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, stock.transpose(1, 2))
    slope = torch.randn_like(ours)
    ours.backward(slope)
    stock.transpose(1, 2).backward(slope)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_norm_equals_the_stock_norm_and_learns() -> None:
    stock = transformers.models.qwen3.modeling_qwen3.Qwen3RMSNorm(16)
    stock.weight.data.uniform_(0.5, 1.5)
    x, y = (torch.linspace(-1, 2, 96).reshape(2, 3, 16).requires_grad_() for _ in range(2))
    out, expected = layers.Norm(stock)(x), stock(y)
    torch.testing.assert_close(out, expected)
    slope = torch.sin(torch.arange(96.0)).reshape(2, 3, 16)
    out.backward(slope)
    ours, stock.weight.grad = stock.weight.grad, None
    expected.backward(slope)
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours, stock.weight.grad)


def test_copies_differ_and_alternate(base: BaseManifest, folder: Path) -> None:
    manifest = expert(data={"count": 10, "augment": 2})
    corpus = data.read(tiny_base.task, base, manifest.training, folder / "tokenizer.json")
    one, two = ([bytes(example.tokens.tobytes()) for example in copy] for copy in corpus.copies)
    assert len(one) == len(two) == 10 and one != two
    batches = list(islice(data.walk(corpus, 10**6, seed=1, cursor=data.Cursor()), 3))
    rows = [sorted(map(tuple, batch.tokens.tolist())) for batch, _ in batches]
    assert rows[0] != rows[1] and rows[0] == rows[2]
