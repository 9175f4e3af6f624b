"""needledrop-train: plays and audio in, a judged and perhaps deployed predictor out."""

from kfp import dsl

from components.decide_promotion.component import decide_promotion
from components.deploy_predictor.component import deploy_predictor
from components.evaluate_encoder.component import evaluate_encoder
from components.extract_features.component import extract_features
from components.factorize_plays.component import factorize_plays
from components.publish_features.component import publish_features
from components.split_songs.component import split_songs
from components.survey_data.component import survey_data
from components.train_encoder.component import train_encoder
from components.validate_plays.component import validate_plays
from pipelines.cluster_settings import apply_settings, request_gpus
from pipelines.hear_catalogue import hear_catalogue


@dsl.pipeline(name="needledrop-train")
def train_pipeline(
    plays: str,
    tracks: str,
    audio: str,
    registry: str,
    store: str,
    workspace: str,
    run_id: str = "",
    max_play_count: int = 1_000_000,
    max_rejected_share: float = 0.01,
    max_orphan_share: float = 0.05,
    max_top_user_share: float = 0.5,
    min_density: float = 0.000001,
    max_age_days: float = 0.0,
    split_kind: str = "random",
    validation_share: float = 0.1,
    test_share: float = 0.2,
    split_seed: int = 0,
    n_factors: int = 50,
    regularization: float = 100.0,
    n_als_iterations: int = 15,
    als_solver: str = "cholesky",
    wmf_engine: str = "implicit",
    n_spark_executors: int = 4,
    confidence_alpha: float = 2.0,
    confidence_epsilon: float = 0.000001,
    factors_seed: int = 0,
    sample_rate_hz: int = 22_050,
    window_samples: int = 1024,
    hop_samples: int = 512,
    n_mels: int = 128,
    log_gain: float = 100.0,
    window_seconds: float = 3.0,
    max_clip_seconds: float = 900.0,
    max_rejected_clips_share: float = 0.1,
    n_words: int = 4000,
    n_processes: int = 0,
    log_mel_dtype: str = "uint8",
    n_feature_shards: int = 0,
    n_epochs: int = 30,
    windows_per_song: int = 4,
    batch_size: int = 64,
    learning_rate: float = 0.001,
    weight_decay: float = 0.01,
    averaging: float = 0.99,
    mixup: float = 0.0,
    masked_bands: int = 24,
    min_epochs: int = 12,
    patience_epochs: int = 8,
    objective: str = "mse",
    n_filters: list = [64, 64, 128],  # noqa: B006  (KFP copies defaults into the pipeline's YAML)
    pooling_frames: list = [4, 2, 2],  # noqa: B006
    n_hidden: list = [256],  # noqa: B006
    dropout: float = 0.5,
    n_networks: int = 2,
    n_networks_2d: int = 2,
    n_filters_2d: list = [16, 32, 64],  # noqa: B006
    training_seed: int = 0,
    device: str = "auto",
    n_training_nodes: int = 0,
    gpus_per_node: int = 1,
    job_start_timeout_seconds: int = 3600,
    n_gpus: str = "0",
    n_factorization_gpus: str = "0",
    n_resamples: int = 1000,
    evaluation_seed: int = 0,
    margin_map: float = 0.0,
    auc_tolerance: float = 0.005,
    min_users: int = 100,
    deploy_to: str = "registry",
    namespace: str = "",
    predictor_name: str = "needledrop",
    deployment_mode: str = "Standard",
    canary_share: float = 0.1,
    predictor_image: str = "",
    deploy_timeout_seconds: int = 900,
):
    """Learn tastes from plays, learn to hear them in audio, and promote the result if it is better.

    Args:
        plays: plays: a file, a glob or a URI of triplets (user, song, count) or Parquet.
        tracks: tracks: CSV or Parquet with song_id, and track_id for songs that have a clip.
        audio: folder or s3:// URI of clips named after track ids, at any depth.
        registry: folder or s3:// URI of registered versions and the champion.
        store: folder or s3:// URI of the feature store.
        workspace: folder or s3:// URI that outlives the run: feature shards and checkpoints.
        run_id: name of this run in the registry; where it is empty, Kubeflow's id of the run.
        max_play_count: plays of a pair above it are broken rows.
        max_rejected_share: share of broken rows beyond which the run fails.
        max_orphan_share: share of played songs that the tracks lack, beyond which the report warns.
        max_top_user_share: share of all plays by one listener beyond which the run fails.
        min_density: share of listener-song pairs with plays below which the run fails.
        max_age_days: days since the last play, where dates exist, beyond which the run fails; 0
            accepts any age.
        split_kind: random, or artist for artist-disjoint.
        validation_share: share of the songs that stop the training.
        test_share: share of the songs that nothing but the evaluation looks at.
        split_seed: another seed holds out other songs.
        n_factors: latent factors of a listener and of a song.
        regularization: lambda of the factorisation.
        n_als_iterations: pairs of half-steps of alternating least squares.
        als_solver: cholesky, exact; or cg, faster from about a hundred factors on; implicit's.
        wmf_engine: implicit or torch, in memory; or spark, for plays beyond one machine's memory.
        n_spark_executors: of the SparkApplication that factorises with spark on a cluster; 0, or a
            run on one machine, runs Spark in the step.
        confidence_alpha: how strongly a play count speaks.
        confidence_epsilon: what play counts are measured against.
        factors_seed: of the first factors.
        sample_rate_hz: clips are resampled to it.
        window_samples: of the short-time Fourier transform.
        hop_samples: from one frame to the next.
        n_mels: bands of the mel spectrogram.
        log_gain: of the compression log(1 + log_gain * power).
        window_seconds: what the network hears at once.
        max_clip_seconds: longer clips are rejected.
        max_rejected_clips_share: share of unusable clips beyond which the run fails.
        n_words: K-means words of the bag-of-words baseline.
        n_processes: for feature extraction; 0 takes one for each core.
        log_mel_dtype: what log-mel is stored in: uint8, or float16 for twice the bytes.
        n_feature_shards: parts of the catalogue that are heard by pods of their own, at the same
            time; 0 hears all in one.
        n_epochs: of training, at most.
        windows_per_song: random windows of each song in an epoch.
        batch_size: windows in a training step.
        learning_rate: constant.
        weight_decay: of AdamW.
        averaging: decay of the moving average of the weights that is validated and kept.
        mixup: how strongly pairs of windows are blended; 0 blends nothing.
        masked_bands: at most so many neighbouring mel bands of a window are masked; 0 masks none.
        min_epochs: the weights of earlier epochs are not kept.
        patience_epochs: epochs without a better validation score before training stops.
        objective: of the network: mse, the squared error of the factors; or wpe, the weighted
            error of what listeners play, which needs mixup 0.
        n_filters: of each convolution, a list.
        pooling_frames: of the max-pooling after each convolution, a list of the same length.
        n_hidden: units of each dense layer, a list.
        dropout: share of units that are silenced in training.
        n_networks: trained one by one, alike but for their seeds; their mean predicts.
        n_networks_2d: so many more, which hear the spectrogram as an image.
        n_filters_2d: of each convolution of these.
        training_seed: of weights, windows and dropout.
        device: auto, cpu or cuda.
        n_training_nodes: machines of a Kubeflow TrainJob for the network; 0 trains in the step.
        gpus_per_node: of each of these machines; 0 trains on their CPUs.
        job_start_timeout_seconds: until the TrainJob or the SparkApplication runs; a queue counts.
        n_gpus: for the network's training on a cluster, 0 or more, written as a text.
        n_factorization_gpus: for wmf_engine=torch on a cluster, 0 or 1, written as a text.
        n_resamples: bootstrap resamples behind each interval.
        evaluation_seed: of the resamples and of the order of tied songs.
        margin_map: the lower end of the interval of the gain in mAP@500 over the champion must be
            above it.
        auc_tolerance: the largest loss of AUC that is acceptable.
        min_users: with fewer listeners in the evaluation nothing is promoted.
        deploy_to: registry, for predictors that follow its champion; or kserve, for a cluster.
        namespace: of the InferenceService; empty for the one that the step runs in.
        predictor_name: of the InferenceService.
        deployment_mode: of KServe: Standard or Knative.
        canary_share: of the traffic that a new version gets until it has passed its check.
        predictor_image: of the predictor; empty for the ServingRuntime's own.
        deploy_timeout_seconds: for the canary to be ready, and again for the promoted version.
    """
    surveyed = survey_data(
        plays=plays, tracks=tracks, audio=audio, max_age_days=max_age_days
    ).set_display_name("survey-data")
    data_fingerprint = surveyed.outputs["Output"]

    validated = validate_plays(
        plays=plays,
        tracks=tracks,
        data_fingerprint=data_fingerprint,
        max_play_count=max_play_count,
        max_rejected_share=max_rejected_share,
        max_orphan_share=max_orphan_share,
        max_top_user_share=max_top_user_share,
        min_density=min_density,
        max_age_days=max_age_days,
    ).set_display_name("validate-plays")
    accepted_plays = validated.outputs["accepted_plays"]
    accepted_tracks = validated.outputs["accepted_tracks"]

    splitting = split_songs(
        plays=accepted_plays,
        tracks=accepted_tracks,
        audio=audio,
        data_fingerprint=data_fingerprint,
        split_kind=split_kind,
        validation_share=validation_share,
        test_share=test_share,
        split_seed=split_seed,
    ).set_display_name("split-songs")
    split = splitting.outputs["split"]

    factorized = factorize_plays(
        plays=accepted_plays,
        split=split,
        n_factors=n_factors,
        regularization=regularization,
        n_als_iterations=n_als_iterations,
        als_solver=als_solver,
        wmf_engine=wmf_engine,
        confidence_alpha=confidence_alpha,
        confidence_epsilon=confidence_epsilon,
        factors_seed=factors_seed,
        workspace=workspace,
        n_spark_executors=n_spark_executors,
        job_start_timeout_seconds=job_start_timeout_seconds,
    ).set_display_name("factorize-plays")
    factors = factorized.outputs["factors"]

    hearing = {
        "tracks": accepted_tracks,
        "audio": audio,
        "workspace": workspace,
        "sample_rate_hz": sample_rate_hz,
        "window_samples": window_samples,
        "hop_samples": hop_samples,
        "n_mels": n_mels,
        "log_gain": log_gain,
        "window_seconds": window_seconds,
        "max_clip_seconds": max_clip_seconds,
        "n_processes": n_processes,
        "log_mel_dtype": log_mel_dtype,
    }
    heard = hear_catalogue(n_feature_shards=n_feature_shards, **hearing)
    extracted = (
        extract_features(
            split=split,
            data_fingerprint=data_fingerprint,
            max_rejected_clips_share=max_rejected_clips_share,
            n_words=n_words,
            **hearing,
        )
        .after(heard)
        .set_display_name("extract-features")
    )
    features = extracted.outputs["features"]

    publishing = publish_features(factors=factors, features=features, store=store).set_display_name(
        "publish-features"
    )

    def trained(encoder: str) -> dsl.PipelineTask:
        return train_encoder(
            encoder=encoder,
            published=publishing.outputs["published"],
            factors=factors,
            features=features,
            plays=accepted_plays,
            split=split,
            store=store,
            workspace=workspace,
            n_epochs=n_epochs,
            windows_per_song=windows_per_song,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            averaging=averaging,
            mixup=mixup,
            masked_bands=masked_bands,
            min_epochs=min_epochs,
            patience_epochs=patience_epochs,
            objective=objective,
            n_filters=n_filters,
            pooling_frames=pooling_frames,
            n_hidden=n_hidden,
            dropout=dropout,
            n_networks=n_networks,
            n_networks_2d=n_networks_2d,
            n_filters_2d=n_filters_2d,
            training_seed=training_seed,
            device=device,
            n_training_nodes=n_training_nodes,
            gpus_per_node=gpus_per_node,
            job_start_timeout_seconds=job_start_timeout_seconds,
        ).set_display_name(f"train-encoder-{encoder}")

    linear, network = trained("linear"), trained("cnn")
    baseline, candidate = linear.outputs["bundle"], network.outputs["bundle"]

    evaluated = evaluate_encoder(
        candidate=candidate,
        baseline=baseline,
        factors=factors,
        features=features,
        plays=accepted_plays,
        split=split,
        registry=registry,
        workspace=workspace,
        n_resamples=n_resamples,
        evaluation_seed=evaluation_seed,
    ).set_display_name("evaluate-encoder")

    decided = decide_promotion(
        candidate=candidate,
        report=evaluated.outputs["report"],
        registry=registry,
        run_id=run_id,
        job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        margin_map=margin_map,
        auc_tolerance=auc_tolerance,
        min_users=min_users,
    ).set_display_name("decide-promotion")

    with dsl.If(decided.outputs["Output"] == True, name="promoted"):  # noqa: E712
        deployed = deploy_predictor(
            candidate=candidate,
            verdict=decided.outputs["verdict"],
            factors=factors,
            plays=accepted_plays,
            tracks=accepted_tracks,
            registry=registry,
            store=store,
            run_id=run_id,
            job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            deploy_to=deploy_to,
            namespace=namespace,
            predictor_name=predictor_name,
            deployment_mode=deployment_mode,
            canary_share=canary_share,
            predictor_image=predictor_image,
            deploy_timeout_seconds=deploy_timeout_seconds,
        ).set_display_name("deploy-predictor")

    apply_settings(
        surveyed, validated, splitting, factorized, extracted, publishing, linear, network
    )
    apply_settings(evaluated, decided, deployed)
    request_gpus(network, n_gpus)
    request_gpus(factorized, n_factorization_gpus)
