"""The maths of one RL run, on tensors: sampling, log-probabilities, reward, advantage, loss, anchor.

Here lives Algorithm 1, lines 6 to 9 of the paper (arXiv 2406.16768), as functions that take and return tensors.
What may not be here: files, stores, stages, clocks, global random state. The rl and evaluate workers call it.

Shape suffixes: B completions of a batch, S prompt tokens, T completion tokens, V vocabulary.
The one convention for log-probabilities is in logprobs.py.
"""
