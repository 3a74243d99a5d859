"""Do activation maps point at what was planted, and at nothing else?"""
