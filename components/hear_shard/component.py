"""The step hear_shard."""

from kfp.dsl import Dataset, Input, Metrics, Output

from components.step import step


@step
def hear_shard(
    shard: int,
    n_feature_shards: int,
    tracks: Input[Dataset],
    audio: str,
    workspace: str,
    sample_rate_hz: int,
    window_samples: int,
    hop_samples: int,
    n_mels: int,
    log_gain: float,
    window_seconds: float,
    max_clip_seconds: float,
    n_processes: int,
    log_mel_dtype: str,
    metrics: Output[Metrics],
):
    """Hear one part of the catalogue into the workspace, where extract_features finds it.

    Args:
        shard: which part, from 0.
        n_feature_shards: how many parts there are.
        tracks: accepted tracks.
        audio: folder or s3:// URI of clips named after track ids.
        workspace: folder or s3:// URI where finished shards stay, so that a stopped run goes on.
        sample_rate_hz: of the decoded sound.
        window_samples: of the short-time Fourier transform.
        hop_samples: from one frame to the next.
        n_mels: bands of the mel spectrogram.
        log_gain: of the compression log(1 + log_gain * power).
        window_seconds: what the network hears at once.
        max_clip_seconds: longer clips are rejected.
        n_processes: 0 takes one for each core.
        log_mel_dtype: what log-mel is stored in: uint8, or float16 for twice the bytes.
        metrics: clips heard.
    """
    from pathlib import Path

    from components.hear_shard.hearing import hear
    from components.journal import journal
    from needledrop.audio.extraction import ExtractionConfig

    with journal("hear_shard") as log:
        config = ExtractionConfig.for_training(
            sample_rate_hz=sample_rate_hz,
            window_samples=window_samples,
            hop_samples=hop_samples,
            n_mels=n_mels,
            log_gain=log_gain,
            window_seconds=window_seconds,
            max_clip_seconds=max_clip_seconds,
            n_processes=n_processes,
            log_mel_dtype=log_mel_dtype,
        )
        hear(Path(tracks.path), audio, workspace, config, shard, n_feature_shards, log)
        log.save_metrics(metrics)
