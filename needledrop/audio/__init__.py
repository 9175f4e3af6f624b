"""Sound: bytes -> waveform -> log-mel and MFCCs -> features on disk."""
