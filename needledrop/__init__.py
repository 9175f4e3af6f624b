"""needledrop recommends a song from its audio, before anyone has played it."""
