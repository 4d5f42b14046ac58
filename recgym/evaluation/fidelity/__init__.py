"""Statistics of simulator fidelity: distances of distributions, calibration, and classifier two-sample tests."""
