"""Invented names, titles, tags and biographies. They describe; nothing is learnt from them."""

import numpy as np

from needledrop.demo.styles import FIGURES, GENRES, GROOVES, PALETTES, PROGRESSIONS, Style

SCENES = ("Harbour", "Hillside", "Old Mill", "Riverbank", "Station", "Uptown")

_ADJECTIVES = (
    "Amber", "Borrowed", "Brass", "Clockwork", "Copper", "Crooked", "Distant", "Electric",
    "Feather", "Gentle", "Granite", "Hollow", "Ivory", "Lantern", "Midnight", "Northern",
    "Paper", "Quiet", "Rusty", "Salt", "Silver", "Sleepless", "Solar", "Tangerine", "Velvet",
    "Violet", "Wandering", "Winter",
)  # fmt: skip
_NOUNS = (
    "Almanac", "Antlers", "Apparatus", "Carousel", "Choir", "Comets", "Compass", "Cranes",
    "Ferries", "Foxes", "Harvest", "Islands", "Kettles", "Ladders", "Lighthouse", "Mariners",
    "Meadow", "Orchard", "Parade", "Pendulum", "Pilots", "Postcards", "Sparrows", "Telescopes",
    "Tides", "Trams", "Umbrellas", "Weather",
)  # fmt: skip
_TITLES = (
    "After the Rain", "Attic Window", "Backwards Map", "Bicycle Season", "Café Lumière",
    "Cartography", "Eleven Bridges", "Every Other Sunday", "Fold the Paper", "Ghost of a Chance",
    "Half a Moon", "Hold the Line", "Ink and Water", "January Light", "Kite Strings",
    "Last Train, First Snow", "Letters to Nobody", "Little Engines", "Long Way Down",
    "Marble Stairs", "Neon Garden", "No Such Street", "Ordinary Magic", "Paper Boats",
    "Quarter Past Blue", "Roof of the World", "Sea Legs", "Second-hand Sky", "Slow Machine",
    'The "Other" Room', "Tin Roof", "Undertow", "Upstairs Dancing", "Weightless", "Yes, Again",
)  # fmt: skip
_SUFFIXES = ("", "", "", "", " (Live)", " (Reprise)", ", Pt. 2", " II", " (Demo)")
_STRAY_TAGS = ("beautiful", "favourites", "seen live", "on repeat", "road trip", "underrated")
_TAG_SHARE, _UNTAGGED_SHARE, _STRAY_SHARE = 0.75, 0.08, 0.2

_OPENINGS = (
    "{name} came together in the {scene} scene and play {genre}.",
    "{name}, of the {scene} scene, have made {genre} since they met.",
    "What {name} call {genre} was first heard in the {scene} scene.",
)
_MIDDLES = (
    "Listeners mention {tag} and {other} before anything else.",
    "The records are best described as {tag}, with a touch of {other}.",
    "On stage they are {tag}; in the studio, {other}.",
)
_CLOSINGS = (
    "A new collection is in preparation.",
    "They record at night.",
    "They share a rehearsal room with half of the town.",
    "Their first tape sold out in a week.",
)


def artist_names(n_names: int, rng: np.random.Generator) -> list[str]:
    """Different invented names; beyond the first few hundred they are numbered."""
    pairs = [f"{adjective} {noun}" for adjective in _ADJECTIVES for noun in _NOUNS]
    order = rng.permutation(len(pairs))
    names = []
    for index in range(n_names):
        edition, place = divmod(index, len(pairs))
        names.append(pairs[order[place]] + (f" {edition + 1}" if edition else ""))
    return names


def song_title(rng: np.random.Generator) -> str:
    """A title; as in life, songs by different artists may share one."""
    title = _TITLES[int(rng.integers(len(_TITLES)))]
    return title + _SUFFIXES[int(rng.integers(len(_SUFFIXES)))]


def _true_tags(style: Style) -> list[str]:
    """What attentive listeners would say of a song, the most obvious first."""
    tags = [GENRES[style.palette][style.groove], *PALETTES[style.palette].tags]
    tags += GROOVES[style.groove].tags
    tags += FIGURES[style.figure].tags
    tags.append(PROGRESSIONS[style.progression].mood)
    degrees = (
        (style.tempo_bpm < 92.0, "slow"),
        (style.tempo_bpm > 108.0, "fast"),
        (style.brightness > 0.65, "bright"),
        (style.brightness < 0.35, "muted"),
        (style.grit > 0.65, "distortion"),
        (style.room > 0.65, "atmospheric"),
        (style.swing > 0.14, "swing"),
    )
    return tags + [tag for applies, tag in degrees if applies]


def song_tags(style: Style, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Tags with scores from 100 down to 1, the strongest first; some songs have none."""
    if rng.uniform() < _UNTAGGED_SHARE:
        return []
    true_tags = _true_tags(style)
    chosen = [tag for tag in true_tags if rng.uniform() < _TAG_SHARE]
    if rng.uniform() < _STRAY_SHARE:
        chosen.append(_STRAY_TAGS[int(rng.integers(len(_STRAY_TAGS)))])
    weights = {tag: float(rng.uniform(0.1, 1.0)) * 0.93**place for place, tag in enumerate(chosen)}
    strongest = max(weights.values(), default=1.0)
    scored = [(tag, max(1, round(100 * weight / strongest))) for tag, weight in weights.items()]
    return sorted(scored, key=lambda tag_and_score: (-tag_and_score[1], tag_and_score[0]))


def artist_biography(name: str, scene: int, style: Style, rng: np.random.Generator) -> str:
    """Two or three sentences that match what the artist's songs sound like."""
    tags = [*PALETTES[style.palette].tags, *GROOVES[style.groove].tags, *FIGURES[style.figure].tags]
    tag, other = (tags[index] for index in rng.choice(len(tags), size=2, replace=False))
    sentences = [
        templates[int(rng.integers(len(templates)))] for templates in (_OPENINGS, _MIDDLES)
    ]
    if rng.uniform() < 0.5:
        sentences.append(_CLOSINGS[int(rng.integers(len(_CLOSINGS)))])
    genre = GENRES[style.palette][style.groove]
    return " ".join(sentences).format(
        name=name, scene=SCENES[scene], genre=genre, tag=tag, other=other
    )
