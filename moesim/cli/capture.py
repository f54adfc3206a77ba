"""``moesim trace capture``: record the routing of a Hugging Face model. Needs the extra ``moesim[capture]``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.cli.console import out, output_file, progress
from moesim.documents import read_text
from moesim.errors import TraceError

if TYPE_CHECKING:
    from moesim.traces.capture import Request

MAX_PROMPT_BYTES = 2**28


def capture(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder with a model and its tokenizer, or a hub name.")
    ],
    prompts: Annotated[
        Path, typer.Option(help='JSON lines with "prompt" and optionally "domain", or a text file: a prompt a line.')
    ],
    output: Annotated[Path, typer.Option("--out", "-o", help="The moesim trace to write (.npz).")],
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate for each prompt.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling; 0 takes the likeliest token.")] = 0.75,
    lookahead: Annotated[
        int, typer.Option(min=0, max=8, help="Record what the gates 1..N layers on would choose.")
    ] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many prompts.")] = None,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
) -> None:
    """Record which experts a model's routers choose while it reads prompts and generates."""
    entries = list(_prompts(prompts))[:limit]
    if not entries:
        raise TraceError.of(str(prompts), "has no prompt")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from moesim.traces.capture import capture as record
    except ImportError as error:
        told = f"needs the extra 'capture' ({error.name} is not installed)"
        raise TraceError.of("moesim trace capture", told, "pip install 'moesim[capture]'") from None
    from moesim.traces import Domain, save_trace

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto").eval()
    except (OSError, ValueError) as error:
        raise TraceError.of(model, f"can't be loaded: {str(error).splitlines()[0]}", "check the name or path") from None
    domains = list(dict.fromkeys(domain for _, domain in entries if domain))
    with output_file(output), progress("recording"):
        trace = record(
            loaded,
            [_request(tokenizer, text, domain, domains, new_tokens) for text, domain in entries],
            name=output.stem,
            temperature=temperature,
            seed=seed,
            lookahead=dict.fromkeys(range(1, lookahead + 1), 1),
            domains=[Domain(name=domain) for domain in domains],
        )
        if Path(model).is_dir():
            trace = replace(trace, card=trace.card.model_copy(update={"model": Path(model).resolve().name}))
        save_trace(trace, output)
    shape = f"{trace.num_tokens} tokens, {trace.num_layers} layers, top {trace.top_k} of {trace.num_experts}"
    out().print(f"wrote {output}: {shape}", markup=False)


def _request(tokenizer: Any, text: str, domain: str, domains: list[str], new_tokens: int) -> Request:
    from moesim.traces.capture import Request

    return Request(tokenizer(text)["input_ids"], new_tokens, domains.index(domain) if domain else -1)


def _prompts(path: Path) -> Iterator[tuple[str, str]]:
    """(prompt, domain) of each line; the domain is empty where none is given."""
    for number, line in enumerate(read_text(path, MAX_PROMPT_BYTES).splitlines(), 1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            yield line, ""
            continue
        try:
            entry = json.loads(line)
            prompt, domain = entry["prompt"], entry.get("domain", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TraceError.of(
                f"{path}:{number}", 'is not an object with "prompt"', '{"prompt": "...", "domain": "..."}'
            ) from None
        if not isinstance(prompt, str) or not isinstance(domain, str) or not prompt:
            raise TraceError.of(f"{path}:{number}", "prompt and domain must be text, the prompt not empty")
        yield prompt, domain
