"""Which shapes of samples networks take."""

from __future__ import annotations

from secagg.errors import Code, ConfigError


def pixels(network: str, shape: tuple[int, ...], *, at_least: int = 1) -> tuple[int, int, int]:
    """Channels, height and width of an image.

    Raises:
        ConfigError: CONFIG_INVALID if the shape is not that of an image, or the image is too small.
    """
    if len(shape) != 3 or min(shape) < 1 or min(shape[1:]) < at_least:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"victim {network} can't take samples of shape {shape}; it needs images, (channels, height, "
            f"width), of at least {at_least}x{at_least}",
        )
    channels, height, width = shape
    return channels, height, width
