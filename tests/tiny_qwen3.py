"""A tiny random Qwen3 folder with a real byte-level BPE tokenizer and nano's special tokens, made in a second."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from expert_cli.runtime.qwen3 import EXPRESSION

SPECIALS = [
    *("<pad>", "<s>", "<q>", "<sql>", "<e>", "<fk>", "<val>", "<any>", "<pre>", "<suf>"),
    *(f"<{kind}{number}>" for kind, count in (("t", 16), ("c", 96), ("v", 12)) for number in range(count)),
]
TEXT = [
    "How many singers are older than 30, and what is the average age of singers per country in 2014?",
    "FROM singer JOIN concert ON singer.id = concert.singer_id SELECT singer.name, COUNT(*) WHERE singer.age >= 30",
    "GROUP BY singer.name HAVING COUNT(*) > 2 ORDER BY COUNT(*) DESC LIMIT 1 EXCEPT INTERSECT UNION DISTINCT",
    "Show the names of stadiums whose capacity lies between 5000 and 10000; don't list the others.",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, total REAL, shipped TEXT, customer_id INTEGER)",
    "São Paulo, Zürich, Kraków, naïve café, 東京, 日本語, Москва",
]
PROMPTS = [
    *(f"<s>singer<t0> name<c0> age<c{n}> <val>'{n}'<v0><q>{TEXT[n % 6]}<sql>" for n in range(30)),
    *(f"<s>orders<t{n}> total<c{n}> <fk><c2><c5><q>how many orders have total > {n * 137}.5?<sql>" for n in range(12)),
    "<s><q>don't SELECT 12345 FROM naïve_tbl;\n\n  \t x<sql>",
    "<s><q>São Paulo — 日本語 🚀 ''quoted''<sql>",
    "<q>1 22 333 4444 0.5e-10 ٣٤٥ ½ ²<sql>FROM<t0> SELECT<c1>, COUNT(*) WHERE<c2> >=<v0>",
    "<sql>FROM<t0> JOIN<t1> ON<c3> =<c7> SELECT MAX(<c2>) WHERE<c4> LIKE<any><v0> AND<c4> LIKE<pre><v1><e>",
    "\r\n\r\nline  one\r\n   line two \u00a0 nbsp\u3000wide\ttab   ",
    "👩\u200d👩\u200d👧 🇩🇪 e\u0301 o\u0308 한국어 ภาษาไทย हिन्दी",
    "I'LL we've THEY'RE 'S ''' \"x\" `y` [z] {a} $1,000.00 #tag @user \\n <notatoken> <c96> <t16>",
    "x",
]


def tokenizer(nfc: bool = True) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC() if nfc else None
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(EXPRESSION), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT * 4, trainer)
    return made


def save(folder: Path, *, tied: bool = True, dtype: str = "float32", nfc: bool = True, seed: int = 0) -> Path:
    """Write config.json, tokenizer.json and model.safetensors; returns the folder."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokens = tokenizer(nfc)
    ids = {role: SPECIALS.index(token) for role, token in (("pad", "<pad>"), ("bos", "<s>"), ("eos", "<e>"))}
    config = Qwen3Config(
        vocab_size=(tokens.get_vocab_size() // 32 + 2) * 32,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        **{f"{role}_token_id": row for role, row in ids.items()},
    )
    torch.set_num_threads(1)  # threads cost more than they bring at this size
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokens.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder
