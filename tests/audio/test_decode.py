"""The decoder against clips whose samples are known, and against broken and hostile ones."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needledrop.audio.decode import DecodeLimits, container_of, decode_clip
from needledrop.errors import ClipRejected, ConfigRejected
from tests.audio.conftest import chord, encode

RATE = 22_050


def rejection(source, **limits) -> ClipRejected:
    with pytest.raises(ClipRejected) as caught:
        decode_clip(source, RATE, DecodeLimits(**limits))
    return caught.value


def correlation(decoded: np.ndarray, expected: np.ndarray) -> float:
    """The best over small shifts: lossy codecs delay by some samples."""
    middle = slice(RATE, 2 * RATE)
    return max(
        float(np.corrcoef(np.roll(decoded, shift)[middle], expected[middle])[0, 1])
        for shift in range(-2500, 2501, 1)
    )


def test_lossless_clips_come_back_to_the_quantisation(clip):
    for name in ("a.wav", "a.flac"):
        decoded = decode_clip(clip(name), RATE)
        assert decoded.dtype == np.float32
        np.testing.assert_allclose(decoded, chord(4.0, RATE)[0], atol=1 / 32_000)


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.aac", "a.m4a"])
def test_lossy_clips_sound_the_same(clip, name):
    decoded = decode_clip(clip(name), RATE)
    # AAC begins with the encoder's delay and fills its last frame: two frames of 1,024 at most.
    assert 0 <= len(decoded) - 4 * RATE <= 2048 or abs(len(decoded) - 4 * RATE) < 100
    assert correlation(decoded, chord(4.0, RATE)[0]) > 0.98


@pytest.mark.parametrize(
    ("name", "rate_hz", "n_channels"),
    [("a.wav", 192_000, 1), ("a.wav", 48_000, 8), ("a.flac", 44_100, 2), ("a.wav", 8_000, 1)],
)
def test_any_rate_and_channels_become_mono_at_the_asked_rate(clip, name, rate_hz, n_channels):
    decoded = decode_clip(clip(name, rate_hz=rate_hz, n_channels=n_channels), RATE)
    expected = chord(4.0, RATE)[0]
    assert abs(len(decoded) - len(expected)) <= 1
    n = min(len(decoded), len(expected)) - 2000
    np.testing.assert_allclose(decoded[2000:n], expected[2000:n], atol=5e-3)


def test_channels_are_averaged(tmp_path):
    left, right = chord(4.0, RATE, seed=1)[0], chord(4.0, RATE, seed=2)[0]
    path = encode(tmp_path / "stereo.wav", np.stack([left, right]), RATE)
    np.testing.assert_allclose(decode_clip(path, RATE), (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 8, 9])
@pytest.mark.parametrize(
    ("codec", "dtype", "full_scale"),
    [("pcm_u8", "u1", 2**7), ("pcm_s16le", "<i2", 2**15), ("pcm_s32le", "<i4", 2**31),
     ("pcm_f32le", "<f4", 1), ("pcm_f64le", "<f8", 1)],
)  # fmt: skip
def test_each_format_of_samples_is_read_to_the_bit(codec, dtype, full_scale, n_channels):
    """Against the file's own samples, written by the standard's header and averaged by hand."""
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (4 * RATE, n_channels)) * full_scale
    stored = (samples + 128 * (dtype == "u1")).astype(dtype)
    sound = ((stored.astype("f4") - np.float32(128 * (dtype == "u1"))) / full_scale).astype("f4")
    expected = sound.sum(axis=1, dtype=np.float64) / n_channels
    bits, tag = stored.dtype.itemsize * 8, 3 if "f" in dtype else 1
    head = struct.pack(
        "<HHIIHH",
        tag,
        n_channels,
        RATE,
        RATE * n_channels * bits // 8,
        n_channels * bits // 8,
        bits,
    )
    body = b"fmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", stored.nbytes) + stored.tobytes()
    wav = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body
    np.testing.assert_allclose(decode_clip(wav, RATE), expected, atol=2e-7)


def test_a_stream_that_becomes_stereo_is_heard_to_its_end(tmp_path):
    parts = [encode(tmp_path / f"{n}.aac", chord(4.0, RATE, n), RATE).read_bytes() for n in (1, 2)]
    decoded = decode_clip(b"".join(parts), RATE)
    assert 8.0 <= len(decoded) / RATE < 8.3
    assert correlation(decoded[-4 * RATE :], chord(4.0, RATE)[0]) > 0.98


def test_a_stream_whose_rate_changes_is_resampled_on_the_way(tmp_path):
    parts = [
        encode(tmp_path / f"{rate}.aac", chord(4.0, rate), rate).read_bytes()
        for rate in (RATE, 44_100)
    ]
    decoded = decode_clip(b"".join(parts), RATE)
    assert 8.0 <= len(decoded) / RATE < 8.3
    assert correlation(decoded[-4 * RATE :], chord(4.0, RATE)[0]) > 0.98


def test_bytes_and_path_give_the_same_bits(clip):
    path = clip("a.ogg")
    np.testing.assert_array_equal(decode_clip(path, RATE), decode_clip(path.read_bytes(), RATE))


def test_a_clip_that_breaks_off_gives_what_came_or_says_that_it_is_short(clip):
    encoded = clip("a.ogg", seconds=10.0).read_bytes()
    half = decode_clip(encoded[: len(encoded) // 2], RATE)
    assert 3 * RATE < len(half) < 8 * RATE
    assert rejection(encoded[: len(encoded) // 10]).kind in ("too_short", "corrupt")


def test_each_kind_of_unusable_clip_has_its_reason(tmp_path, clip):
    text = tmp_path / "song.mp3"
    text.write_text("this is not music, only words")
    silent = encode(tmp_path / "silent.wav", np.zeros((1, 4 * RATE), np.float32), RATE)
    assert rejection(text).kind == "not_audio"
    assert rejection(silent).kind == "silent"
    assert rejection(b"").kind == "empty"
    assert rejection(clip("short.wav", seconds=0.5)).kind == "too_short"
    assert rejection(clip("long.wav", seconds=9.0), max_seconds=5.0).kind == "too_long"
    assert rejection(tmp_path / "gone.wav").kind == "unreadable"
    assert rejection(b"OggS" + bytes(200)).kind == "corrupt"
    assert rejection(clip("wide.wav", n_channels=8), max_channels=2).kind == "unsupported"
    assert rejection(clip("big.wav"), max_bytes=1000).kind == "too_long"


@pytest.mark.parametrize("gain", [32_768.0, 1e30])
def test_floating_point_samples_of_another_scale_are_refused(tmp_path, gain):
    """Else squares that overflow came out as silence, and integers' scale as noise."""
    sound = chord(4.0, RATE)
    refused = rejection(encode(tmp_path / "a.wav", gain * sound, RATE, "pcm_f32le"))
    assert refused.kind == "unsupported"
    assert "expected floating-point samples whose full scale is 1, got one of" in str(refused)
    loud = encode(tmp_path / "b.wav", 10 * sound, RATE, "pcm_f32le")
    np.testing.assert_allclose(decode_clip(loud, RATE), 10 * sound[0], rtol=1e-6)


