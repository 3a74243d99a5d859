"""Are these clusters real? Their number, their stability, and what comes out where there are none."""
