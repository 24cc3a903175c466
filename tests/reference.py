"""Slow, obvious references in NumPy and Python lists: what the jitted code is held to. Each section is its module's."""

import itertools
import math

import numpy as np

# ---------------------------------------------------------------- search
# A model here is `ask`: prefix (list of ids) -> log-probabilities [V] of the next token, as tests/tiny.py gives it.
# A result is a list, best first, of (ids with EOS, score, log-probability, finished).

_PAD, _UNK, _BOS, _EOS = 0, 1, 2, 3


def reference_penalty(config, length, ends=True):
    """The divisor of a log-probability, written out for each rule; `length` tokens, the last of them EOS if it ends."""
    if ends and not config.length_counts_eos:
        length = max(length - 1, 1)
    if config.length_rule == "none":
        return 1.0
    if config.length_rule == "power":
        return length**config.length_alpha
    if config.length_rule == "gnmt":
        return (5 + length) ** config.length_alpha / 6**config.length_alpha
    raise AssertionError(f"write the reference of the length rule {config.length_rule!r}")


def reference_may_follow(config, prefix, token, min_length, max_length=None, given=()):
    """Whether the rules let this token come after this prefix. given: what the translation must begin with."""
    if len(prefix) < len(given):
        return token == given[len(prefix)]
    if config.at_limit == "forced_eos" and len(prefix) + 1 == max_length:
        return token == _EOS
    if token in (_PAD, _BOS) or (token == _UNK and config.forbid_unk):
        return False
    if config.no_repeat_ngram:
        size, longer = config.no_repeat_ngram, [*prefix, token]
        before = [longer[i : i + size] for i in range(len(longer) - size)]
        if longer[-size:] in before:
            return False
    return token != _EOS or len(prefix) >= min_length


def reference_score(ask, config, ids, total):
    """What a hypothesis is ranked by; `ask.attention(prefix)` gives the weights of the step that follows a prefix."""
    score = total / reference_penalty(config, len(ids), ids[-1] == _EOS)
    if config.coverage_penalty:
        received = sum(np.asarray(ask.attention(ids[:t])) for t in range(len(ids)))
        score += config.coverage_penalty * sum(math.log(min(weight, 1.0)) for weight in received)
    return score


def reference_beam_search(ask, config, min_length, max_length, given=()):
    """Beam search under the rules of SearchConfig, for one sentence."""
    beam = config.beam
    live, finished = [([], 0.0)], []  # (ids, log-probability), best first
    for length in range(1, max_length + 1):
        last = length == max_length
        candidates = []
        for prefix, total in live:
            if last and config.at_limit == "free_eos":
                candidates.append((prefix + [_EOS], total))
                continue
            for token, log_prob in enumerate(ask(prefix)):
                if reference_may_follow(config, prefix, token, min_length, max_length, given):
                    candidates.append((prefix + [token], total + log_prob))
        candidates.sort(key=lambda candidate: -candidate[1])
        number = {"replaced": 2 * beam, "removed": beam - len(finished), "extended": beam}[config.ended]
        candidates = candidates[:number]
        arrived = []
        for place, (ids, total) in enumerate(candidates):
            ends = ids[-1] == _EOS
            in_time = place < beam or (ends and config.eos_among == "all")
            if in_time and _EOS not in ids[:-1] and (ends or (last and config.at_limit == "ranked")):
                arrived.append((ids, reference_score(ask, config, ids, total), total, ends))
        if config.keep == "first":
            arrived = arrived[: beam - len(finished)]
        finished = sorted(finished + arrived, key=lambda hypothesis: -hypothesis[1])[:beam]
        going_on = config.ended == "extended"
        live = [candidate for candidate in candidates if going_on or candidate[0][-1] != _EOS][:beam]
        if last and config.at_limit == "ranked":
            live = []
        if not live or _reference_stops(config, length, max_length, candidates, live, finished):
            break
    live = [(ids, total) for ids, total in live if _EOS not in ids]
    unfinished = [(ids, reference_score(ask, config, ids, total), total, False) for ids, total in live]
    unfinished.sort(key=lambda h: -h[1])
    return (finished + unfinished)[:beam]


def _reference_stops(config, length, max_length, candidates, live, finished):
    if config.stop == "top_ends":
        return candidates[0][0][-1] == _EOS
    if len(finished) < config.beam:
        return False
    if config.stop == "first_k_finished":
        return True
    if config.stop == "current_bound":
        return finished[-1][1] >= live[0][1] / reference_penalty(config, length, ends=False)
    reachable = range(length + 1, max_length + 1)
    bound = max(
        (live[0][1] / reference_penalty(config, n, ends) for n in reachable for ends in (True, False)), default=-1e300
    )
    return finished[-1][1] >= bound


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
                reference_may_follow(config, prefix, token, min_length, max_length)
                for prefix, token in zip(prefixes, ids, strict=True)
            ):
                total = sum(ask(prefix)[token] for prefix, token in zip(prefixes, ids, strict=True))
                score = total / reference_penalty(config, length)
                (finished if ends else unfinished).append((list(ids), score, total, ends))
    return sorted(finished, key=lambda h: -h[1]) + sorted(unfinished, key=lambda h: -h[1])


# ---------------------------------------------------------------- the paper's LSTM


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _cell(gates, c):
    i, f, o, g = np.split(gates, 4)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def reference_lstm(params, config, source, target_in):
    """Attentional vectors [T,E] and weights [T,S] of a sentence without padding: Luong et al. 2015, eqs. 1-8."""
    p = {name: np.asarray(value, np.float64) for name, value in params["params"].items()}
    width, last, tops = config.size, None, []
    for direction in ("forward", "backward") if config.bidirectional else ("forward",):
        x, ends = p["source_embedding"][source], []
        x = x[::-1] if direction == "backward" else x
        for layer in range(config.layers):
            h, c, states = np.zeros(width), np.zeros(width), []
            for step in x:
                name = f"encoder_{direction}_{layer}"
                h, c = _cell(np.concatenate([step, h]) @ p[f"{name}_kernel"] + p[f"{name}_bias"], c)
                states.append(h)
            x = np.array(states)
            ends.append((h, c))
        tops.append(x[::-1] if direction == "backward" else x)
        last = ends if last is None else [(a + h, b + c) for (a, b), (h, c) in zip(last, ends, strict=True)]
    encoder = sum(tops)
    state = last if config.start_from_encoder else [(np.zeros(width), np.zeros(width))] * config.layers
    feed, vectors, attention = np.zeros(width), [], []
    for token in target_in:
        x = p["target_embedding"][token]
        x = np.concatenate([x, feed]) if config.input_feeding else x
        new = []
        for layer, (h, c) in enumerate(state):
            gates = np.concatenate([x, h]) @ p[f"decoder_{layer}_kernel"] + p[f"decoder_{layer}_bias"]
            new.append(_cell(gates, c))
            x = new[-1][0]
        state = new
        if config.attention:
            scores = np.array([x @ p["attention"] @ h for h in encoder])
            attention.append(np.exp(scores) / np.exp(scores).sum())
            context = attention[-1] @ encoder
        else:
            context = last[-1][0]
        feed = np.tanh(np.concatenate([context, x]) @ p["combine"])
        vectors.append(feed)
    return np.array(vectors), np.array(attention)
