"""Which features go on, under which names, side by side with which others."""

from __future__ import annotations

from typing import Any

from river import compose

from headrace.onnx_export.conversion import only, transform, transformer
from headrace.onnx_export.graph import Columns, Graph


@transformer(compose.Select)
def select(step: Any, columns: Columns, graph: Graph) -> Columns:
    """The named features.

    River goes through a set of names, whose order differs from process to process; here the order of the columns
    stays.
    """
    for name in sorted(step.keys - set(columns.names), key=str):
        only(False, f"Select({name!r}): there is no such feature; there are {', '.join(map(str, columns.names))}")
    return _kept(graph, columns, [i for i, name in enumerate(columns.names) if name in step.keys], "Select")


@transformer(compose.Discard)
def discard(step: Any, columns: Columns, graph: Graph) -> Columns:
    """All features but the named."""
    return _kept(graph, columns, [i for i, name in enumerate(columns.names) if name not in step.keys], "Discard")


@transformer(compose.Prefixer)
def prefixer(step: Any, columns: Columns, graph: Graph) -> Columns:
    """Other names."""
    return Columns(columns.tensor, tuple(f"{step.prefix}{name}" for name in columns.names))


@transformer(compose.Suffixer)
def suffixer(step: Any, columns: Columns, graph: Graph) -> Columns:
    """Other names."""
    return Columns(columns.tensor, tuple(f"{name}{step.suffix}" for name in columns.names))


@transformer(compose.TransformerUnion)
def transformer_union(step: Any, columns: Columns, graph: Graph) -> Columns:
    """What each transformer gives, side by side. Of columns with the same name the first transformer's goes on."""
    parts = [transform(part, columns, graph) for part in step.transformers.values()]
    only(bool(parts), "TransformerUnion: it is empty")
    # Position among all columns by name, in the order in which River fills its dict: the last transformer first.
    offsets = [sum(len(part.names) for part in parts[:i]) for i in range(len(parts))]
    source: dict[Any, int] = {}
    for offset, part in reversed(list(zip(offsets, parts, strict=True))):
        source.update({name: offset + i for i, name in enumerate(part.names)})
    joined = Columns(graph.join([part.tensor for part in parts]), tuple(source))
    return Columns(graph.node("Gather", joined.tensor, graph.integers(*source.values()), axis=1), joined.names)


def _kept(graph: Graph, columns: Columns, kept: list[int], owner: str) -> Columns:
    only(bool(kept), f"{owner}: no feature is left of {', '.join(map(str, columns.names))}")
    if kept == list(range(len(columns.names))):
        return columns
    tensor = graph.node("Gather", columns.tensor, graph.integers(*kept), axis=1)
    return Columns(tensor, tuple(columns.names[i] for i in kept))
