# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""A store for what is kept only for speed, such as decoded clips and key-value caches: bounded in number and bytes.

The least recently used value goes first; whoever needs it again computes it again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedMemory(Generic[Value]):
    """Values by owner and name, bounded in number and bytes; safe to share between threads.

    Args:
        most: the largest number of values.
        most_bytes: their largest size together; a value that alone is larger is not kept at all.
        is_present: whether an owner is still there; nothing is kept for one who left while a value was computed.
    """

    def __init__(self, most: int, most_bytes: int, is_present: Callable[[str], bool] = lambda owner: True) -> None:
        self._most, self._most_bytes, self._is_present = most, most_bytes, is_present
        self._values: OrderedDict[tuple[str, str], tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def bytes(self) -> int:
        """The size of all values together."""
        with self._lock:
            return sum(size for _, size in self._values.values())

    def put(self, owner: str, name: str, value: Value, size: int) -> None:
        """Keeps a value of `size` bytes, replaces one of the same name, and drops others to stay within the bounds."""
        with self._lock:
            self._values.pop((owner, name), None)
            if not self._is_present(owner):
                return
            self._values[owner, name] = value, size
            total = sum(size for _, size in self._values.values())
            while len(self._values) > self._most or total > self._most_bytes:
                _, (_, dropped) = self._values.popitem(last=False)
                total -= dropped

    def get(self, owner: str, name: str) -> Value | None:
        """The value, which becomes the most recently used, or None."""
        with self._lock:
            if (owner, name) not in self._values:
                return None
            self._values.move_to_end((owner, name))
            return self._values[owner, name][0]

    def take(self, owner: str, name: str) -> Value | None:
        """Removes the value and returns it, or None: for a user who changes it and puts it back afterwards."""
        with self._lock:
            return self._values.pop((owner, name), (None, 0))[0]

    def drop(self, owner: str) -> None:
        """Forgets all values of an owner."""
        with self._lock:
            for key in [key for key in self._values if key[0] == owner]:
                del self._values[key]
