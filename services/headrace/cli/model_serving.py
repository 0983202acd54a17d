"""Where a version serves: asked of the gateways' leases and of Triton, and left open where they do not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.platform.leases import Leases
from headrace.platform.redis import RedisUnavailable, connect

TIMEOUT_S = 2.0


async def gateways_using(redis_url: str, deployed: str, version: str) -> dict[str, Any]:
    """How many live gateway processes may send requests to a version.

    Args:
        redis_url: of the leases.
        deployed: name of the deployed pipeline.
        version: name of the version.
    """
    client = connect(redis_url, max_connections=1, reply_timeout_s=TIMEOUT_S)
    try:
        leases = await Leases(client, deployed).read()
    except RedisUnavailable as error:
        return {"live": None, "using": None, "said": f"not known: {error}"}
    finally:
        await client.aclose()
    using = sum(version in lease.versions for lease in leases)
    return {"live": len(leases), "using": using, "said": f"{using} of {len(leases)} live gateway processes use it"}


async def servers_holding(urls: Sequence[str], triton_model: str) -> list[dict[str, Any]]:
    """Whether each Triton server has a model loaded.

    Args:
        urls: gRPC addresses of the servers.
        triton_model: name of the model.
    """
    try:
        from headrace.rollout.triton import TritonError, TritonServer
    except ModuleNotFoundError as error:
        return [{"url": url, "loaded": None, "said": f"not known: {error.name} is not installed"} for url in urls]
    found: list[dict[str, Any]] = []
    for url in urls:
        server = TritonServer(url, load_timeout_s=TIMEOUT_S)
        try:
            loaded = triton_model in await server.ready_models()
            found.append({"url": url, "loaded": loaded, "said": "loaded" if loaded else "not loaded"})
        except TritonError as error:
            found.append({"url": url, "loaded": None, "said": f"not known: {error}"})
        finally:
            await server.close()
    return found
