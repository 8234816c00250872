"""Which part of a corpus is kept for evaluation."""

import hashlib

HELD_OUT = ("held_out", "validation", "valid", "val", "dev", "test", "eval")
"""What data sets call the part that is kept for evaluation."""


def draw_split(who: object, salt: str, held_out_share: float) -> str:
    """Either "train" or "held_out", drawn from who or what an item is, so that other items never change it."""
    drawn = int.from_bytes(hashlib.sha256(f"split\x1f{salt}\x1f{who}".encode()).digest()[:8], "big")
    return "held_out" if drawn < held_out_share * 2**64 else "train"
