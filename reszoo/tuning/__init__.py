"""The search over depth, shortcuts and whatever else a recipe says, on KerasTuner's own tuners and oracles."""
