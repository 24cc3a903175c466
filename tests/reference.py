"""Slow, obvious references in NumPy and Python lists: what the jitted code is held to. Each section is its module's."""

import itertools

# ---------------------------------------------------------------- search
# A model here is `ask`: prefix (list of ids) -> log-probabilities [V] of the next token, as tests/tiny.py gives it.
# A result is a list, best first, of (ids with EOS, score, log-probability, finished).

_PAD, _UNK, _BOS, _EOS = 0, 1, 2, 3


def reference_penalty(config, length):
    """The divisor of a log-probability, written out for each rule."""
    if config.length_rule == "none":
        return 1.0
    if config.length_rule == "power":
        return length**config.length_alpha
    if config.length_rule == "gnmt":
        return (5 + length) ** config.length_alpha / 6**config.length_alpha
    raise AssertionError(f"write the reference of the length rule {config.length_rule!r}")


def reference_may_follow(config, prefix, token, min_length):
    """Whether the rules let this token come after this prefix."""
    if token in (_PAD, _BOS) or (token == _UNK and config.forbid_unk):
        return False
    return token != _EOS or len(prefix) >= min_length


def reference_beam_search(ask, config, min_length, max_length):
    """Beam search with 2K candidates and the stop rules of SearchConfig, for one sentence."""
    beam = config.beam
    live, finished = [([], 0.0)], []  # (ids, log-probability), best first
    for length in range(1, max_length + 1):
        candidates = []
        for prefix, total in live:
            for token, log_prob in enumerate(ask(prefix)):
                if reference_may_follow(config, prefix, token, min_length):
                    candidates.append((prefix + [token], total + log_prob))
        candidates.sort(key=lambda candidate: -candidate[1])
        candidates = candidates[: 2 * beam]
        for ids, total in candidates[:beam]:
            if ids[-1] == _EOS:
                finished.append((ids, total / reference_penalty(config, length), total, True))
        finished.sort(key=lambda hypothesis: -hypothesis[1])
        finished = finished[:beam]
        live = [candidate for candidate in candidates if candidate[0][-1] != _EOS][:beam]
        if not live:
            break
        if len(finished) == beam:
            if config.stop == "first_k_finished":
                break
            reachable = range(length + 1, max_length + 1)
            if finished[-1][1] >= max((live[0][1] / reference_penalty(config, n) for n in reachable), default=-1e300):
                break
    unfinished = [(ids, total / reference_penalty(config, max_length), total, False) for ids, total in live]
    return (finished + unfinished)[:beam]


def reference_enumeration(ask, config, min_length, max_length):
    """Every hypothesis there is: those that end within max_length, then those cut there; each part best first."""
    vocabulary = range(len(ask([])))
    finished, unfinished = [], []
    for length in range(1, max_length + 1):
        for ids in itertools.product(vocabulary, repeat=length):
            ends = ids[-1] == _EOS
            if _EOS in ids[:-1] or not (ends or length == max_length):
                continue
            prefixes = [list(ids[:t]) for t in range(length)]
            if all(
                reference_may_follow(config, prefix, token, min_length)
                for prefix, token in zip(prefixes, ids, strict=True)
            ):
                total = sum(ask(prefix)[token] for prefix, token in zip(prefixes, ids, strict=True))
                score = total / reference_penalty(config, length)
                (finished if ends else unfinished).append((list(ids), score, total, ends))
    return sorted(finished, key=lambda h: -h[1]) + sorted(unfinished, key=lambda h: -h[1])
