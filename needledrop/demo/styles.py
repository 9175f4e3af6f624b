"""What a song can be: palettes (timbre), grooves and figures (time), harmony, arrangement.

The tables are made so that time can't be read off timbre. Every palette meets every groove and
every figure. All grooves strike the same drums, chords and bass notes equally often and at the same
intervals: only the order of the beats differs. All figures play as many notes. A model that counts
short sounds can tell the palettes apart; to tell grooves and figures apart, it has to hear what
comes a beat or a bar later.
"""

from dataclasses import dataclass

from needledrop.demo.drums import Kit
from needledrop.demo.voices import Voice

BEATS_A_BAR, STEPS_A_BEAT, BARS_A_ROUND = 4, 2, 4
STEPS_A_BAR = BEATS_A_BAR * STEPS_A_BEAT


@dataclass(frozen=True)
class Palette:
    """The instruments of a song: what it sounds like at any one instant."""

    name: str
    figure: Voice
    chords: Voice
    bass: Voice
    pad: Voice
    kit: Kit
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Groove:
    """What strikes on each of the eight beats of two bars.

    ``strokes`` has a letter a beat: ``L`` a low stroke (kick and bass), ``H`` a high one (snare
    and chord).
    """

    name: str
    strokes: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """In which of a bar's eight steps the melody plays (``x``) or rests (``.``)."""

    name: str
    notes: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Progression:
    """A scale in semitones above its root, and the degrees (from 0) of the chords of four bars."""

    mood: str
    scale: tuple[int, ...]
    degrees: tuple[int, int, int, int]


@dataclass(frozen=True)
class Arrangement:
    """How a song unfolds.

    Attributes:
        silent: the layers that are silent in each bar of a round of four.
        swell_db: loudness gained (or lost, when negative) from the clip's start to its end.
    """

    name: str
    silent: tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[str]]
    swell_db: float


PALETTES = (
    Palette(
        "strings",
        figure=Voice("pluck", 0.75, 0.5, 0.002, 0.3),
        chords=Voice("pluck", 0.6, 0.6, 0.002, 0.7),
        bass=Voice("pluck", 0.35, 0.5, 0.002, 0.5),
        pad=Voice("saw", 0.15, 8.0, 0.25, 0.7),
        kit=Kit(62.0, 0.07, 190.0, 0.75, 0.05, 6000.0, 0.03),
        tags=("acoustic", "guitar", "plucked", "folk"),
    ),
    Palette(
        "glass",
        figure=Voice("fm", 0.5, 0.45, 0.002, 0.7),
        chords=Voice("fm", 0.25, 0.7, 0.004, 0.3),
        bass=Voice("fm", 0.2, 0.5, 0.004, 0.1),
        pad=Voice("fm", 0.05, 8.0, 0.3, 0.3),
        kit=Kit(50.0, 0.09, 230.0, 0.55, 0.06, 7500.0, 0.04),
        tags=("electric piano", "bells", "mellow", "dreamy"),
    ),
    Palette(
        "analog",
        figure=Voice("saw", 0.75, 0.4, 0.003, 0.6),
        chords=Voice("saw", 0.5, 0.8, 0.01, 1.0),
        bass=Voice("saw", 0.4, 0.5, 0.003, 0.2),
        pad=Voice("saw", 0.3, 8.0, 0.2, 1.0),
        kit=Kit(48.0, 0.10, 180.0, 0.65, 0.07, 5000.0, 0.05),
        tags=("synth", "electronic", "analog", "synthpop"),
    ),
    Palette(
        "organ",
        figure=Voice("organ", 0.7, 0.5, 0.01, 0.6),
        chords=Voice("organ", 0.45, 1.0, 0.02, 0.3),
        bass=Voice("organ", 0.1, 0.6, 0.01, 0.0),
        pad=Voice("organ", 0.2, 8.0, 0.2, 0.2),
        kit=Kit(68.0, 0.08, 210.0, 0.6, 0.06, 4000.0, 0.07),
        tags=("organ", "soul", "vintage", "warm"),
    ),
    Palette(
        "chip",
        figure=Voice("pulse", 0.8, 0.5, 0.002, 0.5),
        chords=Voice("pulse", 0.6, 0.6, 0.002, 0.9),
        bass=Voice("pulse", 0.2, 0.6, 0.002, 0.0),
        pad=Voice("pulse", 0.1, 8.0, 0.1, 0.0),
        kit=Kit(80.0, 0.07, 260.0, 0.95, 0.06, 3000.0, 0.025),
        tags=("chiptune", "8-bit", "video game music", "digital"),
    ),
)

GROOVES = (
    Groove("backbeat", "LHLHLHLH", ("backbeat", "groovy", "dance")),
    Groove("two-step", "LLHHLLHH", ("two-step", "hypnotic", "marching")),
    Groove("trading", "LLLLHHHH", ("call and response", "jam", "half-time")),
)

FIGURES = (
    Figure("pulsing", "x.x.x.x.", ("pulsing", "minimal")),
    Figure("pairs", "xx..xx..", ("bouncy", "playful")),
    Figure("phrases", "xxxx....", ("melodic", "lyrical")),
)

# GENRES[palette][groove]: what people call the meeting of the two.
GENRES = (
    ("porch rock", "string march", "campfire jam"),
    ("lounge pop", "glass step", "bell garden"),
    ("synthwave", "motorik", "machine dialogue"),
    ("soul revue", "fairground", "gospel exchange"),
    ("chip pop", "bit march", "arcade duel"),
)

_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
_DORIAN = (0, 2, 3, 5, 7, 9, 10)

PROGRESSIONS = (
    Progression("happy", _MAJOR, (0, 4, 5, 3)),
    Progression("happy", _MAJOR, (0, 5, 3, 4)),
    Progression("romantic", _MAJOR, (1, 4, 0, 5)),
    Progression("epic", _MINOR, (0, 5, 2, 6)),
    Progression("sad", _MINOR, (0, 3, 4, 0)),
    Progression("dark", _MINOR, (0, 6, 5, 4)),
    Progression("cool", _DORIAN, (0, 3, 0, 3)),
    Progression("cool", _DORIAN, (0, 6, 3, 0)),
)

_ALL: frozenset[str] = frozenset()

ARRANGEMENTS = (
    Arrangement("full", (_ALL, _ALL, _ALL, _ALL), 0.0),
    Arrangement("building", (frozenset({"hat", "chords"}), frozenset({"hat"}), _ALL, _ALL), 5.0),
    Arrangement("breakdown", (_ALL, _ALL, frozenset({"kick", "hat"}), _ALL), 0.0),
    Arrangement("dub", (_ALL, frozenset({"chords"}), _ALL, frozenset({"bass", "hat"})), 0.0),
    Arrangement("fading", (_ALL, _ALL, _ALL, frozenset({"pad", "hat"})), -5.0),
)


@dataclass(frozen=True)
class Style:
    """Everything that can be heard in one song, but for what its musicians improvise.

    Attributes:
        palette, groove, figure, progression, arrangement: places in the tables above.
        tempo_bpm: beats a minute; a bar has four.
        brightness, grit, room: 0 to 1; how bright, how distorted, how reverberant.
        key: semitones above C of the tonic.
        swing: share of a step (half a beat) by which every second step comes late.
    """

    palette: int
    groove: int
    figure: int
    progression: int
    arrangement: int
    tempo_bpm: float
    brightness: float
    grit: float
    room: float
    key: int
    swing: float
