"""needledrop-reproduce-paper: every model of the paper, on both splits, with several seeds."""

from kfp import dsl

from components.evaluate_paper_models.component import evaluate_paper_models
from components.extract_features.component import extract_features
from components.factorize_plays.component import factorize_plays
from components.plan_trainings.component import plan_trainings
from components.predict_tags.component import predict_tags
from components.report_paper.component import report_paper
from components.select_plays.component import select_plays
from components.split_songs.component import split_songs
from components.survey_data.component import survey_data
from components.train_paper_model.component import train_paper_model
from components.validate_plays.component import validate_plays
from pipelines.cluster_settings import apply_settings, request_gpus

SPLITS = ("random", "artist")


@dsl.pipeline(name="needledrop-reproduce-paper")
def reproduce_paper_pipeline(
    plays: str,
    tracks: str,
    audio: str,
    workspace: str,
    tags: str = "",
    n_songs: int = 0,
    n_users: int = 0,
    selection_seed: int = 0,
    max_play_count: int = 1_000_000,
    max_rejected_share: float = 0.01,
    max_orphan_share: float = 0.05,
    max_top_user_share: float = 0.5,
    min_density: float = 0.000001,
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
    max_clip_seconds: float = 900.0,
    max_rejected_clips_share: float = 0.1,
    n_words: int = 4000,
    n_processes: int = 0,
    models: list = ["mlr", "linear", "mlp", "cnn_mse", "cnn_wpe", "cnn2014"],  # noqa: B006
    n_seeds: int = 3,
    n_epochs: int = 60,
    min_epochs: int = 12,
    patience_epochs: int = 8,
    windows_per_song: int = 4,
    batch_size: int = 64,
    learning_rate: float = 0.001,
    weight_decay: float = 0.01,
    averaging: float = 0.99,
    masked_bands: int = 0,
    n_filters: list = [256, 256, 256],  # noqa: B006
    pooling_frames: list = [4, 2, 2],  # noqa: B006
    n_hidden: list = [1024],  # noqa: B006
    dropout: float = 0.5,
    n_filters_2014: list = [256, 256, 512, 512],  # noqa: B006
    n_hidden_2014: list = [2048, 2048],  # noqa: B006
    learning_rate_2014: float = 0.01,
    window_frames_2014: int = 599,
    n_hidden_mlp: int = 1000,
    n_epochs_mlp: int = 200,
    n_steps_mlr: int = 200,
    device: str = "auto",
    n_gpus: str = "0",
    n_factorization_gpus: str = "0",
    n_resamples: int = 1000,
    evaluation_seed: int = 0,
    n_tags: int = 50,
    n_folds: int = 10,
    tag_seed: int = 0,
    price_per_hour: float = 0.0,
    job_start_timeout_seconds: int = 3600,
):
    """Train and compare the paper's models on random and on artist-disjoint splits.

    Args:
        plays: plays: a file, a glob or a URI of triplets (user, song, count) or Parquet.
        tracks: tracks: CSV or Parquet with song_id, track_id and artist_id.
        audio: folder or s3:// URI of clips named after track ids, at any depth.
        workspace: folder or s3:// URI that outlives the run: features, checkpoints, models.
        tags: tags: CSV or Parquet with tag, and song_id or track_id; empty where there are none.
        n_songs: the most played songs with a clip; 0 takes all songs.
        n_users: listeners drawn from those who played them; 0 takes all.
        selection_seed: another one draws other listeners.
        max_play_count: plays of a pair above it are broken rows.
        max_rejected_share: share of broken rows beyond which the run fails.
        max_orphan_share: share of played songs that the tracks lack, beyond which the report warns.
        max_top_user_share: share of all plays by one listener beyond which the run fails.
        min_density: share of listener-song pairs with plays below which the run fails.
        validation_share: share of the songs (artists) that choose settings and stop the training.
        test_share: share of the songs (artists) that nothing but the evaluation looks at.
        split_seed: another seed holds out other songs.
        n_factors: latent factors of a listener and of a song.
        regularization: lambda of the factorisation.
        n_als_iterations: pairs of half-steps of alternating least squares.
        als_solver: cholesky, exact; or cg, faster from about a hundred factors on; implicit's.
        wmf_engine: implicit or torch, in memory; or spark, for plays beyond one machine's memory.
        n_spark_executors: of the SparkApplication that factorises with spark on a cluster.
        confidence_alpha: how strongly a play count speaks.
        confidence_epsilon: what play counts are measured against.
        factors_seed: of the first factors.
        max_clip_seconds: longer clips are rejected.
        max_rejected_clips_share: share of unusable clips beyond which the run fails.
        n_words: K-means words of the bag of words.
        n_processes: for feature extraction; 0 takes one for each core.
        models: which of mlr, linear, mlp, cnn_mse, cnn_wpe and cnn2014; random and the oracle
            always join them.
        n_seeds: trainings of each model that has something random.
        n_epochs: of the networks, at most.
        min_epochs: the weights of earlier epochs are not kept.
        patience_epochs: epochs without a better validation score before training stops.
        windows_per_song: random windows of each song in an epoch.
        batch_size: windows in a step.
        learning_rate: of AdamW, for the networks of 2013.
        weight_decay: of the networks.
        averaging: decay of the moving average of the weights.
        masked_bands: at most so many neighbouring mel bands are silenced; the paper silences none.
        n_filters: of each convolution of the networks of 2013, a list.
        pooling_frames: of the max-pooling after each of them, a list of the same length.
        n_hidden: units of each of their dense layers, a list.
        dropout: share of units that are silenced in training.
        n_filters_2014: of each of the four convolutions of the network of 2014, a list.
        n_hidden_2014: units of each of its dense layers, a list.
        learning_rate_2014: of its gradient descent with Nesterov momentum.
        window_frames_2014: what it hears at once; less where the shortest clip is shorter.
        n_hidden_mlp: units of the perceptron.
        n_epochs_mlp: of the perceptron, at most.
        n_steps_mlr: of metric learning.
        device: auto, cpu or cuda; for learning and for hearing test songs.
        n_gpus: that each step with networks asks a cluster for, written as a text.
        n_factorization_gpus: for wmf_engine=torch on a cluster, 0 or 1, written as a text.
        n_resamples: bootstrap resamples behind each interval.
        evaluation_seed: of the resamples and of the order of tied songs.
        n_tags: the most frequent ones are told.
        n_folds: of the cross-validation of tags.
        tag_seed: of its folds.
        price_per_hour: of the machine that trains, for the report; 0 shows no prices.
        job_start_timeout_seconds: until a SparkApplication's executors run.
    """
    surveyed = survey_data(
        plays=plays, tracks=tracks, audio=audio, max_age_days=0.0
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
        max_age_days=0.0,
    ).set_display_name("validate-plays")
    selected = select_plays(
        plays=validated.outputs["accepted_plays"],
        tracks=validated.outputs["accepted_tracks"],
        audio=audio,
        tags=tags,
        data_fingerprint=data_fingerprint,
        n_songs=n_songs,
        n_users=n_users,
        selection_seed=selection_seed,
    ).set_display_name("select-plays")
    some_plays = selected.outputs["selected_plays"]
    some_tracks = selected.outputs["selected_tracks"]
    planned = plan_trainings(models=models, n_seeds=n_seeds).set_display_name("plan-trainings")
    apply_settings(surveyed, validated, selected, planned)

    splits = {
        kind: split_songs(
            plays=some_plays,
            tracks=some_tracks,
            audio=audio,
            data_fingerprint=data_fingerprint,
            split_kind=kind,
            validation_share=validation_share,
            test_share=test_share,
            split_seed=split_seed,
        ).set_display_name(f"split-songs-{kind}")
        for kind in SPLITS
    }
    apply_settings(*splits.values())

    def of_split(kind: str, before: dsl.PipelineTask) -> dict[str, dsl.PipelineTask]:
        """Everything of one split, after a task of the other."""
        split = splits[kind].outputs["split"]
        factorized = (
            factorize_plays(
                plays=some_plays,
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
            )
            .after(*splits.values())
            .set_display_name(f"factorize-plays-{kind}")
        )
        extracted = (
            extract_features(
                tracks=some_tracks,
                split=split,
                audio=audio,
                data_fingerprint=data_fingerprint,
                workspace=workspace,
                sample_rate_hz=22_050,
                window_samples=1024,
                hop_samples=512,
                n_mels=128,
                log_mel_dtype="uint8",
                log_gain=100.0,
                window_seconds=3.0,
                max_clip_seconds=max_clip_seconds,
                max_rejected_clips_share=max_rejected_clips_share,
                n_words=n_words,
                n_processes=n_processes,
            )
            .after(before)
            .set_display_name(f"extract-features-{kind}")
        )
        inputs = {
            "factors": factorized.outputs["factors"],
            "features": extracted.outputs["features"],
            "plays": some_plays,
            "split": split,
        }
        with dsl.ParallelFor(planned.outputs["Output"], name=f"trainings-{kind}") as training:
            trained = train_paper_model(
                training=training,
                workspace=workspace,
                n_epochs=n_epochs,
                min_epochs=min_epochs,
                patience_epochs=patience_epochs,
                windows_per_song=windows_per_song,
                batch_size=batch_size,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                averaging=averaging,
                masked_bands=masked_bands,
                n_filters=n_filters,
                pooling_frames=pooling_frames,
                n_hidden=n_hidden,
                dropout=dropout,
                n_filters_2014=n_filters_2014,
                n_hidden_2014=n_hidden_2014,
                learning_rate_2014=learning_rate_2014,
                window_frames_2014=window_frames_2014,
                n_hidden_mlp=n_hidden_mlp,
                n_epochs_mlp=n_epochs_mlp,
                n_steps_mlr=n_steps_mlr,
                device=device,
                n_gpus=n_gpus,  # the loop has it, so that it can be asked for below
                **inputs,
            ).set_display_name(f"train-paper-model-{kind}")
        evaluated = evaluate_paper_models(
            models=dsl.Collected(trained.outputs["model"]),
            n_seeds=n_seeds,
            n_resamples=n_resamples,
            evaluation_seed=evaluation_seed,
            device=device,
            **inputs,
        ).set_display_name(f"evaluate-paper-models-{kind}")
        apply_settings(factorized, extracted, trained, evaluated)
        request_gpus(factorized, n_factorization_gpus)
        request_gpus(trained, n_gpus)
        request_gpus(evaluated, n_gpus)
        return {"trained": trained, "extracted": extracted, "evaluated": evaluated, **inputs}

    # Both are split before anything is learned: where there are too few artists, it fails at once.
    # And both hear the same clips, so one does so after the other.
    random = of_split("random", splits["artist"])
    artist = of_split("artist", random["extracted"])
    told = predict_tags(
        tags=tags,
        models=dsl.Collected(random["trained"].outputs["model"]),
        tracks=some_tracks,
        factors=random["factors"],
        features=random["features"],
        plays=some_plays,
        split=random["split"],
        n_tags=n_tags,
        n_folds=n_folds,
        tag_seed=tag_seed,
        device=device,
    ).set_display_name("predict-tags")
    reported = report_paper(
        random_result=random["evaluated"].outputs["result"],
        artist_result=artist["evaluated"].outputs["result"],
        tag_result=told.outputs["tag_result"],
        price_per_hour=price_per_hour,
    ).set_display_name("report-paper")
    apply_settings(told, reported)
    request_gpus(told, n_gpus)
