"""Cards from Hugging Face ``config.json`` files.

A configuration names its family in ``model_type``; ``families`` has one function per family that says which key
holds what. Anything that a key of the same name could mean differently is read there, nothing is guessed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from moesim.documents import Document, read_text, validate
from moesim.errors import CardError, Fault, nearest
from moesim.models.families import FAMILIES, Config
from moesim.models.spec import ModelSpec

#: quant_method of a released checkpoint -> precision of (experts, the rest).
_QUANTISED = {"fp8": ("fp8", "fp8"), "mxfp4": ("mxfp4", "bf16")}
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def read_hf_config(path: Path) -> dict[str, Any]:
    """The content of a ``config.json``.

    Raises:
        FileError: the file can't be read.
        CardError: it isn't a JSON object.
    """
    try:
        config = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise CardError.of(str(path), f"not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise CardError.of(str(path), "must be a JSON object", "give the config.json of a Hugging Face model")
    return config


def from_hf_config(config: Mapping[str, Any], name: str) -> ModelSpec:
    """The model that a Hugging Face configuration describes.

    Raises:
        CardError: the family isn't known (the hint lists those that are), keys are missing, or values don't fit.
    """
    family = str(config.get("model_type", ""))
    if family not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise CardError.of("model_type", f"unknown family {family!r}", f"supported: {known}")
    reader = Config(config)
    fields = FAMILIES[family](reader) | _precisions(reader)
    if reader.faults:
        raise CardError(reader.faults)
    origin = {"kind": "published", "source": f"Hugging Face config.json, model_type {family}"}
    document = Document(f"config.json as {name}", {"name": name, "config": origin, **fields})
    return validate(document, ModelSpec, CardError)


def to_card(spec: ModelSpec) -> str:
    """The YAML card of a model; reading it gives the same model."""
    return yaml.safe_dump(spec.model_dump(exclude_defaults=True), sort_keys=False, width=112, allow_unicode=True)


def _precisions(config: Config) -> dict[str, str]:
    """How the checkpoint stores its weights."""
    if config.get("quantization_config"):
        method = str(config.part("quantization_config").get("quant_method"))
        if method not in _QUANTISED:
            hint = "import the configuration of the unquantised model, and choose a precision in the scenario"
            config.faults.append(Fault("quantization_config.quant_method", f"not supported (got {method!r})", hint))
        experts, rest = _QUANTISED.get(method, ("", ""))
    else:
        dtype = str(config.get("dtype") or config.get("torch_dtype", "bfloat16"))
        if dtype not in _DTYPES:
            config.faults.append(Fault("torch_dtype", f"unknown type {dtype!r}", nearest(dtype, _DTYPES)))
        experts = rest = _DTYPES.get(dtype, "")
    return {"expert_precision": experts, "dense_precision": rest}
