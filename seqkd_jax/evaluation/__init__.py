"""How good a model is: metrics, likelihood, calibration, representations."""