def test_messages_name_no_path(tmp_path):
    path = tmp_path / "secret-folder-name.wav"
    path.write_bytes(b"RIFF0000WAVEgarbage")
    assert "secret" not in str(rejection(path))
    assert "secret" not in str(rejection(tmp_path / "secret-missing.ogg"))


@pytest.mark.parametrize(
    "playlist",
    [
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:1/</BaseURL></MPD>",
    ],
)
def test_playlists_that_name_other_files_are_never_opened(playlist):
    assert rejection(playlist).kind == "not_audio"


def test_the_reason_survives_the_way_home_from_a_worker():
    error = pickle.loads(pickle.dumps(ClipRejected("silent", "no sound")))
    assert (error.kind, str(error)) == ("silent", "no sound")


@given(st.binary(min_size=1, max_size=4000), st.sampled_from(["", "OggS", "RIFF", "fLaC", "ID3"]))
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_it_fail_otherwise_than_by_rejecting(noise, magic):
    content = magic.encode() + (b"\x00\x00\x00\x00WAVE" if magic == "RIFF" else b"") + noise
    with pytest.raises(ClipRejected):
        decode_clip(content, RATE)


@given(position=st.integers(0, 20_000), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_flipped_byte_is_decoded_or_rejected(tmp_path_factory, position, value):
    path = tmp_path_factory.getbasetemp() / "flip.ogg"
    if not path.exists():
        encode(path, chord(4.0, RATE), RATE)
    encoded = bytearray(path.read_bytes())
    encoded[position % len(encoded)] = value
    try:
        decoded = decode_clip(bytes(encoded), RATE)
    except ClipRejected:
        return  # any other exception is what this test looks for
    assert np.isfinite(decoded).all()


def test_containers_are_told_from_their_first_bytes(clip):
    names = {
        "a.wav": "wav",
        "a.flac": "flac",
        "a.ogg": "ogg",
        "a.mp3": "mp3",
        "a.aac": "aac",
        "a.m4a": "mov",
    }
    for name, container in names.items():
        assert container_of(Path(clip(name)).read_bytes()[:16]) == container


def test_impossible_limits_are_refused():
    with pytest.raises(ConfigRejected, match="min_seconds"):
        DecodeLimits(min_seconds=5, max_seconds=4)


def test_a_small_file_that_unpacks_to_far_more_is_refused_on_the_way(tmp_path):
    silence = np.zeros((1, 100 * RATE), np.float32)
    path = encode(tmp_path / "a.flac", silence, RATE)
    assert silence.nbytes / len(path.read_bytes()) > 400
    assert rejection(path, max_ratio=400.0).kind == "inflated"
    assert rejection(path).kind == "silent"
    # A small result is no danger, whatever the ratio.
    short = encode(tmp_path / "b.flac", chord(4.0, RATE), RATE)
    decode_clip(short, RATE, DecodeLimits(max_ratio=1.0))


def test_codecs_beyond_those_of_the_formats_are_not_run(tmp_path):
    """FFmpeg would play a WAV file of any of its hundreds of codecs."""
    content = bytearray(encode(tmp_path / "a.wav", chord(4.0, RATE), RATE).read_bytes())
    format_tag = content.index(b"fmt ") + 8
    for tag, name in ((0x0130, "sipr"), (0x7777, "another codec")):
        content[format_tag : format_tag + 2] = tag.to_bytes(2, "little")
        broken = rejection(bytes(content))
        assert broken.kind == "unsupported"
        assert name in str(broken)
