"""The page of an evaluation: it says what the report says, and fetches nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import sparse

from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.report_page import page_from_report, summary_sentences
from needledrop.ranking.scores import RandomScores


@pytest.fixture(scope="module")
def report(given_scores):
    generator = np.random.default_rng(0)
    relevant = generator.random((300, 60)) < 0.1
    noise = generator.random((3, 300, 60))
    return evaluate(
        {
            "random": RandomScores(300, 60),
            "linear": given_scores(noise[0] + 0.3 * relevant),
            "cnn": given_scores(noise[1] + 0.7 * relevant),
            "champion": given_scores(noise[1] + 0.7 * relevant),
            "my <own> model": given_scores(noise[2] + 2.0 * relevant),
        },
        sparse.csr_matrix(relevant),
        [f"SO{number}" for number in range(60)],
        relevant.sum(axis=0),
        EvaluationConfig(n_resamples=200),
        n_songs_known_to_champion=4,
    )


def test_the_summary_says_who_beats_whom(report):
    text = " ".join(summary_sentences(report))
    assert "the CNN reaches mAP@500 0." in text
    assert "The CNN beats the linear bag-of-words baseline by 0." in text
    assert "The CNN beats a random order by 0." in text
    assert "The CNN and the champion rank alike." in text
    assert "trained on 4 of these 60 songs" in text


def test_the_summary_admits_defeat_and_doubt(report):
    comparison = report.comparison("cnn", "linear", "map_500")
    worse = replace(comparison, difference=-0.2, low=-0.3, high=-0.1)
    unclear = replace(comparison, difference=0.01, low=-0.1, high=0.1)
    unknown = replace(comparison, difference=None, low=None, high=None)
    texts = [
        " ".join(summary_sentences(replace(report, comparisons=(one,))))
        for one in (worse, unclear, unknown)
    ]
    assert "The CNN is behind the linear bag-of-words baseline by 0.2000" in texts[0]
    assert "No clear difference between the CNN and the linear" in texts[1]
    assert "Nothing can be said of the CNN against the linear" in texts[2]


def test_the_page_is_whole_and_self_contained(report):
    text = page_from_report(report).text()
    assert text.count("<svg") == 2
    assert "my &lt;own&gt; model" in text
    assert "<own>" not in text
    # Everything that a browser would fetch is named by one of these.
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)|src=", text)
    open_tags = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "br", "hr"):
                open_tags.append(tag)

        def handle_startendtag(self, tag, attributes):
            pass

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Balance().feed(text)
    assert open_tags == []


def test_the_page_shows_every_figure_with_its_interval(report):
    text = page_from_report(report).text()
    for model in report.models.values():
        for metric in ("map_500", "auc", "ndcg_500", "recall_50", "recall_500"):
            one = model.metrics[metric]
            assert f"{one.mean:.4f} ({one.low:.4f} to {one.high:.4f})" in text
    one = report.comparison("cnn", "random", "auc_least_popular")
    assert f"{one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f})" in text
    assert "recall@500 is 1 by construction" in text


def test_a_report_of_one_model_without_least_popular_listeners_has_a_page(given_scores):
    relevant = sparse.csr_matrix(np.arange(20)[None, :] == np.full((6, 1), 19))
    report = evaluate(
        {"linear": given_scores(np.random.default_rng(0).random((6, 20)))},
        relevant,
        [f"SO{number}" for number in range(20)],
        np.arange(20),
        EvaluationConfig(n_resamples=100),
    )
    text = page_from_report(report).text()
    assert summary_sentences(report) == []
    assert "<td>linear</td><td>-</td><td>-</td><td>0</td>" in text
