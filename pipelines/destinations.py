"""Which configuration of the library each parameter of a pipeline ends up in."""

from collections.abc import Mapping
from typing import Any

from components.deploy_predictor.config import DeployConfig
from components.factorize_plays.request import SparkConfig
from components.job_config import JobConfig
from components.score_new_songs.config import ScoringConfig
from components.train_encoder.request import LaunchConfig
from components.validate_plays.limits import ValidationConfig
from needledrop.audio.bag_of_words import BagOfWordsConfig
from needledrop.audio.decode import DecodeLimits
from needledrop.audio.extraction import ExtractionConfig
from needledrop.audio.frontend import FrontendConfig
from needledrop.encoders.cnn import CnnConfig
from needledrop.encoders.cnn2014 import Cnn2014Config
from needledrop.encoders.metric_learning import MlrConfig
from needledrop.encoders.mlp import MlpConfig
from needledrop.encoders.training_config import TrainingConfig
from needledrop.errors import ConfigRejected
from needledrop.factors.confidence import ConfidenceConfig
from needledrop.factors.wmf import WmfConfig
from needledrop.plays.selection import SelectionConfig
from needledrop.plays.split import SplitConfig
from needledrop.plays.triplets import PlaysConfig
from needledrop.promotion.gate import GateConfig
from needledrop.ranking.evaluate import EvaluationConfig
from needledrop.ranking.paper_plan import PlanConfig
from needledrop.ranking.tag_prediction import TagConfig
from pipelines.cluster_settings import GpuRequest

DESTINATIONS: Mapping[str, tuple[type, str]] = {
    "max_play_count": (PlaysConfig, "max_play_count"),
    "max_rejected_share": (PlaysConfig, "max_rejected_share"),
    "max_orphan_share": (ValidationConfig, "max_orphan_share"),
    "max_top_user_share": (ValidationConfig, "max_top_user_share"),
    "min_density": (ValidationConfig, "min_density"),
    "split_kind": (SplitConfig, "kind"),
    "validation_share": (SplitConfig, "validation_share"),
    "test_share": (SplitConfig, "test_share"),
    "split_seed": (SplitConfig, "seed"),
    "n_factors": (WmfConfig, "n_factors"),
    "regularization": (WmfConfig, "regularization"),
    "n_als_iterations": (WmfConfig, "n_iterations"),
    "als_solver": (WmfConfig, "solver"),
    "wmf_engine": (WmfConfig, "engine"),
    "n_spark_executors": (SparkConfig, "n_executors"),
    "factors_seed": (WmfConfig, "seed"),
    "confidence_alpha": (ConfidenceConfig, "alpha"),
    "confidence_epsilon": (ConfidenceConfig, "epsilon"),
    "sample_rate_hz": (FrontendConfig, "sample_rate_hz"),
    "window_samples": (FrontendConfig, "window_samples"),
    "hop_samples": (FrontendConfig, "hop_samples"),
    "n_mels": (FrontendConfig, "n_mels"),
    "log_gain": (FrontendConfig, "log_gain"),
    "window_seconds": (FrontendConfig, "window_seconds"),
    "max_clip_seconds": (DecodeLimits, "max_seconds"),
    "max_rejected_clips_share": (ScoringConfig, "max_rejected_clips_share"),
    "n_processes": (ExtractionConfig, "n_processes"),
    "log_mel_dtype": (FrontendConfig, "log_mel_dtype"),
    "n_words": (BagOfWordsConfig, "n_words"),
    "n_epochs": (TrainingConfig, "n_epochs"),
    "windows_per_song": (TrainingConfig, "windows_per_song"),
    "batch_size": (TrainingConfig, "batch_size"),
    "learning_rate": (TrainingConfig, "learning_rate"),
    "weight_decay": (TrainingConfig, "weight_decay"),
    "averaging": (TrainingConfig, "averaging"),
    "mixup": (TrainingConfig, "mixup"),
    "masked_bands": (TrainingConfig, "masked_bands"),
    "min_epochs": (TrainingConfig, "min_epochs"),
    "patience_epochs": (TrainingConfig, "patience_epochs"),
    "objective": (TrainingConfig, "objective"),
    "training_seed": (TrainingConfig, "seed"),
    "device": (TrainingConfig, "device"),
    "n_training_nodes": (LaunchConfig, "n_nodes"),
    "gpus_per_node": (LaunchConfig, "gpus_per_node"),
    "job_start_timeout_seconds": (JobConfig, "start_timeout_seconds"),
    "n_gpus": (GpuRequest, "n_gpus"),
    "n_factorization_gpus": (GpuRequest, "n_factorization_gpus"),
    "n_filters": (CnnConfig, "n_filters"),
    "pooling_frames": (CnnConfig, "pooling_frames"),
    "n_hidden": (CnnConfig, "n_hidden"),
    "dropout": (CnnConfig, "dropout"),
    "n_networks": (CnnConfig, "n_networks"),
    "n_networks_2d": (CnnConfig, "n_networks_2d"),
    "n_filters_2d": (CnnConfig, "n_filters_2d"),
    "n_resamples": (EvaluationConfig, "n_resamples"),
    "evaluation_seed": (EvaluationConfig, "seed"),
    "margin_map": (GateConfig, "margin_map"),
    "auc_tolerance": (GateConfig, "auc_tolerance"),
    "min_users": (GateConfig, "min_users"),
    "deploy_to": (DeployConfig, "deploy_to"),
    "namespace": (DeployConfig, "namespace"),
    "predictor_name": (DeployConfig, "predictor_name"),
    "deployment_mode": (DeployConfig, "deployment_mode"),
    "canary_share": (DeployConfig, "canary_share"),
    "predictor_image": (DeployConfig, "predictor_image"),
    "deploy_timeout_seconds": (DeployConfig, "deploy_timeout_seconds"),
}


