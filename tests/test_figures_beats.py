"""What is watched of the story program, and drawn, is what the program does, to the last digit."""

from __future__ import annotations

import itertools
import math

import pytest

from llm_core import stories
from llm_core.stories import episodes, scenes

beats = pytest.importorskip("figures.beats")


@pytest.mark.parametrize("seed", range(20))
def test_the_beats_of_a_story_hold_its_text_its_price_and_its_facts(seed):
    story = stories.sample(seed)
    path = beats.follow(story)
    assert "".join(visit.text for visit in path) == story.text
    assert math.isclose(sum(visit.nats for visit in path), -story.log_prob, rel_tol=1e-9)
    assert sum((visit.events for visit in path), ()) == story.facts.events
    assert tuple(visit.ending for visit in path if visit.ending) == story.facts.endings


def test_a_path_leads_from_the_first_beat_to_the_closing():
    path = beats.follow(stories.sample(1))
    assert path[0].beat is scenes.story and path[-1].following is None
    assert all(a.following is b.beat for a, b in itertools.pairwise(path))
    assert all(0 < p < 1 for visit in path for p in visit.odds)


def test_the_example_is_what_the_preface_says_of_it():
    facts = beats.example().facts
    assert facts.plots == ("lost",) and facts.ending == "happy"
    assert facts.of("lie") and facts.of("give") and len(facts.events) <= 24


def test_the_graph_has_every_plot_and_every_story_runs_inside_it():
    graph = beats.graph()
    assert set(graph.beats) == {"", *episodes.PLOTS}
    assert all(episodes.PLOTS[name].first in graph.beats[name] for name in episodes.PLOTS)
    for seed in range(10_000, 10_050):
        for visit in beats.follow(stories.sample(seed)):
            assert visit.beat in graph.beats[visit.plot]
            assert (visit.beat, visit.following) in graph.edges
