"""tfthaw."""
