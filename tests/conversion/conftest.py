"""Nothing is decided by the clock."""

from clockless import no_clock  # noqa: F401
