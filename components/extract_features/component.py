"""The step extract_features."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Output

from components.step import step


@step
def extract_features(
    tracks: Input[Dataset],
    split: Input[Dataset],
    audio: str,
    data_fingerprint: str,  # noqa: ARG001  (an input of Kubeflow's cache)
    workspace: str,
    sample_rate_hz: int,
    window_samples: int,
    hop_samples: int,
    n_mels: int,
    log_gain: float,
    window_seconds: float,
    max_clip_seconds: float,
    max_rejected_clips_share: float,
    n_words: int,
    n_processes: int,
    log_mel_dtype: str,
    features: Output[Dataset],
    clip_report: Output[HTML],
    metrics: Output[Metrics],
):
    """Hear the songs: log-mel spectrograms, MFCCs, and the bag of words over them.

    Args:
        tracks: accepted tracks.
        split: the words are fitted on the training songs' sound alone.
        audio: folder or s3:// URI of clips named after track ids.
        data_fingerprint: of the data, for Kubeflow's cache to tell it from other data.
        workspace: folder or s3:// URI where finished shards stay, so that a stopped run goes on.
        sample_rate_hz: of the decoded sound.
        window_samples: of the short-time Fourier transform.
        hop_samples: from one frame to the next.
        n_mels: bands of the mel spectrogram.
        log_gain: of the compression log(1 + log_gain * power).
        window_seconds: what the network hears at once.
        max_clip_seconds: longer clips are rejected.
        max_rejected_clips_share: with a larger share of unusable clips the step fails.
        n_words: K-means words of the bag-of-words baseline.
        n_processes: 0 takes one for each core.
        log_mel_dtype: what log-mel is stored in: uint8, or float16 for twice the bytes.
        features: manifest of the shards, bag of words, and the rejected clips.
        clip_report: how many clips were heard, and why the others were not.
        metrics: counts.
    """
    from pathlib import Path

    from components.extract_features.extracting import extract
    from components.journal import journal
    from needledrop.audio.bag_of_words import BagOfWordsConfig
    from needledrop.audio.extraction import ExtractionConfig

    with journal("extract_features") as log:
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
        extract(
            Path(tracks.path),
            Path(split.path),
            audio,
            workspace,
            config,
            BagOfWordsConfig(n_words=n_words),
            max_rejected_clips_share,
            Path(features.path),
            Path(clip_report.path),
            log,
        )
        log.save_metrics(metrics)
