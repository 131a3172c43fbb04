"""What packages cost: verify and unpack against sha256 and zstd alone, peak memory, ``list`` of 500, the resolver, a
signed index of 10,000 experts (benchmarks/index_scale.py), and installing from a registry on this machine against
``skopeo copy`` of the same artifact.

    python benchmarks/package.py [--size 80] [--large 1024] [--out package.json]

Sizes in MiB of adapter weights, drawn as bf16 from a normal distribution, which compresses as trained ones do. The
peers run in turn with ours and each counts with its fastest run, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import zstandard

from expert_cli import archive, paths, signing, store
from expert_cli.sources import oci, remote
from expert_cli.sources.resolve import Candidate, resolve
from expert_cli.store import lock
from expert_cli.trust import Pin, Trust

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import index_scale
import packages

MIB = 1 << 20
RANK, MODULES = 64, ("q_proj", "v_proj")
BUDGET = {"registry_ratio": 1.5, "ratio": 0.8, "peak_mib": 100, "list_s": 0.3, "resolve_s": 1.0}
BUDGET |= index_scale.BUDGET


def made(folder: Path, mib: int, key: signing.PrivateKey) -> Path:
    """A signed archive with ``mib`` MiB of weights."""
    width = 4096
    layer = len(MODULES) * 2 * (2 * RANK * width + width)
    layers = max(1, mib * MIB // layer)
    random = np.random.default_rng(0)
    shapes = {"lora_A.weight": (RANK, width), "lora_B.weight": (width, RANK), "lora_magnitude_vector": (width,)}
    names = {
        f"m.layers.{number}.self_attn.{module}.{part}": shape
        for number in range(layers)
        for module in MODULES
        for part, shape in shapes.items()
    }
    header, at = {}, 0
    for name, shape in names.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    weights = folder / "weights"
    with weights.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in names.values():
            values = random.normal(0, 0.02, shape).astype(np.float32).view(np.uint32) >> 16
            file.write(values.astype(np.uint16).tobytes())
    adapter = {"type": "dora", "r": RANK, "alpha": 4, "dropout": 0.0, "target_modules": list(MODULES)}
    members = packages.members(adapter=adapter) | {"adapter_model.safetensors": weights}
    members["adapter_config.json"] = json.dumps(packages.config(r=RANK)).encode()
    path = folder / f"{mib}.expert"
    archive.build(members, path, packages.CREATED)
    archive.sign(path, key)
    weights.unlink()
    return path


def seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def unpacked(path: Path, trust: Trust, folder: Path) -> float:
    """Seconds to verify and unpack; making and removing the folder is not part of it."""
    with tempfile.TemporaryDirectory(dir=folder) as into:
        return seconds(lambda: archive.verify(path, trust, into=Path(into)))


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def inflated(data: bytes) -> int:
    decoder = zstandard.ZstdDecompressor().decompressobj()
    return sum(len(decoder.decompress(data[at : at + MIB])) for at in range(0, len(data), MIB))


def throughput(path: Path, trust: Trust, folder: Path, runs: int) -> dict[str, float]:
    """MiB of unpacked data per second."""
    data = path.read_bytes()
    plain = zstandard.ZstdDecompressor().decompress(data)
    tasks: dict[str, Callable[[], float]] = {
        "sha256": lambda: seconds(lambda: hashed(plain)),
        "zstd": lambda: seconds(lambda: inflated(data)),
        "verify": lambda: seconds(lambda: archive.verify(path, trust)),
        "unpack": lambda: unpacked(path, trust, folder),
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(runs):
        for name, task in tasks.items():
            times[name].append(task())
    found = {f"{name}_mib_s": len(plain) / MIB / min(values) for name, values in times.items()}
    found["ratio"] = found["unpack_mib_s"] / min(found["sha256_mib_s"], found["zstd_mib_s"])
    return found


def peak_mib(path: Path, key: Path, folder: Path) -> float:
    """Peak resident memory of verifying and unpacking in a process of its own."""
    # On Linux ru_maxrss begins with the memory of the process that started this one; VmHWM does not.
    code = """
