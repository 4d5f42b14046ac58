"""Scripts that drive other simulators; each runs in an environment of its own, by path, and never imports RecGym."""
