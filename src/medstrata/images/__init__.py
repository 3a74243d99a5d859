"""Files to pixels: the only code that knows formats. Never imports torch, never sees a label."""
