"""Image-text data sets: which samples exist (manifest), their order (plan), and how they reach a worker (stream)."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.data.bijection import key_of, mix, permute
    from raylens.data.block import BlockMaker
    from raylens.data.explain import ExplainedSample
    from raylens.data.formats import RawSample
    from raylens.data.index import manifest_for
    from raylens.data.manifest import Manifest, fingerprint
    from raylens.data.pack import NewSample, repack
    from raylens.data.patterns import split_pattern
    from raylens.data.plan import Plan, build_plan, step_hashes
    from raylens.data.quarantine import check_budget, summary, write_rejected
    from raylens.data.reader import Request, open_reader
    from raylens.data.source import Source
    from raylens.data.stream import execution_options, ray_map, training_stream
    from raylens.data.verify import Topology

__all__ = [
    "BlockMaker",
    "ExplainedSample",
    "Manifest",
    "NewSample",
    "Plan",
    "RawSample",
    "Request",
    "Source",
    "Topology",
    "build_plan",
    "check_budget",
    "execution_options",
    "fingerprint",
    "key_of",
    "manifest_for",
    "mix",
    "open_reader",
    "permute",
    "ray_map",
    "repack",
    "split_pattern",
    "step_hashes",
    "summary",
    "training_stream",
    "write_rejected",
]

__getattr__ = lazy_face(
    __name__,
    {
        "BlockMaker": "block",
        "ExplainedSample": "explain",
        "Manifest": "manifest",
        "NewSample": "pack",
        "Plan": "plan",
        "RawSample": "formats",
        "Request": "reader",
        "Source": "source",
        "Topology": "verify",
        "build_plan": "plan",
        "check_budget": "quarantine",
        "execution_options": "stream",
        "fingerprint": "manifest",
        "key_of": "bijection",
        "manifest_for": "index",
        "mix": "bijection",
        "open_reader": "reader",
        "permute": "bijection",
        "ray_map": "stream",
        "repack": "pack",
        "split_pattern": "patterns",
        "step_hashes": "plan",
        "summary": "quarantine",
        "training_stream": "stream",
        "write_rejected": "quarantine",
    },
)
