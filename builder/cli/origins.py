"""What an image was made of: the revision of its context, the digests of its base images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder.cli.session import Sources
from builder.oci.image import Image
from builder.oci.manifest import ResolvedImage
from builder.outputs import BaseImage, repository_of
from builder.plan import ImageBase, Plan, StageBase
from context_sources.source import Fetched


def bases(plan: Plan, resolved: Sequence[ResolvedImage]) -> list[BaseImage]:
    """Every image of a registry that the build read; first the one that the pushed image starts from, if any."""
    own = _own_base(plan)
    ordered = sorted(resolved, key=lambda image: image.reference != own)
    return [BaseImage(repository_of(image.reference), image.digest) for image in ordered]


def metadata(sources: Sources, plan: Plan, resolved: Sequence[ResolvedImage]) -> dict[str, Any]:
    """For the metadata file: `context`, `contexts` (the named ones) and `bases`."""
    own = _own_base(plan)
    return {
        "context": _context(sources.context),
        "contexts": {name: _context(fetched) for name, fetched in sources.named.items()},
        "bases": [
            {
                "reference": image.reference,
                "platform": str(image.image.config.platform),
                "digest": image.digest,
                **({"index_digest": image.index_digest} if image.index_digest else {}),
                "base_of_image": image.reference == own,
            }
            for image in resolved
        ],
    }


def platforms(images: Sequence[Image]) -> dict[str, Any]:
    """For the metadata file: `platforms`, the digest of each image's manifest, where there are several."""
    if len(images) == 1:
        return {}
    return {"platforms": {str(image.config.platform): image.manifest()[0].digest for image in images}}


def _context(fetched: Fetched) -> Mapping[str, str]:
    value = {"source": fetched.source}
    if fetched.revision:
        value |= {"revision": fetched.revision, "revision_kind": fetched.revision_kind}
    return value


def _own_base(plan: Plan) -> str:
    """The image that the pushed stage starts from, by way of other stages; "" for scratch."""
    stages = {stage.index: stage for stage in plan.stages}
    base = stages[plan.targets[0]].base
    while isinstance(base, StageBase):
        base = stages[base.index].base
    return base.reference if isinstance(base, ImageBase) else ""
