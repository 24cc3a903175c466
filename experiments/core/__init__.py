"""What all studies share: stages, claims, tables, plots, measurements."""
