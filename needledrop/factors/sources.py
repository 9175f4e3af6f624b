"""Where a song's factors come from: its plays, or its sound where nobody has played it yet."""

USAGE, AUDIO = "usage", "audio"
