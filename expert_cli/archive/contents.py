"""What the members of an expert archive must be, each and together, whoever signed them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from expert_cli import manifest, signing, weights
from expert_cli.errors import GrammarError, VerificationError
from expert_cli.manifest import ExpertManifest

_NEXT = "; do not use this file, fetch it again from its publisher"


def agree(
    texts: Mapping[str, bytes], tensors: tuple[weights.Tensor, ...], about: signing.About | None
) -> ExpertManifest:
    """Check the members against each other and against the signed statement; return the manifest.

    Raises:
        VerificationError: with the first fault.
        ManifestError: with every fault of a JSON member.
    """
    for name, content in texts.items():
        _check_text(name, content)
    expert = manifest.load_expert(texts["manifest.json"])
    if not expert.base_sha256:
        raise VerificationError(f"manifest.json names no base_sha256; package the expert again{_NEXT}")
    if about:
        for key, stated in vars(about).items():
            if key != "created" and getattr(expert, key) != stated:
                raise VerificationError(
                    f"signed as {key} {stated}, but its manifest says {getattr(expert, key)}{_NEXT}"
                )
    _check_config(texts["adapter_config.json"], expert.adapter)
    weights.check_adapter(tensors, expert.adapter, "adapter_model.safetensors")
    for name in ("report.json", "sbom.cdx.json"):
        if name in texts and not isinstance(manifest.parse_json(texts[name], name), dict):
            raise VerificationError(f"{name} is no object{_NEXT}")
    from expert_cli.grammar.template import template

    try:
        template(texts["grammar.gbnf"].decode(), "grammar.gbnf")
    except GrammarError as problem:
        raise VerificationError(f"{problem}{_NEXT}") from problem
    return expert


def _check_text(name: str, content: bytes) -> None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise VerificationError(f"{name}: not UTF-8 at byte {problem.start}{_NEXT}") from problem
    if found := next(
        (char for char in text if char not in "\n\t\r" and unicodedata.category(char) in ("Cc", "Cs")), ""
    ):
        raise VerificationError(f"{name}: the control character U+{ord(found):04X}{_NEXT}")


def _check_config(content: bytes, adapter: manifest.Adapter) -> None:
    """Check that PEFT's configuration describes the manifest's adapter and asks for no code."""
    name = "adapter_config.json"
    config = manifest.parse_json(content, name)
    if not isinstance(config, dict):
        raise VerificationError(f"{name} is no object{_NEXT}")
    for key in ("auto_map", "auto_mapping", "trust_remote_code", "custom_code"):
        if config.get(key):
            raise VerificationError(f"{name}: {key} asks for code to be run{_NEXT}")
    expected = {
        "peft_type": "LORA",
        "r": adapter.r,
        "lora_alpha": adapter.alpha,
        "use_dora": adapter.type == "dora",
        "target_modules": sorted(adapter.target_modules),
    }
    modules = config.get("target_modules")
    stated = config | {"target_modules": sorted(map(str, modules)) if isinstance(modules, list) else modules}
    for key, value in expected.items():
        if stated.get(key, False if key == "use_dora" else None) != value:
            raise VerificationError(f"{name}: {key} is {stated.get(key)!r}, the manifest says {value!r}{_NEXT}")
    for key in ("modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform", "use_rslora"):
        if config.get(key):
            raise VerificationError(f"{name}: {key} is set, which is not supported; train without it{_NEXT}")
    if config.get("bias", "none") != "none":
        raise VerificationError(f"{name}: bias {config['bias']!r} is not supported; train without it{_NEXT}")
