"""``moesim models``, ``hardware`` and ``policies``: list and show what a scenario can name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from moesim.cli.console import JsonOption, out, output_file, print_json, print_table
from moesim.errors import CardError, PolicyError, nearest

models = typer.Typer(help="Language models: list, show, import.", no_args_is_help=True, rich_markup_mode=None)
hardware = typer.Typer(help="Hardware: list, show.", no_args_is_help=True, rich_markup_mode=None)
policies = typer.Typer(help="Policies: list, show.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME")]


@models.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """Every language-model card."""
    from moesim.models import available_models, load_model, parameters

    rows = []
    for name in available_models():
        spec = load_model(name)
        total, active = parameters.total_params(spec), parameters.active_params(spec, "with_embedding_and_head")
        rows.append(
            [
                name,
                spec.num_moe_layers,
                spec.num_experts,
                spec.top_k,
                f"{total / 1e9:.1f}",
                f"{active / 1e9:.2f}",
                f"{parameters.expert_bytes(spec, spec.expert_precision) / 1e6:.1f}",
                spec.expert_precision,
            ]
        )
    columns = ["model", "MoE layers", "experts", "top-k", "params (1e9)", "active (1e9)", "expert (MB)", "released as"]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


@models.command("show")
def show_model(name: NameArgument, as_json: JsonOption = False) -> None:
    """One language model: its fields, and what follows from them."""
    from moesim.models import load_model, parameters

    spec = load_model(name)
    counts = {
        "total_params": parameters.total_params(spec),
        "expert_params": parameters.expert_params(spec),
        "expert_bytes": parameters.expert_bytes(spec, spec.expert_precision),
        "resident_bytes": parameters.resident_bytes(spec, spec.dense_precision),
        "kv_bytes_per_token": round(parameters.kv_bytes_per_token_per_layer(spec) * spec.num_layers),
        **{
            f"active_params ({convention})": parameters.active_params(spec, convention)
            for convention in parameters.CONVENTIONS
        },
    }
    if as_json:
        print_json({**spec.model_dump(mode="json"), "computed": counts})
        return
    out().print(spec.name, style="bold", markup=False)
    print_table(["field", "value"], list(_fields(spec)))
    out().print("\ncomputed from them", style="bold", markup=False)
    print_table(["quantity", "value"], [[key, f"{value:,}"] for key, value in counts.items()])
    if spec.total_published is not None:
        published = spec.total_published.billions
        off = counts["total_params"] / (published * 1e9) - 1
        out().print(f"published: {published:g} billion in all, from which the computed total is {off:+.1%} off")


@models.command("import")
def import_model(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.json", help="A Hugging Face config.json.")],
    name: Annotated[str, typer.Option(help="The card's name.")],
    output: Annotated[Path | None, typer.Option("--out", "-o", help="Write the card here; default: print it.")] = None,
) -> None:
    """Make a language-model card from a Hugging Face configuration."""
    from moesim.models.importer import from_hf_config, read_hf_config, to_card
    from moesim.results.result import write_text

    card = to_card(from_hf_config(read_hf_config(config), name))
    if output is None:
        sys.stdout.write(card)
        return
    with output_file(output):
        write_text(output, card)
    out().print(f"wrote {output}", markup=False)


@hardware.command("list")
def list_hardware(as_json: JsonOption = False) -> None:
    """Every hardware card, by family."""
    from moesim.hardware import available, read_card
    from moesim.hardware.catalog import CARDS, FAMILIES
    from moesim.registry import card_path

    found = available()
    if as_json:
        print_json(found)
        return
    rows = [
        [family, name, read_card(card_path(CARDS / family, name), FAMILIES[family]).title]
        for family, names in found.items()
        for name in names
    ]
    print_table(["family", "name", "what it is"], rows)


@hardware.command("show")
def show_hardware(name: NameArgument, as_json: JsonOption = False) -> None:
    """One hardware card: every number with its unit, its kind and its source."""
    from moesim.cli.clusters import show_cluster
    from moesim.hardware import available, read_card
    from moesim.hardware.catalog import CARDS, FAMILIES
    from moesim.registry import card_path

    families = [family for family, names in available().items() if name in names]
    if not families:
        known = [other for names in available().values() for other in names]
        raise CardError.of("", f"unknown hardware {name!r}", nearest(name, known))
    if families[0] == "cluster":
        show_cluster(name, as_json)
        return
    spec = read_card(card_path(CARDS / families[0], name), FAMILIES[families[0]])
    if as_json:
        print_json(spec.model_dump(mode="json"))
        return
    out().print(f"{spec.title} ({families[0]})", style="bold", markup=False)
    print_table(["number", "value (SI)", "kind", "source"], list(_numbers(spec)))
    for note in spec.notes:
        out().print(f"note: {note}", style="dim", markup=False)


@policies.command("list")
def list_policies(as_json: JsonOption = False) -> None:
    """Every policy, by family, with the rule that it follows."""
    from moesim.policies import api

    rows = []
    for family in api.FAMILIES:
        for name in api.names(family):
            policy = api.load(family, name)
            notes = [
                text for text, holds in (("future", policy.needs_future), ("training", policy.needs_training)) if holds
            ]
            rows.append([family, name, ", ".join(notes), _rule(policy.module.__doc__ or "")])
    if as_json:
        print_json([dict(zip(("family", "name", "needs", "rule"), row, strict=True)) for row in rows])
    else:
        print_table(["family", "name", "needs", "rule"], rows)


@policies.command("show")
def show_policy(name: NameArgument, as_json: JsonOption = False) -> None:
    """One policy: its rule, its source and its parameters."""
    from moesim.policies import api

    families = [family for family in api.FAMILIES if name in api.names(family)]
    if not families:
        known = {other for family in api.FAMILIES for other in api.names(family)}
        raise PolicyError.of("", f"unknown policy {name!r}", nearest(name, known))
    shown: list[dict[str, Any]] = []
    for family in families:
        module = api.load(family, name).module
        fields = module.Params.model_fields
        shown.append(
            {
                "family": family,
                "name": name,
                "rule": inspect.cleandoc(module.__doc__ or ""),
                "params": [
                    {"name": key, "default": field.default, "description": field.description or ""}
                    for key, field in fields.items()
                ],
            }
        )
    if as_json:
        print_json(shown)
        return
    for policy in shown:
        out().print(f"{policy['name']} ({policy['family']})", style="bold", markup=False)
        out().print(policy["rule"], markup=False)
        if policy["params"]:
            rows = [[param["name"], str(param["default"]), param["description"]] for param in policy["params"]]
            print_table(["parameter", "default", "meaning"], rows)


def _rule(docstring: str) -> str:
    """The first sentence of a docstring."""
    text = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".")


def _fields(spec: BaseModel) -> Iterator[list[str]]:
    for key, value in spec:
        if value not in (None, "", [], {}):
            text = ", ".join(f"{k}: {v}" for k, v in value) if isinstance(value, BaseModel) else str(value)
            yield [key, text]


def _numbers(spec: BaseModel | Mapping[str, Any], prefix: str = "") -> Iterator[list[str]]:
    """Every sourced number of a card, with its dotted name."""
    for key, value in spec.items() if isinstance(spec, Mapping) else spec:
        if isinstance(value, BaseModel) and "kind" in type(value).model_fields:
            number = value.model_dump()
            yield [f"{prefix}{key}", f"{number['value']:,.6g}", number["kind"], number["source"]]
        elif isinstance(value, (BaseModel, Mapping)):
            yield from _numbers(value, f"{prefix}{key}.")
        elif value is not None and key not in ("name", "title", "notes"):
            yield [f"{prefix}{key}", str(value), "", ""]
