"""The most probable translation, found exactly by depth-first branch and bound (Stahlberg & Byrne 2019).

A prefix is never less probable than what begins with it. So one that is no more probable than the best complete
translation so far is dropped. When no prefix is left that translation is the mode, which is thereby proven. The first
complete translation is that of a beam search, or the empty one.

Each sentence has a stack of open prefixes. A turn of a sentence expands the TURN prefixes on top of its stack, and puts
their extensions there, the most probable on top. Turns of several sentences share a step of fixed shape on the device.
Who else is in a step decides when a sentence has its turn, not what it does then. So a result does not depend on a
sentence's neighbours, up to rounding.

A state is kept until all extensions of its prefix have been expanded or dropped. Extensions of one turn are longer than
the shortest prefix below them on the stack, so a sentence keeps the states of at most TURN prefixes for each length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqkd_jax.decoding.search.beams import log_softmax
from seqkd_jax.decoding.search.past import extended, with_beam_axis
from seqkd_jax.types import BOS, EOS, PAD, Translator, UserError
from seqkd_jax.utils import programs

TURN = 8  # prefixes of one sentence that are expanded at a time
ROWS = (TURN, 64)  # prefixes in a step: of the smallest program that holds those that are ready


class Best(NamedTuple):
    """The most probable translation that the search of a sentence found."""

    tokens: tuple[int, ...]  # EOS included
    log_prob: float  # nats
    bound: float  # no translation is more probable than this, nats; equal to log_prob: it is the mode
    nodes: int  # prefixes expanded


class Known(NamedTuple):
    """A complete translation that is known before the search."""

    tokens: tuple[int, ...]  # EOS included
    log_prob: float


NOTHING = Known((), -np.inf)
Open = tuple[float, int, int]  # a prefix to be expanded: log-probability, place of its parent's state, last token


class Kept(NamedTuple):
    """A prefix whose state is kept on the device."""

    prefix: tuple[int, ...]  # tokens read, BOS included; (): the state before the first
    sentence: int


@dataclass
class _Sentence:
    """A sentence whose search goes on."""

    longest: int  # tokens of a translation, EOS included
    tokens: tuple[int, ...]  # of the best so far
    best: float  # its log-probability
    stack: list[Open] = field(default_factory=list)
    left_open: float = -np.inf  # the greatest log-probability of a prefix that a limit left open
    nodes: int = 0
    held: int = 0  # places


def exact_search(
    translator: Translator,
    params,
    source: np.ndarray,
    longest: Sequence[int],
    known: Sequence[Known],
    steps: int,
    nodes: int,
) -> list[Best]:
    """The most probable translation of each of the first len(known) sentences of source [B,S]; the others are filling.

    longest: tokens of each translation at most, EOS included, at most `steps`; a prefix that is cut there while it is
    more probable than the best translation leaves that unproven. nodes: prefixes expanded for a sentence at most.
    Steps and numbers of rows are static: the programs are shared by all calls of one shape. UserError: NaN scores.
    """
    return _Search(translator, params, source, longest, known, steps, nodes).run()


class _Search:
    """The stacks of some sentences, and which places on the device hold which states."""

    def __init__(self, translator, params, source, longest, known, steps, nodes):
        self.params, self.nodes, self.count = params, nodes, len(known)
        # One sentence needs at most so many places; it always gets them, and others what is left.
        self.need = TURN * (steps + 1)
        roots = len(source)
        places = roots + self.need + 8 * ROWS[-1]
        self.step = _compiled_expansion(translator, steps)
        self.memory, self.states = _compiled_start(translator, steps, places)(params, source)
        self.filling = places  # out of bounds: nothing is written
        self.free = list(range(places - 1, roots - 1, -1))
        self.kept: dict[int, Kept] = {place: Kept((), place) for place in range(self.count)}
        self.pending: dict[int, int] = dict.fromkeys(range(self.count), 1)  # extensions neither expanded nor dropped
        self.sentences = {
            number: _Sentence(int(most), one.tokens, one.log_prob, [(0.0, number, BOS)], held=1)
            for number, (most, one) in enumerate(zip(longest, known, strict=False))
        }

    def run(self) -> list[Best]:
        active, found = list(range(self.count)), {}
        while active:
            ready = self._ready(active)
            if ready:
                self._extend(ready, *self._expand(ready))
            for number in [number for number in active if not self.sentences[number].stack]:
                one = self.sentences[number]
                found[number] = Best(one.tokens, one.best, max(one.best, one.left_open), one.nodes)
                active.remove(number)
        return [found[number] for number in range(self.count)]

    def _ready(self, active: Sequence[int]) -> list[Open]:
        """The prefixes of the next step: the turns of the first sentences, for which there are rows and places."""
        ready: list[Open] = []
        for number in active:
            full = len(ready) + TURN > ROWS[-1]
            short = len(self.free) - len(ready) - TURN < self.need - self.sentences[active[0]].held
            if full or (short and number != active[0]):
                break
            ready += self._turn(self.sentences[number])
        return ready

    def _turn(self, sentence: _Sentence) -> list[Open]:
        taken: list[Open] = []
        while sentence.stack and len(taken) < TURN:
            log_prob, parent, token = sentence.stack.pop()
            if log_prob > sentence.best and sentence.nodes < self.nodes:
                taken.append((log_prob, parent, token))
                sentence.nodes += 1
                continue
            if log_prob > sentence.best:
                sentence.left_open = max(sentence.left_open, log_prob)
            self._release(parent)
        return taken

    def _expand(self, ready: Sequence[Open]) -> tuple[list[int], np.ndarray]:
        """Where the state of each prefix is kept, and log p [N,V] of the tokens that follow it."""
        rows = next(rows for rows in ROWS if rows >= len(ready))
        arrays = np.zeros((5, rows), np.int32)
        parents, places, sentences, tokens, depths = arrays
        places[:] = self.filling
        for row, (_, parent, token) in enumerate(ready):
            prefix, sentence = self.kept[parent]
            place = self.free.pop()
            self.kept[place] = Kept((*prefix, token), sentence)
            self.sentences[sentence].held += 1
            arrays[:, row] = parent, place, sentence, token, len(prefix)
        log_probs, self.states = self.step(self.params, self.memory, self.states, arrays)
        return places[: len(ready)].tolist(), np.asarray(log_probs)[: len(ready)]

    def _extend(self, ready: Sequence[Open], places: Sequence[int], log_probs: np.ndarray) -> None:
        """Complete translations first, since they raise the bound; then the extensions go on their stacks."""
        owners = [self.kept[place].sentence for place in places]
        for (log_prob, *_), place, owner, end in zip(ready, places, owners, log_probs[:, EOS].tolist(), strict=True):
            sentence, total = self.sentences[owner], log_prob + end
            if np.isnan(total):
                raise UserError("exact search: NaN scores; the weights are damaged, use another checkpoint")
            if total > sentence.best:
                sentence.best, sentence.tokens = total, (*self.kept[place].prefix[1:], EOS)
        added: dict[int, list[Open]] = {owner: [] for owner in owners}
        least = [self.sentences[owner].best - log_prob for (log_prob, *_), owner in zip(ready, owners, strict=True)]
        # In float32 a little lower: what is found is compared once more.
        lower = np.nextafter(np.array(least, np.float32), np.float32(-np.inf))
        rows, tokens = np.nonzero(log_probs > lower[:, None])
        self.pending |= dict.fromkeys(places, 0)
        for row, token, gained in zip(rows.tolist(), tokens.tolist(), log_probs[rows, tokens].tolist(), strict=True):
            place, sentence, total = places[row], self.sentences[owners[row]], ready[row][0] + gained
            if token == EOS or total <= sentence.best:
                continue
            if len(self.kept[place].prefix) == sentence.longest:  # EOS alone may follow
                sentence.left_open = max(sentence.left_open, total)
                continue
            self.pending[place] += 1
            added[owners[row]].append((total, place, token))
        for owner, extensions in added.items():
            self.sentences[owner].stack += sorted(extensions, key=lambda one: (one[0], one[2]))
        for place in places:
            if not self.pending[place]:
                self._free(place)
        for _, parent, _ in ready:
            self._release(parent)

    def _release(self, parent: int) -> None:
        """One extension of a kept prefix is done with."""
        self.pending[parent] -= 1
        if not self.pending[parent]:
            self._free(parent)

    def _free(self, place: int) -> None:
        self.sentences[self.kept.pop(place).sentence].held -= 1
        del self.pending[place]
        self.free.append(place)


@cache
def _compiled_start(translator: Translator, steps: int, places: int):
    """(params, source [B,S]) -> the memory, and the states of `places`, of which the first B are those before BOS."""

    def start(params, source):
        memory, state = translator.start(params, source)
        first = with_beam_axis(state, 1), translator.caches(ROWS[-1], 1, steps)
        empty = jax.tree.map(lambda leaf: jnp.zeros((places, *leaf.shape[1:]), leaf.dtype), first)
        return memory, (jax.tree.map(lambda whole, own: whole.at[: len(own)].set(own), empty[0], first[0]), empty[1])

    return programs.announced(jax.jit(start), lambda _, source: f"the memory for width {source.shape[1]}")


@cache
def _compiled_expansion(translator: Translator, steps: int) -> Callable[..., Any]:
    """(params, memory, states, [5,N]: parents, places, sentences, tokens, depths) -> (log p [N,V], states)."""

    def expand(params, memory, states, arrays):
        parents, places, sentences, tokens, depths = arrays
        memory = jax.tree.map(lambda leaf: leaf[sentences], memory)
        state, caches = jax.tree.map(lambda leaf: leaf[parents], states)
        own = np.arange(steps)[None, None] < depths[:, None, None]
        _, past = extended(own)
        features, _, *after = translator.step(params, tokens[:, None], memory, state, caches, past)
        log_probs = log_softmax(translator.head(params, features))[:, 0]
        log_probs = log_probs.at[:, jnp.array([PAD, BOS])].set(-jnp.inf)
        states = jax.tree.map(lambda whole, own: whole.at[places].set(own, mode="drop"), states, tuple(after))
        return log_probs, states

    expand = jax.jit(expand, donate_argnums=2)
    return programs.announced(expand, lambda *given: f"the exact search for {given[-1].shape[1]} prefixes")
