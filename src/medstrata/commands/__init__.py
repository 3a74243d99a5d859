"""The command line: each command a thin call. Research use only, not a medical device."""
