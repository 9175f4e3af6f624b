"""A part of needledrop-train: the catalogue heard in shards, by pods of their own."""

from kfp import dsl

from components.hear_shard.component import hear_shard
from components.plan_shards.component import plan_shards
from pipelines.cluster_settings import apply_settings


@dsl.pipeline(name="hear-catalogue")
def hear_catalogue(
    n_feature_shards: int,
    tracks: dsl.Input[dsl.Dataset],
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
):
    """Hear the clips in as many parts as asked for; none where 0 are, which costs nothing."""
    with dsl.If(n_feature_shards > 0, name="in-shards"):
        planned = plan_shards(n_feature_shards=n_feature_shards).set_display_name("plan-shards")
        with dsl.ParallelFor(planned.outputs["Output"], name="each-shard") as shard:
            heard = hear_shard(
                shard=shard,
                n_feature_shards=n_feature_shards,
                tracks=tracks,
                audio=audio,
                workspace=workspace,
                sample_rate_hz=sample_rate_hz,
                window_samples=window_samples,
                hop_samples=hop_samples,
                n_mels=n_mels,
                log_gain=log_gain,
                window_seconds=window_seconds,
                max_clip_seconds=max_clip_seconds,
                n_processes=n_processes,
                log_mel_dtype=log_mel_dtype,
            ).set_display_name("hear-shard")
    apply_settings(planned, heard)
