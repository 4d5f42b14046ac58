"""One file a data source: each has ``load() -> Interactions`` and, where it can be had, ``fetch() -> Path``."""