import resource, sys
from pathlib import Path
from expert_cli import archive, trust
archive.verify(Path(sys.argv[1]), trust.only(Path(sys.argv[2]).read_bytes(), ""), into=Path(sys.argv[3]))
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
own = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")]
print((own or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0])
"""
    with tempfile.TemporaryDirectory(dir=folder) as into:
        words = [sys.executable, "-c", code, str(path), str(key), into]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
    return int(done.stdout) / MIB


def listed_s(path: Path, trust: Trust, folder: Path, count: int) -> float:
    """Seconds of ``expert-cli list`` with ``count`` experts installed."""
    os.environ["EXPERT_HOME"] = str(folder / "home")
    entry = store.install(path, trust)
    present = folder / "home" / "store" / "generations" / "1" / lock.NAME
    present.write_bytes(lock.dump(replace(entry, name=f"sql-{number}") for number in range(count)))
    words = [sys.executable, "-m", "expert_cli", "list"]
    return min(seconds(lambda: subprocess.run(words, check=True, capture_output=True)) for _ in range(7))


def from_registry(path: Path, trust: Trust, folder: Path, runs: int) -> dict[str, float]:
    """Seconds from a registry to an installed expert, and to skopeo's copy in a folder; nothing without the two."""
    if not (shutil.which("skopeo") and shutil.which("docker-registry")):
        print("skopeo or docker-registry is missing: not compared; apt-get install both", file=sys.stderr)
        return {}
    import registry

    with registry.running(folder / "registry") as host:
        target, content = oci.Registry(oci.Location.parse(f"oci://{host}/bench/sql:1")), path.read_bytes()
        for blob in (b"{}", content):
            oci.push(target, oci.digest_of(blob), len(blob), io.BytesIO(blob))
        layer = oci.Descriptor(oci.LAYER, oci.digest_of(content), len(content), path.name)
        oci.tag(target, oci.manifest_for(layer, {}), "1")
        times: dict[str, list[float]] = {"install": [], "skopeo": []}
        for run in range(runs):
            os.environ["EXPERT_HOME"] = str(folder / f"home-{run}")

            def install() -> None:
                found = remote.fetch(f"oci://{host}/bench/sql:1", paths.cache() / "downloads")
                store.install(found.path, trust, source=found.source)

            words = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{host}/bench/sql:1"]
            times["install"].append(seconds(install))
            words.append(f"dir:{folder / f'copy-{run}'}")
            times["skopeo"].append(seconds(lambda: subprocess.run(words, check=True, capture_output=True)))  # noqa: B023
            shutil.rmtree(folder / f"home-{run}")
            shutil.rmtree(folder / f"copy-{run}")
    least = {f"{name}_s": min(values) for name, values in times.items()}
    return least | {"registry_ratio": least["install_s"] / least["skopeo_s"]}


def resolved_s() -> float:
    """Seconds to resolve three wishes in an index of 10,000 names with 20 versions each, in chains of three."""
    index = [
        Candidate(f"e{number}", f"0.{version}.0", "", (f"e{number + 1}>=0.{version // 2}",) * (number % 3 < 2), Path())
        for number in range(10_000)
        for version in range(20)
    ]
    return min(seconds(lambda: resolve(["e0", "e3000", "e9000<0.10"], index)) for _ in range(3))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, default=80, help="MiB of the archive that is timed")
    options.add_argument("--large", type=int, default=1024, help="MiB of the one whose peak memory is taken; 0: none")
    options.add_argument("--runs", type=int, default=15)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = signing.generate()
        public = signing.save_pair(key, folder / "me.key")
        trust = Trust((Pin("sql", key.public.id, key.public.pem.decode()),))
        path = made(folder, chosen.size, key)
        found = throughput(path, trust, folder, chosen.runs)
        found |= from_registry(path, trust, folder, min(chosen.runs, 7))
        found["resolve_s"] = resolved_s()
        found |= index_scale.measured(folder / "index", index_scale.BINS)
        found["list_s"] = listed_s(packages.expert(folder / "small", key), trust, folder, 500)
        if chosen.large:
            found["peak_mib"] = peak_mib(made(folder, chosen.large, key), public, folder)
    for name, value in found.items():
        print(f"{name:<18}{value:>10.2f}" + (f"   budget {BUDGET[name]}" if name in BUDGET else ""))
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
