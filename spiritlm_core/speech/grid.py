"""The grid of the units: how many units a waveform has, and which samples each of them sees. Imports nothing heavy.

Every encoder's frames lie on one grid, 25 a second: frame i begins at sample 640 i, and its middle is at 640 i + 360.
Where a recipe asks for 12.5 units a second, two frames are one unit; a last frame without a second one is one alone.
"""

from collections.abc import Sequence

SAMPLE_RATE = 16_000  # sampling rate of every waveform, in hertz; `lake.schema` has the same, and pyarrow with it
FRAME = 640  # samples from one frame to the next: 25 Hz at 16 kHz
RECEPTIVE_FIELD = 720  # samples that one frame sees
CHUNK = 100 * SAMPLE_RATE  # longer waveforms are cut into pieces of this many samples, each encoded alone
SHORTEST = 1280  # A waveform, or last piece, with fewer samples has no units
RATES_HZ = {"hubert": 25.0, "pitch": 12.5, "style": 1.0}
"""Units a second of each stream; of the phonetic one, as long as no recipe says otherwise."""


def reach_of(kernels: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Samples that a frame of these convolutions sees, and from one frame to the next."""
    field, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field, step = field + (kernel - 1) * step, step * stride
    return field, step


def on_grid(kernels: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether frames of these convolutions can be pooled to one per 640 samples that sees no more than 720."""
    field, step = reach_of(kernels, strides)
    return FRAME % step == 0 and field + (FRAME // step - 1) * step <= RECEPTIVE_FIELD


def unit_count(samples: int, hop: int = FRAME) -> int:
    """Phonetic units of a piece, `hop` samples apart (at 640: 1280 → 1, 16 000 → 24, 100 s → 2499)."""
    frames = 0 if samples < SHORTEST else (samples - RECEPTIVE_FIELD) // FRAME + 1
    return -(-frames * FRAME // hop)


def piece_lengths(samples: int) -> list[int]:
    """Samples of the pieces in which a waveform is encoded; a last one too short to have units is left out."""
    lengths = [min(CHUNK, samples - start) for start in range(0, samples, CHUNK)]
    return [length for length in lengths if length >= SHORTEST]


def hop_of(units: int, samples: int) -> int:
    """Samples from one unit to the next, 640 or 1280, of a waveform with so many phonetic units."""
    return min((FRAME, 2 * FRAME), key=lambda hop: abs(units * hop - samples))


def rates_hz(units: int, samples: int) -> dict[str, float]:
    """Units a second of each stream of a waveform with so many phonetic units."""
    return RATES_HZ | {"hubert": SAMPLE_RATE / hop_of(units, samples)}


def pitch_count(samples: int) -> int:
    """Pitch units of a piece: 200 Hz frames of F0, sixteen to a unit."""
    return 0 if samples < SHORTEST else (samples // 80 + 1) // 16


def style_count(samples: int) -> int:
    """Style units of a piece: one per second begun."""
    return 0 if samples < SHORTEST else -(-samples // SAMPLE_RATE)
