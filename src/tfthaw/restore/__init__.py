"""Which value of a checkpoint fills which variable: planned first, applied mechanically."""
