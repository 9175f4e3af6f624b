"""The names that the data contract's files have in a folder, the first that is there counts."""

PLAYS_FILES = (
    "plays.tsv",
    "plays.tsv.gz",
    "plays.parquet",
    "train_triplets.txt",
    "train_triplets.txt.gz",
)
TRACKS_FILES = ("tracks.csv", "tracks.csv.gz", "tracks.parquet")
TAGS_FILES = ("tags.parquet", "tags.csv", "tags.csv.gz")
AUDIO_FOLDER = "audio"
