"""The keys of dicts and the elements of sets, where they lie in shared memory: a list, and its index."""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Any

from mori.codecs.arrays import ArraysCodec
from mori.codecs.index import Index
from mori.format.node import Node
from mori.objects.containers.identity import Identity
from mori.objects.containers.sequences import SharedList

__all__ = ["damaged", "index_of", "keys_of"]


def keys_of(node: Node, identity: Identity) -> SharedList:
    """Return the list of a node's keys."""
    child = node.child(0)
    keys = identity.open(child)
    if not isinstance(keys, SharedList) or isinstance(child.codec, ArraysCodec):
        raise child.decode_error("it is no list of keys")
    return keys


def index_of(node: Node, keys: SharedList, nothing: Collection[Any]) -> Index | None:
    """Return the index of a node's keys, None if it has none that this Python can use."""
    if not node.meta:
        return None
    try:
        return Index(node.meta, node.buffers(), len(keys), keys._elements().peek, nothing)
    except LookupError:
        return None
    except (ValueError, struct.error) as error:
        raise damaged(node, error) from error


def damaged(node: Node, error: Exception) -> Exception:
    """Return what to raise for an index that makes no sense."""
    return node.decode_error(f"its index makes no sense ({error})")
