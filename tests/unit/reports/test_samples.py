"""Completions on the page: at random, the same for all, and where the chosen policy is worst."""

import dataclasses

from warpctl.reports.estimate import REWARD, distinct
from warpctl.reports.samples import draw_samples, worst_regrets


def test_samples_are_the_same_prompts_for_every_policy_and_every_time(evaluated_run):
    policies = distinct(evaluated_run())[:3]

    samples = draw_samples(policies)

    assert samples == draw_samples(policies)
    assert len({sample.prompt for sample in samples}) == 6
    for sample in samples:
        place = policies[0][1].prompts.index(sample.prompt)
        assert [c.text for c in sample.completions] == [point.completions[place] for _, point in policies]
        assert [c.scores[REWARD] for c in sample.completions] == [point.reward[place] for _, point in policies]
        assert [c.scores["truth"] for c in sample.completions] == [
            point.held_out["truth"][place] for _, point in policies
        ]


def judged(point, scores):
    """The point with these held-out scores for its first prompts' first completions, 0 elsewhere."""
    values = [0.0] * len(point.completions)
    for place, score in scores.items():
        values[place * point.num_generations] = score
    return dataclasses.replace(point, held_out={"truth": tuple(values)})


def test_regrets_are_where_the_judge_prefers_sft_most_worst_first(evaluated_point, named_point):
    sft = judged(evaluated_point(num_generations=2), {3: 5.0, 7: 1.0, 9: 2.0})
    chosen = judged(evaluated_point(num_generations=2, seed=1), {3: 4.0, 9: -1.0, 20: 9.0})
    policies = [named_point("sft", sft), named_point("liti/1", chosen)]

    regrets = worst_regrets(policies, sft=sft, chosen=chosen, judge="truth", count=5)

    assert [(sample.prompt, sample.regret) for sample in regrets] == [
        ("prompt 9", 3.0),
        ("prompt 3", 1.0),
        ("prompt 7", 1.0),
    ]
    assert [completion.text for completion in regrets[0].completions] == [sft.completions[18], chosen.completions[18]]


def test_without_the_judges_scores_there_are_no_regrets(evaluated_point, named_point):
    sft, chosen = evaluated_point(held_out=None), evaluated_point(seed=1)

    assert worst_regrets([named_point("sft", sft)], sft=sft, chosen=chosen, judge="truth") == ()
