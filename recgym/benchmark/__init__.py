"""Speed measured in fresh processes, alternating with peers on the same machine: ``recgym bench``."""
