"""A trained bundle says how its factors lie for songs that it has not learned from."""

from dataclasses import replace

import numpy as np
import pytest

from components.journal import Journal
from components.train_encoder.launching import fit, material_of
from components.train_encoder.request import TrainingRequest
from needledrop.encoders.drift import DriftWindow, FactorReference
from needledrop.plays.split import Split
from tests.components.test_train_job import QUICK, SIZE, artifacts_of
from tests.encoders.conftest import make_heard


@pytest.mark.parametrize("encoder", ["linear", "cnn"])
def test_the_reference_is_what_the_bundle_predicts_for_test_songs(encoder, tmp_path):
    features, _ = make_heard(tmp_path / "features", 50)
    songs = features.song_ids
    split = Split("random", 0, songs[:10], songs[10:13], songs[13:], songs[:0])
    inputs, store = artifacts_of(features, split, tmp_path / "world")
    request = TrainingRequest(encoder, str(store), str(tmp_path / "workspace"), SIZE, QUICK)
    material = material_of(inputs, request)
    bundle, _ = fit(material, request, Journal("train_encoder"))
    predicted = bundle.encoder.factors([features[song] for song in split.test.tolist()])
    expected = FactorReference.fit(predicted)
    assert bundle.reference.n_songs == len(split.test) == 37
    np.testing.assert_array_equal(bundle.reference.edges, expected.edges)
    np.testing.assert_array_equal(bundle.reference.counts, expected.counts)
    window = DriftWindow(bundle.reference)
    for row in predicted:
        window.see(row)
    assert window.index == pytest.approx(0, abs=1e-9)
    few = replace(split, test=split.test[:29])
    assert replace(material, split=few).reference_of(bundle.encoder) is None
