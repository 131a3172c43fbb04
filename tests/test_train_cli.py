"""``expert-cli train`` from manifest to report, with a task found by its entry point and llama.cpp evaluating."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_base
from click.testing import CliRunner, Result

from expert_cli.cli import main
from expert_cli.errors import BaseModelError, ExpertError, ManifestError, UsageError
from expert_cli.factory import runs
from expert_cli.runtime.bases import Base

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
torch.set_num_threads(1)

GRAMMAR = 'root ::= "=" [0-9] [0-9]?\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and an installed distribution that provides the task ``sums``."""
    folder = tmp_path_factory.mktemp("made")
    tiny_base.make(folder / "base")
    info = folder / "site" / "sums-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sums\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[expert_cli.tasks]\nsums = tiny_base:task\n")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``manifests/sums.json``, its grammar and the base, as a user would have it."""
    monkeypatch.syspath_prepend(made / "site")
    monkeypatch.chdir(tmp_path)
    for name, text in (("manifests/sums.json", json.dumps(manifest())), ("grammars/sums.gbnf", GRAMMAR)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    shutil.copytree(made / "base", tmp_path / "base")
    return tmp_path


def manifest(**changes: Any) -> dict[str, Any]:
    return tiny_base.expert(**changes).as_dict()


def train(*options: str) -> Result:
    return CliRunner().invoke(main, ["train", "--manifest", "manifests/sums.json", "--base", "base", *options])


def steps(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("step-*"))


def test_manifest_to_report(project: Path) -> None:
    done = train("--json", "--threads", "1", "--evaluate", "each")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    run = project / "runs" / "sums-tiny"
    assert report == json.loads((run / "report.json").read_text())
    assert [row["step"] for row in report["checkpoints"]] == [4, 8] and steps(run) == ["step-4", "step-8"]
    for row in report["checkpoints"]:
        kept = json.loads((run / f"step-{row['step']}" / "evaluation.json").read_text())
        assert kept["adapter_sha256"] == row["adapter_sha256"]
        assert kept["execution_accuracy"] == row["execution_accuracy"] and row["n"] == kept["n"] == 5
        answers = (run / f"step-{row['step']}" / "evaluation" / "predictions.jsonl").read_text().splitlines()
        assert [json.loads(line)["status"] for line in answers] == ["ok"] * 5
    best = max(report["checkpoints"], key=lambda row: (row["execution_accuracy"], -row["step"]))
    assert report["packed"]["step"] == best["step"] and "highest execution accuracy" in report["packed"]["reason"]
    assert f"| {best['step']} (packed) |" in (run / "report.md").read_text()
    assert "step 8/8" in done.stderr and "step 8: execution accuracy" in done.stderr


def test_what_is_learnt_is_what_chat_answers(project: Path) -> None:
    """Trainer, weave, renderer and decoder meet: the sums learnt by heart come back through llama.cpp."""
    change = {"steps": 160, "checkpoint_every": 80, "learning_rate": 0.03, "batch_tokens": 512}
    (project / "manifests/sums.json").write_text(json.dumps(manifest(**change, evaluation={"limit": 10})))
    report = json.loads(train("--json").stdout)
    assert report["checkpoints"][-1]["execution_accuracy"] >= 0.8, report["checkpoints"]


def test_second_call_trains_and_evaluates_nothing(project: Path) -> None:
    first, second = train("--json"), train("--json")
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert "step 8/8" in first.stderr and "step 8/8" not in second.stderr
    assert "evaluating" in first.stderr and "evaluating" not in second.stderr


def test_evaluation_may_follow_later(project: Path) -> None:
    done = train("--evaluate", "none", "--json")
    report = json.loads(done.stdout)
    assert report["packed"] is None and report["checkpoints"][0]["execution_accuracy"] is None
    assert "nothing yet" in (project / "runs/sums-tiny/report.md").read_text()
    assert json.loads(train("--json").stdout)["packed"]["step"] in (4, 8)


@pytest.mark.parametrize("part", ["decoding", "grammar"])
def test_another_decoding_or_grammar_is_evaluated_again(project: Path, part: str) -> None:
    train()
    if part == "grammar":
        (project / "grammars/sums.gbnf").write_text(GRAMMAR + "# the same\n")
    else:
        (project / "manifests/sums.json").write_text(json.dumps(manifest(decoding={"candidates": 2, "max_tokens": 8})))
    done = train()
    assert done.exit_code == 0 and done.stderr.count("evaluating") == 2 and "step 8/8" not in done.stderr


@pytest.mark.parametrize(("wanted", "packed"), [(4, 4), (8, 8)])
def test_named_step_needs_no_evaluation(project: Path, wanted: int, packed: int) -> None:
    (project / "manifests/sums.json").write_text(json.dumps(manifest(packaging_checkpoint=wanted)))
    report = json.loads(train("--evaluate", "none", "--json").stdout)
    assert report["packed"]["step"] == packed
    assert report["packed"]["reason"] == f"packaging_checkpoint names step {wanted}"


def test_steps_and_out(project: Path) -> None:
    done = train("--evaluate", "none", "--steps", "2", "--out", "elsewhere", "--precision", "f32")
    assert done.exit_code == 0 and steps(project / "elsewhere") == ["step-2"]
    assert done.stdout.startswith("# sums 0.1.0 on tiny")
    kept = json.loads((project / "elsewhere/step-2/run.json").read_text())
    assert kept["manifest"]["training"]["steps"] == 2 and kept["identity"]["precision"] == "f32"


@pytest.mark.parametrize(
    ("options", "change", "error", "message"),
    [
        (
            [],
            {"packaging_checkpoint": 5},
            UsageError,
            "names step 5, but a checkpoint is written every 4 steps and at 8",
        ),
        ([], {"evaluation": {"limit": 0}}, ManifestError, "limit: 0 is not a positive integer"),
        ([], {"evaluation": {"count": 0}}, ManifestError, "no case in it"),
        (["--evaluate", "none"], {"base": "other"}, BaseModelError, "no base 'other'"),
        (["--evaluate", "none"], {"target_modules": ["w_proj"]}, BaseModelError, "no module w_proj"),
        ([], {"grammar": "other.gbnf"}, UsageError, "no grammar other.gbnf; put it beside"),
        (["--evaluate", "none"], {"task": {"name": "none", "interface": 1}}, UsageError, "no plugin provides"),
    ],
)
def test_refused(
    project: Path, options: list[str], change: dict[str, Any], error: type[ExpertError], message: str
) -> None:
    (project / "manifests/sums.json").write_text(json.dumps(manifest() | manifest(**change)))
    done = train(*options)
    assert isinstance(done.exception, error) and message in str(done.exception)


def test_all_faults_of_a_manifest_at_once(project: Path) -> None:
    data = manifest() | {"version": "x", "adapter": {"type": "dora"}}
    (project / "manifests/sums.json").write_text(json.dumps(data))
    done = train("--evaluate", "none")
    assert isinstance(done.exception, ManifestError)
    assert len(done.exception.faults) == 5 and not (project / "runs").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_another_base_is_refused(project: Path, name: str) -> None:
    path = project / "base" / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    done = train("--evaluate", "none")
    assert isinstance(done.exception, BaseModelError) and name in str(done.exception)
    assert steps(project / "runs/sums-tiny") == []


def test_evaluate_must_be_given(project: Path) -> None:
    base = Base(tiny_base.describe(project / "base"), project / "base" / "base-tiny.json")
    with pytest.raises(UsageError, match="no evaluation was given"):
        runs.run(tiny_base.expert(), tiny_base.task, base, project / "out", when="each")


def test_interrupt_saves_a_checkpoint_and_exits_130(project: Path, made: Path) -> None:
    (project / "manifests/sums.json").write_text(json.dumps(manifest(steps=5000, checkpoint_every=5000)))
    command = [sys.executable, "-m", "expert_cli", "train", "--manifest", "manifests/sums.json", "--base", "base"]
    path = os.pathsep.join([str(made / "site"), str(Path(tiny_base.__file__).parent), os.environ.get("PYTHONPATH", "")])
    started = subprocess.Popen(
        [*command, "--evaluate", "none", "--threads", "1"], env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=project,
    )  # fmt: skip
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("step "):
            started.send_signal(signal.SIGINT)
            break
    out, err = started.communicate(timeout=120)
    assert started.returncode == 130, err
    assert out == "" and "Traceback" not in err and "goes on from there" in err
    (saved,) = steps(project / "runs/sums-tiny")
    assert 1 <= int(saved.removeprefix("step-")) < 5000


def test_missing_torch_is_named(project: Path) -> None:
    """A finder that knows no torch stands for an installation without the extra."""
    code = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Without())
from expert_cli.cli import run
sys.argv = ["expert-cli", "train", "--manifest", "manifests/sums.json", "--base", "base", "--evaluate", "none"]
run()
"""
    folders = [str(path) for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True, text=True, cwd=project, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and 'training needs torch; install it: pip install "expert-cli[train]"' in done.stderr
