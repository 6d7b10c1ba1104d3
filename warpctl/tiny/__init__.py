"""The tiny laboratory: everything a WARP run needs, made from a seed on a CPU in under a minute.

A grammar of product reviews, a tokenizer of 159 words, a policy that is really trained on that grammar (Gemma
architecture), a reward model that is really learned from noisy preferences, and a ground truth that training never sees.
They are written as ordinary folders and enter a run through import, like anybody's models.

    python -m warpctl.tiny --out FOLDER [--seed 0] [--width 128]

grammar.py, ground_truth.py and recipe.py are plain Python; only policy.py, preferences.py, tokenizer.py and
laboratory.py need torch. Nothing here knows WARP, stages or stores.
"""