# Of needledrop-reproduce-paper alone; its networks' other defaults are its own.
PAPER_DESTINATIONS: Mapping[str, tuple[type, str]] = {
    "n_songs": (SelectionConfig, "n_songs"),
    "n_users": (SelectionConfig, "n_users"),
    "selection_seed": (SelectionConfig, "seed"),
    "models": (PlanConfig, "models"),
    "n_seeds": (PlanConfig, "n_seeds"),
    "price_per_hour": (PlanConfig, "price_per_hour"),
    "n_hidden_mlp": (MlpConfig, "n_hidden"),
    "n_epochs_mlp": (MlpConfig, "n_epochs"),
    "n_steps_mlr": (MlrConfig, "n_steps"),
    "n_tags": (TagConfig, "n_tags"),
    "n_folds": (TagConfig, "n_folds"),
    "tag_seed": (TagConfig, "seed"),
    "n_filters_2014": (Cnn2014Config, "n_filters"),
    "n_hidden_2014": (Cnn2014Config, "n_hidden"),
    "window_frames_2014": (Cnn2014Config, "window_frames"),
}


def build_configurations(values: Mapping[str, Any]) -> None:
    """Build every configuration that the values end up in, to see whether it accepts them.

    Raises:
        ConfigRejected: one does not.
    """
    destinations = {**DESTINATIONS, **PAPER_DESTINATIONS}
    for kind in dict.fromkeys(kind for kind, _ in destinations.values()):
        arguments = {
            field: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in destinations
            for destination, field in [destinations[name]]
            if destination is kind
        }
        # As ExtractionConfig.for_training derives them.
        if kind is FrontendConfig and "sample_rate_hz" in arguments:
            arguments["f_max_hz"] = arguments["sample_rate_hz"] / 2
        if kind is DecodeLimits and "window_seconds" in values:
            arguments["min_seconds"] = values["window_seconds"]
        # As the step validate_plays takes it: 0 accepts any age.
        if kind is ValidationConfig and values.get("max_age_days"):
            arguments["max_age_days"] = values["max_age_days"]
        if arguments:
            _build(kind, arguments)


def _build(kind: type, arguments: Mapping[str, Any]) -> None:
    """Build one, and name what it refuses as the pipeline does."""
    try:
        kind(**arguments)
    except ConfigRejected as error:
        message = str(error)
        for name, (destination, field) in {**DESTINATIONS, **PAPER_DESTINATIONS}.items():
            if destination is kind and message.split(":")[0].endswith(f".{field}"):
                raise ConfigRejected(f"{name}:{message.partition(':')[2]}") from None
        raise
